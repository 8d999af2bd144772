"""new_plugin: fills the templates in and writes them, all or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

from vertebra import __version__
from vertebra.errors import PluginError
from vertebra.plugins import CORE, GROUPS, KINDS, core
from vertebra.scaffold.base_recipe import BaseRecipe, find_base
from vertebra.scaffold.names import PluginNames, plugin_names
from vertebra.scaffold.sample_images import sample_files
from vertebra_eval.files import whole_folder
from vertebra_eval.nearest import nearest

__all__ = ["SCAFFOLD_KINDS", "NewPlugin", "new_plugin"]

SCAFFOLD_KINDS = KINDS
_WHOLE = ("head", "model")  # their recipes need no base


@dataclass(frozen=True)
class NewPlugin:
    """What was written.

    Args:
        folder: the new distribution.
        components: {kind: the class's name in recipes}.
        recipes: `plugin:recipe` of each kind, which trains it once the plugin is installed, with the overrides that it
            needs.
        files: what lies in the folder, relative to it.
    """

    folder: Path
    components: dict[str, str]
    recipes: tuple[tuple[str, ...], ...]
    files: tuple[Path, ...]


def new_plugin(
    name: str,
    kinds: str | Sequence[str],
    output: str | Path = ".",
    base: str | None = None,
    class_names: Sequence[str] = (),
) -> NewPlugin:
    """Writes the distribution `name` with a working component of each kind into `output`/`name`.

    Args:
        kinds: one of `SCAFFOLD_KINDS`, or several.
        base: `plugin:recipe` that new recipes build on; None: chosen among what is installed. A head and a model need
            none.
        class_names: names of the classes, in the order of `kinds`. None: made from `name`, and of several kinds with
            the kind behind it.
    Raises:
        PluginError: a kind or name that cannot be, a folder that is taken or cannot be written.
    """
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    for kind in kinds:
        if kind not in SCAFFOLD_KINDS:
            near = ", ".join(nearest(kind, SCAFFOLD_KINDS)) or "none"
            raise PluginError(
                f"no template exists for a {kind!r}.\n  Nearest: {near}. All: {', '.join(SCAFFOLD_KINDS)}"
            )
    if not kinds or len(set(kinds)) < len(kinds):
        raise PluginError(f"kinds are {', '.join(kinds) or 'none'}; expected one or several, each once")
    names = plugin_names(name, kinds, class_names)
    target = Path(output).expanduser() / names.distribution
    if target.exists() or target.is_symlink():
        raise PluginError(f"{target} already exists; remove it, or choose another name or --output")
    bases = {kind: None if kind in _WHOLE else find_base(kind, base) for kind in kinds}
    contents = _contents(names, bases)
    _write(target, contents)
    further = {kind: (f"data.root={target.resolve() / _SAMPLE}",) if kind == "format" else () for kind in kinds}
    recipes = tuple((f"{names.distribution}:{_recipe(kind, kinds)}", *further[kind]) for kind in kinds)
    return NewPlugin(target, names.classes, recipes, tuple(sorted(contents)))


_SAMPLE = "sample"  # folder with pictures that a new format reads
_COMMON = {  # template -> where it goes
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "tests.yml": ".github/workflows/tests.yml",
    "gitignore": ".gitignore",
    "init.py": "$package/__init__.py",
}


def _recipe(kind: str, kinds: Sequence[str]) -> str:
    """Name of the recipe that trains a component of this kind."""
    return "shapes" if len(kinds) == 1 else f"{kind}_shapes"


def _contents(names: PluginNames, bases: dict[str, BaseRecipe | None]) -> dict[Path, bytes]:
    """{place: content} of all files."""
    kinds = list(bases)
    values = _values(names, bases)
    found = {"$package/recipes/__init__.py": b""}
    for template, place in _COMMON.items():
        found[place] = _filled(f"common/{template}", values)
    for kind, base in bases.items():
        own = values | {
            "class_name": names.classes[kind],
            "kind": kind,
            "recipe": _recipe(kind, kinds),
            "base": base.recipe if base else "",
            "base_head": base.head if base else "",
        }
        found[f"$package/{kind}.py"] = _filled(f"{kind}/component.py", own)
        found[f"$package/recipes/{own['recipe']}.yaml"] = _filled(f"{kind}/shapes.yaml", own)
        found["tests/test_$package.py" if len(kinds) == 1 else f"tests/test_{kind}.py"] = _filled(
            f"{kind}/test.py", own
        )
    if "format" in kinds:
        found |= {f"{_SAMPLE}/{name}": content for name, content in sample_files().items()}
    return {Path(Template(place).substitute(values)): content for place, content in found.items()}


def _filled(template: str, values: dict[str, str]) -> bytes:
    path = resources.files("vertebra.scaffold") / "templates" / f"{template}.template"
    return Template(path.read_text(encoding="utf-8")).substitute(values).encode()


def _values(names: PluginNames, bases: dict[str, BaseRecipe | None]) -> dict[str, str]:
    """What the placeholders of all templates stand for."""
    installed = core()
    requirements = [_requirement(CORE, installed.version if installed else __version__)]
    requirements += dict.fromkeys(_requirement(b.plugin.distribution, b.plugin.version) for b in bases.values() if b)
    package, classes = names.package, names.classes
    tests = f"tests/test_{package}.py" if len(classes) == 1 else "tests/test_<kind>.py"
    return {
        "distribution": names.distribution,
        "package": package,
        "requirements": ", ".join(f'"{requirement}"' for requirement in requirements),
        "what": " and ".join(f"the {kind} {name}" for kind, name in classes.items()),
        "imports": "\n".join(f"from {package}.{kind} import {name}" for kind, name in sorted(classes.items())),
        "all": ", ".join(f'"{name}"' for name in sorted(classes.values())),
        "entry_points": "\n\n".join(
            f'[project.entry-points."{GROUPS[kind]}"]\n{name} = "{package}.{kind}:{name}"'
            for kind, name in classes.items()
        ),
        "trainings": "\n".join(
            f"    vertebra train {names.distribution}:{_recipe(kind, list(classes))}"
            + (f" data.root={_SAMPLE}" if kind == "format" else "")
            for kind in classes
        ),
        "component_rows": "\n".join(
            f"| `{package}/{kind}.py` | the {kind} `{name}`. Its constructor's keyword arguments are what a recipe may "
            "write |"
            for kind, name in classes.items()
        ),
        "recipe_names": ", ".join(f"`{names.distribution}:{_recipe(kind, list(classes))}`" for kind in classes),
        "tests": tests,
        "class_list": ", ".join(f"`{name}`" for name in classes.values()),
        "first_class": next(iter(classes.values())),
    }


def _requirement(distribution: str, version: str) -> str:
    """Everything from this minor release on, before the next: until 1.0 a minor release may break."""
    major, minor = (int(part) for part in (*version.split(".")[:2],))
    return f"{distribution}>={major}.{minor},<{major}.{minor + 1}"


def _write(target: Path, contents: dict[Path, bytes]) -> None:
    """All of the files or none."""
    try:
        with whole_folder(target) as draft:
            for place, content in contents.items():
                path = draft / place
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
    except OSError as err:
        raise PluginError(f"cannot write {target}: {err.strerror or err}. Choose another --output") from err
