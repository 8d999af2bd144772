"""Reads YAML as data, keeping the place of each value; nothing in a file can run code.

Scalars follow YAML 1.2's core schema: `1e-3` is a number; `no`, `yes`, `on` and `off` are text; only `true` and
`false` are truth values, only `null`, `~` and nothing are null. Keys are always text. Duplicate keys, tabs, tags,
merge keys (`<<`) and bytes that are not UTF-8 are errors that name file and line.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vertebra.errors import RecipeError
from vertebra_eval.files import read_bytes

__all__ = ["Node", "display", "from_plain", "parse_yaml", "read_yaml"]

_MAX_BYTES = 1 << 20  # a recipe of more than 1 MiB is something else
_MAX_NODES = 50_000  # after following aliases: a few lines of them can stand for billions of values


@dataclass(frozen=True)
class Node:
    """A value of a YAML file and where it stands.

    Args:
        value: None, bool, int, float, str, list[Node] or dict[str, Node].
        where: `file:line` of its key, or of itself inside a list.
        folder: what relative paths in it are relative to.
    """

    value: Any
    where: str
    folder: Path

    def plain(self) -> Any:
        """The value without places: lists, dicts with text keys, and scalars."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value


def read_yaml(path: str | Path) -> Node:
    """Reads one file; an empty one gives a Node of None.

    Raises:
        RecipeError: the file cannot be read, is not UTF-8, or is not YAML as described above.
    """
    path = Path(path)
    name = display(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise RecipeError(f"{name}: larger than 1 MiB, so this is not a recipe")
        raw = read_bytes(path)
    except OSError as err:
        raise RecipeError(f"{name}: cannot be read: {err.strerror or err}") from err
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = raw.count(b"\n", 0, err.start) + 1
        column = err.start - (raw.rfind(b"\n", 0, err.start) + 1) + 1
        raise RecipeError(
            f"{name}:{line}: not UTF-8: byte 0x{raw[err.start]:02x} in column {column}.\n  Save the file as UTF-8"
        ) from err
    return parse_yaml(text, name, path.resolve().parent)


def parse_yaml(text: str, name: str, folder: Path, *, lines: bool = True) -> Node:
    """Parses text; `name` stands for the file in messages (with `lines` off, without a line number)."""
    reader = _Reader(name, folder, lines)
    try:
        root = yaml.compose(text, Loader=YamlLoader)
        return reader.convert(root) if root is not None else Node(None, reader.where_of(0), folder)
    except yaml.YAMLError as err:
        raise RecipeError(_syntax_error(err, reader, text)) from err
    except RecursionError as err:
        raise RecipeError(f"{name}: nested too deeply to be a recipe") from err


def from_plain(value: Any, where: str, folder: Path) -> Node:
    """Wraps plain Python data, as if it had been read at `where`."""
    if isinstance(value, dict):
        return Node({str(key): from_plain(child, where, folder) for key, child in value.items()}, where, folder)
    if isinstance(value, (list, tuple)):
        return Node([from_plain(child, where, folder) for child in value], where, folder)
    if isinstance(value, os.PathLike):
        return Node(os.fspath(value), where, folder)
    if value is None or isinstance(value, (bool, int, float, str)):
        return Node(_usable(value, where), where, folder)
    raise RecipeError(f"{where}: a recipe cannot hold a {type(value).__name__} ({value!r:.60})")


def display(path: Path) -> str:
    """A path for messages: relative to the current directory where it lies below it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


class YamlLoader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2's core schema (yaml.org/spec/1.2.2, section 10.3.2)."""

    yaml_implicit_resolvers: dict = {}


_TAG = "tag:yaml.org,2002:"
_FLOAT = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
for _kind, _pattern, _first in (
    ("null", r"null|Null|NULL|~|", ["n", "N", "~", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
):
    YamlLoader.add_implicit_resolver(_TAG + _kind, re.compile(rf"^(?:{_pattern})$"), _first)


class _Reader:
    """Turns PyYAML's nodes into ours; each is converted once, however many aliases point to it."""

    def __init__(self, name: str, folder: Path, lines: bool) -> None:
        self.name = name
        self.folder = folder
        self.lines = lines
        self.sizes: dict[int, tuple[Node, int]] = {}  # by id of PyYAML's node: the result, and how many values it is
        self.open: set[int] = set()  # being converted: an alias to one of these would never end

    def where_of(self, line: int) -> str:
        return f"{self.name}:{line + 1}" if self.lines else self.name

    def convert(self, node: yaml.Node) -> Node:
        return self._convert(node, self.where_of(node.start_mark.line))[0]

    def _convert(self, node: yaml.Node, where: str) -> tuple[Node, int]:
        if id(node) in self.open:
            raise RecipeError(f"{where}: an alias (*name) points to a block that holds it")
        known = self.sizes.get(id(node))
        if known is None:
            self.open.add(id(node))
            known = self._convert_new(node, where)
            self.open.discard(id(node))
            self.sizes[id(node)] = known
        result, size = known
        if size > _MAX_NODES:
            raise RecipeError(f"{where}: aliases (*name) make this more than {_MAX_NODES} values")
        return Node(result.value, where, self.folder), size

    def _convert_new(self, node: yaml.Node, where: str) -> tuple[Node, int]:
        kind = node.tag.removeprefix(_TAG)
        if isinstance(node, yaml.MappingNode) and kind == "map":
            return self._mapping(node, where)
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            pairs = [self._convert(child, self.where_of(child.start_mark.line)) for child in node.value]
            return Node([child for child, _ in pairs], where, self.folder), 1 + sum(size for _, size in pairs)
        if isinstance(node, yaml.ScalarNode) and kind in ("str", "null", "bool", "int", "float"):
            return Node(_scalar(kind, node.value, where), where, self.folder), 1
        tag = f"!!{kind}" if kind != node.tag else node.tag
        raise RecipeError(
            f"{where}: the tag {tag} is not allowed: a recipe is plain data and never runs code.\n"
            "  Write the value itself: text, a number, true, false, null, a [list] or a {key: value} block"
        )

    def _mapping(self, node: yaml.MappingNode, where: str) -> tuple[Node, int]:
        found: dict[str, Node] = {}
        total = 1
        for key_node, value_node in node.value:
            key_where = self.where_of(key_node.start_mark.line)
            if not isinstance(key_node, yaml.ScalarNode):
                raise RecipeError(f"{key_where}: a key must be plain text, not a list or a block")
            if not key_node.tag.startswith(_TAG) or "python/" in key_node.tag:
                raise RecipeError(f"{key_where}: the tag {key_node.tag} is not allowed: a recipe is plain data")
            key = key_node.value
            if key == "<<" and key_node.style is None:
                raise RecipeError(
                    f"{key_where}: merge keys (<<) are not supported; use _base_ to inherit from a recipe"
                )
            if key in found:
                raise RecipeError(
                    f"{key_where}: the key {key!r} occurs twice in one block; first at {found[key].where}.\n"
                    "  Remove one of the two"
                )
            found[key], size = self._convert(value_node, key_where)
            total += size
        return Node(found, where, self.folder), total


def _scalar(kind: str, text: str, where: str) -> Any:
    try:
        if kind == "null":
            return None
        if kind == "bool":
            return {"true": True, "false": False}[text.lower()]
        if kind == "int":
            base = 8 if text.startswith("0o") else 16 if text.startswith("0x") else 10
            return _usable(int(text.removeprefix("0o"), base), where)
        if kind == "float":
            return float(re.sub(r"\.(inf|nan)$", r"\1", text.lower()))
        return _usable(text, where)
    except (ValueError, KeyError) as err:
        raise RecipeError(f"{where}: {text[:40]!r} is not a value of type {kind}") from err


def _usable(value: Any, where: str) -> Any:
    """An integer that torch, NumPy and JSON can hold, and text without a zero byte; other values as they are."""
    if isinstance(value, str) and "\0" in value:
        raise RecipeError(f"{where}: the text {value[:40]!r} holds a zero byte")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise RecipeError(f"{where}: the integer {hex(value)[:20]}... does not fit into 64 bits")
    return value


def _syntax_error(err: yaml.YAMLError, reader: _Reader, text: str) -> str:
    if isinstance(err, yaml.reader.ReaderError):
        line = text.count("\n", 0, err.position)
        return f"{reader.where_of(line)}: character U+{ord(text[err.position]):04X} may not stand in a YAML file"
    if not isinstance(err, yaml.MarkedYAMLError) or err.problem_mark is None:
        return f"{reader.name}: not valid YAML: {err}"
    mark = err.problem_mark
    where, problem = reader.where_of(mark.line), err.problem or "syntax error"
    source = text.splitlines()[mark.line] if mark.line < len(text.splitlines()) else ""
    if "'\\t'" in problem or "\t" in source[: len(source) - len(source.lstrip())]:
        return f"{where}: a tab where YAML requires spaces.\n  Indent with spaces only"
    context = f" {err.context}" if err.context else ""
    if err.context_mark is not None and err.context_mark.line != mark.line and reader.lines:
        context += f" that begins in line {err.context_mark.line + 1}"
    shown = f"\n    {source.rstrip():.200}" if source.strip() and reader.lines else ""
    return f"{where}: not valid YAML: {problem}{context}, column {mark.column + 1}{shown}"
