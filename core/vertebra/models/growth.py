"""Small files that would fill the memory, or keep the reader busy for ever, are refused before they are read.

A pickle may refer to an object that it made before: lists of lists of lists, each ten times the one before, or tuples
whose hash takes as many steps, need a few hundred bytes. An archive's record may unpack to a thousand times its size,
and a tensor may repeat one number as often as its shape says.
"""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

__all__ = ["GrowthError", "check_archive", "check_pickle", "check_tensors"]

_MOST_ITEMS = 10_000_000  # items of a pickle, each counted as often as it occurs; a checkpoint has some ten thousand
_MOST_INSTRUCTIONS = 10_000_000  # the same number, of a pickle that makes each item anew
_NODE_COST = 3  # instructions that count for one object with parts or text, by the room that counting it takes
_TEXT_PER_ITEM = 16  # characters that count as one item
_ALWAYS = 1 << 30  # bytes that any file may unpack to,
_TIMES = 20  # and how many times its own size
_STORES = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
_REPEATS = ("GET", "BINGET", "LONG_BINGET", "DUP")
_CHANGES = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")


class GrowthError(ValueError):
    """A file that would need far more room or time than its size accounts for; the text says why."""


def check_archive(path: str | Path) -> None:
    """Compares what the records of a zip archive unpack to with the size of the file.

    Raises:
        GrowthError: more than 1 GiB, and more than twenty times the file.
        OSError, zipfile.BadZipFile: the file cannot be read, or is not an archive.
    """
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(record.file_size for record in archive.infolist())
    _check_size(unpacked, Path(path).stat().st_size, "its records unpack")


def check_tensors(content: Any, size: int) -> None:
    """Compares what the tensors of a file's content would take up one by one with the size of the file.

    Raises:
        GrowthError: those that are larger than what is stored of them come to more than 1 GiB and twenty times `size`.
    """
    total, seen, waiting = 0, set(), [content]
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Tensor):
            own = item.numel() * item.element_size()
            if item.layout != torch.strided or own > item.untyped_storage().nbytes():
                total += own
        elif isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, (list, tuple)):
            waiting += item
    _check_size(total, size, "tensors in it that repeat their numbers come")


def check_pickle(file: BinaryIO) -> None:
    """Runs through one pickle, without making any of its objects, and counts them.

    Args:
        file: stands at the pickle's beginning, and after the call at its end. An `mmap` or `io.BytesIO`: files proper
            make room for as many bytes as a forged length announces.
    Raises:
        GrowthError: the objects, each counted as often as it occurs in others, are more than ten million; or one
            contains itself; or the pickle asks for memory by a number (`bytearray`).
        ValueError, IndexError, KeyError: it is not a complete pickle.
    """
    stack: list[_Node | None] = []  # None: a mark
    memo: dict[int, _Node] = {}
    repeated = made = 0
    for opcode, value, _ in pickletools.genops(file):
        name = opcode.name
        made += 1
        if made > _MOST_INSTRUCTIONS:
            raise GrowthError(f"it has more than {_MOST_INSTRUCTIONS:,} instructions")
        if name == "STOP":
            _check_count(_occurrences(stack.pop()))
        elif name == "MARK":
            stack.append(None)
        elif name in _STORES:
            memo[len(memo) if name == "MEMOIZE" else int(value or 0)] = _node(stack[-1])
        elif name in _REPEATS:
            node = _node(stack[-1] if name == "DUP" else memo[int(value or 0)])
            repeated += node.items
            _check_count(repeated)
            stack.append(node)
        else:
            parts = _taken(stack, opcode)
            _refuse_bytearray(name, value, parts)
            if name in _CHANGES:
                parts[0].add(parts[1:])
                stack.append(parts[0])
            else:
                text = value if isinstance(value, (str, bytes)) else ""
                is_leaf = not opcode.stack_before and not text and not name.startswith("EMPTY_")
                if not is_leaf:
                    made += _NODE_COST
                stack += [_LEAF if is_leaf else _Node(text, parts) for _ in opcode.stack_after]


class _Node:
    """An object that a pickle would make: its number of items, and which ones."""

    __slots__ = ("items", "parts", "text")

    def __init__(self, text: str | bytes, parts: Iterable[_Node]) -> None:
        self.text = text if len(text) < 64 else ""
        self.items = 1 + len(text) // _TEXT_PER_ITEM
        self.parts: list[_Node] | None = None  # for as long as there are none
        self.add(parts)

    def add(self, parts: Iterable[_Node]) -> None:
        for part in parts:
            self.items += part.items  # for lists and dicts as they are now, for all that can be hashed for good
            if self.parts is None:
                self.parts = []
            self.parts.append(part)


_LEAF = _Node("", ())
"""Any number or constant."""


def _node(item: _Node | None) -> _Node:
    if item is None:
        raise ValueError("a mark in the place of an object")
    return item


def _taken(stack: list[_Node | None], opcode: pickletools.OpcodeInfo) -> list[_Node]:
    """What an instruction takes off the stack, lowest first."""
    below = opcode.stack_before
    parts: list[_Node] = []
    if pickletools.markobject in below:
        while (item := stack.pop()) is not None:
            parts.append(item)
        below = below[: below.index(pickletools.markobject)]
    for _ in below:
        parts.append(_node(stack.pop()))
    return parts[::-1]


def _refuse_bytearray(name: str, value: Any, parts: list[_Node]) -> None:
    named = str(value).split()[-1:] == ["bytearray"] if name in ("GLOBAL", "INST") else False
    if named or (name == "STACK_GLOBAL" and parts[-1].text == "bytearray"):
        raise GrowthError("it makes a bytearray, which may be as large as it says and which weights do not need")


def _occurrences(root: _Node | None) -> int:
    """The number of items below a node, each counted as often as it occurs, as things stand at the end."""
    counted: dict[int, int] = {}
    open_nodes: set[int] = set()
    waiting = [_node(root)]
    while waiting:
        node = waiting[-1]
        key = id(node)
        if key in counted:
            waiting.pop()
        elif key in open_nodes:  # its parts are counted
            counted[key] = 1 + sum(counted[id(part)] for part in node.parts or ())
            open_nodes.discard(key)
            waiting.pop()
        else:
            open_nodes.add(key)
            if any(id(part) in open_nodes for part in node.parts or ()):
                raise GrowthError("a list or dict in it contains itself")
            waiting += node.parts or ()
    return counted[id(root)]


def _check_count(items: int) -> None:
    if items > _MOST_ITEMS:
        raise GrowthError(f"by naming its own parts again and again it makes more than {_MOST_ITEMS:,} items of itself")


def _check_size(unpacked: int, size: int, what: str) -> None:
    if unpacked > max(_ALWAYS, _TIMES * size):
        raise GrowthError(f"{what} to {unpacked:,} bytes, the file has {size:,}")
