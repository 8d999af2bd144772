"""new_plugin: fills the templates in and writes them, all or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

from vertebra import __version__
from vertebra.errors import PluginError
from vertebra.plugins import CORE, GROUPS, core
from vertebra.scaffold.base_recipe import BaseRecipe, find_base
from vertebra.scaffold.names import PluginNames, plugin_names
from vertebra_eval.files import whole_folder
from vertebra_eval.nearest import nearest

__all__ = ["SCAFFOLD_KINDS", "NewPlugin", "new_plugin"]

SCAFFOLD_KINDS = ("head", "neck", "backbone", "loss", "evaluator", "hook")


@dataclass(frozen=True)
class NewPlugin:
    """What was written.

    Args:
        folder: the new distribution.
        recipe: `plugin:recipe` that trains it, once it is installed.
        component: the class's name in recipes.
        files: what lies in the folder, relative to it.
    """

    folder: Path
    recipe: str
    component: str
    files: tuple[Path, ...]


def new_plugin(name: str, kind: str, output: str | Path = ".", base: str | None = None) -> NewPlugin:
    """Writes the distribution `name` with a working component of `kind` into `output`/`name`.

    Args:
        kind: one of `SCAFFOLD_KINDS`.
        base: `plugin:recipe` that the new recipe builds on; None: chosen among what is installed. A head needs none.
    Raises:
        PluginError: a kind or name that cannot be, a folder that is taken or cannot be written.
    """
    if kind not in SCAFFOLD_KINDS:
        near = ", ".join(nearest(kind, SCAFFOLD_KINDS)) or "none"
        raise PluginError(f"no template exists for a {kind!r}.\n  Nearest: {near}. All: {', '.join(SCAFFOLD_KINDS)}")
    names = plugin_names(name, kind)
    target = Path(output).expanduser() / names.distribution
    if target.exists() or target.is_symlink():
        raise PluginError(f"{target} already exists; remove it, or choose another name or --output")
    values = _values(names, kind, None if kind == "head" else find_base(kind, base))
    contents = {Path(Template(place).substitute(values)): text for place, text in _texts(kind, values).items()}
    _write(target, contents)
    return NewPlugin(target, f"{names.distribution}:shapes", names.class_name, tuple(sorted(contents)))


def _values(names: PluginNames, kind: str, base: BaseRecipe | None) -> dict[str, str]:
    """What the templates' placeholders stand for."""
    installed = core()
    requirements = [_requirement(CORE, installed.version if installed else __version__)]
    if base is not None:
        requirements.append(_requirement(base.plugin.distribution, base.plugin.version))
    return {
        "distribution": names.distribution,
        "package": names.package,
        "class_name": names.class_name,
        "kind": kind,
        "a_kind": f"an {kind}" if kind[0] in "aeiou" else f"a {kind}",
        "Kind": kind.capitalize(),
        "group": GROUPS[kind],
        "requirements": ", ".join(f'"{requirement}"' for requirement in requirements),
        "base": base.recipe if base else "",
        "base_head": base.head if base else "",
    }


def _requirement(distribution: str, version: str) -> str:
    """Everything from this minor release on, before the next: until 1.0 a minor release may break."""
    major, minor = (int(part) for part in (*version.split(".")[:2],))
    return f"{distribution}>={major}.{minor},<{major}.{minor + 1}"


_PLACES = {  # template -> where it goes
    "common/pyproject.toml": "pyproject.toml",
    "common/README.md": "README.md",
    "common/tests.yml": ".github/workflows/tests.yml",
    "common/gitignore": ".gitignore",
    "common/init.py": "$package/__init__.py",
    "{kind}/component.py": "$package/{kind}.py",
    "{kind}/shapes.yaml": "$package/recipes/shapes.yaml",
    "{kind}/test.py": "tests/test_$package.py",
}


def _texts(kind: str, values: dict[str, str]) -> dict[str, str]:
    """{place, placeholders not filled in yet: content}."""
    root = resources.files("vertebra.scaffold") / "templates"
    found = {"$package/recipes/__init__.py": ""}
    for template, place in _PLACES.items():
        text = (root / f"{template.format(kind=kind)}.template").read_text(encoding="utf-8")
        found[place.format(kind=kind)] = Template(text).substitute(values)
    return found


def _write(target: Path, contents: dict[Path, str]) -> None:
    """All of the files or none."""
    try:
        with whole_folder(target) as draft:
            for place, text in contents.items():
                path = draft / place
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as err:
        raise PluginError(f"cannot write {target}: {err.strerror or err}. Choose another --output") from err
