"""`_base_`, merging and overrides: from a recipe's files to one tree of nodes.

`_base_` names a file or a list of files, each relative to the file that names it, or `plugin:recipe`. Later ones are
laid over earlier ones, the file itself over all of them, overrides over that. Laying one value over another:

- two blocks merge key by key; lists and scalars replace what was there, `null` too;
- a component block with another `name` (or `format`) than the one below it replaces it whole, so that no argument
  of the old component stays behind; `model` without a `name` is a `Model`;
- a block without `name` laid over a bare component name (`neck: FPN`) adds arguments to that component;
- a section with nothing in it (`train:` and no more) changes nothing;
- `requires` is the union of both lists;
- `train.steps` and `train.epochs` exclude each other, as do `train.optimizer` and `train.optimizers`: the one given
  later drops the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vertebra.config.component import USUAL_MODEL
from vertebra.config.foreign_files import refuse_foreign_block, refuse_foreign_suffix
from vertebra.config.recipe_files import find_recipe
from vertebra.config.requires import REQUIRES, check_requires, join_requires
from vertebra.config.yaml_reader import Node, display, from_plain, parse_yaml, read_yaml
from vertebra.errors import PluginError, RecipeError

__all__ = ["BASE", "Overrides", "apply_overrides", "merge", "read_with_bases"]

BASE = "_base_"
Overrides = Iterable["str | Mapping[str, Any]"] | Mapping[str, Any]
_PIXELS = ("pixel_mean", "pixel_std", "pixel_order")
_EXCLUSIVE: dict[tuple[str, ...], tuple[tuple[str, str], ...]] = {
    ("train",): (("steps", "epochs"), ("optimizer", "optimizers"))
}


def read_with_bases(path: Path, opened: tuple[Path, ...] = ()) -> Node:
    """Reads a recipe and everything it builds on, merged; `opened` are the files that led here."""
    path = path.resolve()
    if path in opened:
        chain = " -> ".join(display(file) for file in (*opened[opened.index(path) :], path))
        raise RecipeError(f"{display(path)}: {BASE} is circular: {chain}")
    try:
        root = read_yaml(path)
    except RecipeError:
        refuse_foreign_suffix(path)
        raise
    if root.value is None:
        raise RecipeError(f"{display(path)}: the file is empty; a recipe has at least `model`, or a `{BASE}`")
    if not isinstance(root.value, dict):
        refuse_foreign_suffix(path)
        raise RecipeError(f"{root.where}: a recipe is a block of `key: value` lines, got {_kind_of(root)}")
    refuse_foreign_block(root)
    check_requires(root.value.get(REQUIRES))
    own = Node({key: child for key, child in root.value.items() if key != BASE}, root.where, root.folder)
    _refuse_inner_bases(own)
    merged: Node | None = None
    for base in _bases_of(root.value.get(BASE)):
        try:
            file = find_recipe(base.value, base.folder)
        except PluginError as err:
            raise PluginError(f"{base.where}: {BASE}: {err}") from err
        except RecipeError as err:
            raise RecipeError(f"{base.where}: {BASE}: {err}") from err
        layer = read_with_bases(file, (*opened, path))
        merged = layer if merged is None else merge(merged, layer)
    return own if merged is None else merge(merged, own)


def merge(below: Node | None, above: Node, path: tuple[str, ...] = ()) -> Node:
    """`above` laid over `below`, by the rules at the top of this file. Neither is changed."""
    if len(path) == 1 and above.value is None and below is not None and isinstance(below.value, dict):
        return below
    if path == (REQUIRES,) and below is not None:
        return join_requires(below, above)
    if below is None or not isinstance(above.value, dict):
        return above
    if isinstance(below.value, str) and not {"name", "format"} & above.value.keys():
        below = Node({"name": below}, below.where, below.folder)
    if not isinstance(below.value, dict):
        return above
    if path and _is_other_component(below.value, above.value, path):
        pixels = _PIXELS if path == ("model",) else ()  # of the images, whatever the model
        kept = {key: child for key, child in below.value.items() if key in pixels and key not in above.value}
        return replace(above, value=above.value | kept) if kept else above
    result = dict(below.value)
    for pair in _EXCLUSIVE.get(path, ()):
        for given, other in (pair, pair[::-1]):
            if _given(above, given) and not _given(above, other):
                result.pop(other, None)
    for key, child in above.value.items():
        result[key] = merge(below.value.get(key), child, (*path, key))
    return Node(result, above.where, above.folder)


def apply_overrides(root: Node, overrides: Overrides) -> Node:
    """Lays `a.b.c=value` strings, or mappings from dotted keys to values, over a recipe, in their order.

    A number in a key counts into a list, from 0. Relative paths are relative to the current directory.
    """
    folder = Path.cwd()
    for override in [overrides] if isinstance(overrides, (str, Mapping)) else overrides:
        if isinstance(override, Mapping):
            for key, value in override.items():
                where = f"override {key!r}"
                root = _set(root, _split(key, where), from_plain(value, where, folder), ())
            continue
        key, equals, text = override.partition("=")
        where = f"override {override[:80]!r}{'...' if len(override) > 80 else ''}"
        if not equals:
            raise RecipeError(f"{where}: expected key=value, for example train.steps=1000")
        value = parse_yaml(text, where, folder, lines=False)
        root = _set(root, _split(key, where), value, ())
    return root


def _set(node: Node | None, keys: tuple[str, ...], value: Node, done: tuple[str, ...]) -> Node:
    """A copy of `node` with `value` laid over what `keys` point to."""
    if not keys:
        return merge(node, value, done)
    key, rest = keys[0], keys[1:]
    if node is not None and isinstance(node.value, list):
        if not key.isdecimal() or len(key) > 9 or int(key) >= len(node.value):
            raise RecipeError(
                f"{value.where}: {'.'.join(done)} is a list of {len(node.value)}"
                f" ({node.where}); {key[:40]!r} is not one of its positions 0 to {len(node.value) - 1}"
            )
        items = list(node.value)
        items[int(key)] = _set(items[int(key)], rest, value, (*done, key))
        return Node(items, node.where, node.folder)
    below = node.value.get(key) if node is not None and isinstance(node.value, dict) else None
    child = _set(below, rest, value, (*done, key))
    where, folder = (node.where, node.folder) if node is not None else (value.where, value.folder)
    return merge(node, Node({key: child}, where, folder), done)


def _split(key: str, where: str) -> tuple[str, ...]:
    keys = tuple(part.strip() for part in key.split("."))
    if not all(keys):
        raise RecipeError(f"{where}: the key {key!r} is not of the form section.key")
    if keys[0] in (BASE, REQUIRES):
        raise RecipeError(f"{where}: {keys[0]} cannot be overridden; write a recipe that has another {keys[0]}")
    return keys


def _is_other_component(below: dict[str, Node], above: dict[str, Node], path: tuple[str, ...]) -> bool:
    kind_key = "format" if "format" in below or "format" in above else "name"
    if kind_key not in above:
        return False
    # A model without a name is the usual one; other components in a model have one.
    usual = USUAL_MODEL if path == ("model",) or (path[0] == "model" and above[kind_key].value == USUAL_MODEL) else None
    return (below[kind_key].value if kind_key in below else usual) != above[kind_key].value


def _given(block: Node, key: str) -> bool:
    return key in block.value and block.value[key].value is not None


def _bases_of(node: Node | None) -> list[Node]:
    if node is None or node.value is None:
        return []
    bases = node.value if isinstance(node.value, list) else [node]
    for base in bases:
        if not isinstance(base.value, str):
            raise RecipeError(f"{base.where}: {BASE} is {_kind_of(base)}, expected a path or a list of paths")
    return bases


def _refuse_inner_bases(node: Node, path: str = "") -> None:
    children = node.value.items() if isinstance(node.value, dict) else enumerate(node.value)
    for key, child in children:
        inner = f"{path}.{key}" if path else str(key)
        if key == BASE:
            raise RecipeError(f"{child.where}: {inner}: {BASE} may only stand at the top of a recipe")
        if isinstance(child.value, (dict, list)):
            _refuse_inner_bases(child, inner)


def _kind_of(node: Node) -> str:
    names = {dict: "a block", list: "a list", str: "text", type(None): "nothing", bool: "a truth value"}
    return names.get(type(node.value), "a number")
