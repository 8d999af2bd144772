"""load_recipe: from a file name and overrides to a checked Recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vertebra.config.bases import Overrides, apply_overrides, read_with_bases
from vertebra.config.check import Mistakes, check_section
from vertebra.config.recipe_files import find_recipe
from vertebra.config.scalars import show
from vertebra.config.sections import Recipe
from vertebra.config.yaml_reader import Node, display
from vertebra.errors import PluginError
from vertebra.plugins.local_files import load_local_plugin

__all__ = ["load_recipe"]


def load_recipe(path_or_name: str | Path, overrides: Overrides = (), plugins: Sequence[str | Path] = ()) -> Recipe:
    """Reads, merges and checks a recipe. Imports the components that it names, and builds nothing.

    Args:
        path_or_name: a YAML file (`.yaml` may be omitted), or `plugin:recipe` for one that a plugin ships.
        overrides: `a.b.c=value` strings, where a number counts into a list (`data.train_transforms.0.prob=1`), or
            mappings from such keys to values; laid over the recipe in their order.
        plugins: local plugin files beside those that the recipe names, relative to the current directory.
    Raises:
        RecipeError: all mistakes of the recipe together, each with file, line and the nearest valid name.
        PluginError: a plugin that it needs cannot be found or used, and that is all that is wrong.
    """
    file = find_recipe(str(path_or_name), Path.cwd())
    root = _add_plugins(apply_overrides(read_with_bases(file), overrides), plugins)
    mistakes = Mistakes()
    _load_local_plugins(root, mistakes)
    mistakes.raise_if_any(display(file))  # without its plugins, the rest of the recipe would only look wrong
    recipe = check_section(
        Recipe, _with_absolute_paths(root, file.stem), "", mistakes, source=str(file), name=file.stem
    )
    mistakes.raise_if_any(display(file))
    return recipe


def _add_plugins(root: Node, paths: Sequence[str | Path]) -> Node:
    """`root` with further local plugins; one that it names already is not named twice."""
    written = root.value.get("plugins")
    if not paths or (written is not None and not isinstance(written.value, (list, type(None)))):
        return root  # the value is not a list, which the check will report
    named = _plugin_nodes(root)
    known = {(node.folder / Path(node.value).expanduser()).resolve() for node in named if isinstance(node.value, str)}
    further = [path for path in (Path(path).expanduser().resolve() for path in paths) if path not in known]
    nodes = [*named, *(Node(str(path), f"--plugin {path.name}", Path.cwd()) for path in further)]
    return Node({**root.value, "plugins": Node(nodes, root.where, root.folder)}, root.where, root.folder)


def _load_local_plugins(root: Node, mistakes: Mistakes) -> None:
    written = root.value.get("plugins")
    if written is not None and not isinstance(written.value, (list, type(None))):
        mistakes.add(written.where, f"plugins is {show(written)}, expected a list of files: plugins: [./my_head.py]")
    for node in _plugin_nodes(root):
        if not isinstance(node.value, str):
            mistakes.add(node.where, f"plugins: {show(node)} is not a path")
            continue
        try:
            load_local_plugin(node.folder / Path(node.value).expanduser())
        except PluginError as err:
            mistakes.add(node.where, f"plugins: {getattr(err, 'summary', err)}", err)


def _plugin_nodes(root: Node) -> list[Node]:
    node = root.value.get("plugins")
    return node.value if node is not None and isinstance(node.value, list) else []


def _with_absolute_paths(root: Node, name: str) -> Node:
    """Local plugins by absolute path and {name} filled in, so that the saved recipe means the same elsewhere."""
    values = dict(root.value)
    if _plugin_nodes(root):
        paths = [
            Node(str((node.folder / Path(node.value).expanduser()).resolve()), node.where, node.folder)
            for node in _plugin_nodes(root)
        ]
        values["plugins"] = Node(paths, values["plugins"].where, root.folder)
    output = values.get("output", Node(Recipe.output, root.where, root.folder))
    if isinstance(output.value, str):
        values["output"] = Node(output.value.replace("{name}", name), output.where, output.folder)
    return Node(values, root.where, root.folder)
