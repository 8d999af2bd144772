"""Strict reading of JSON files, and the gathering of many faults of one file into one error."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
from collections import deque
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from vertebra_eval.errors import DataError
from vertebra_eval.files.file_names import near_file
from vertebra_eval.files.regular import open_regular, read_bytes

__all__ = ["Problems", "json_list_parts", "read_json"]

_PART, _TAIL = 1 << 22, 1 << 16  # bytes of a part of a list, and at its end in which the cut is looked for first
_BETWEEN = re.compile(rb"\}\s*,\s*(?=\{)")


def read_json(path: str | os.PathLike, *, unique_keys: bool = True, hint: str = "") -> Any:
    """Parse one UTF-8 JSON file (a byte order mark is passed over). NaN and Infinity pass: the reader of the record
    can say where they stand.

    Args:
        unique_keys: refuse a key that is written twice in one object. Results, which machines write, are read faster
            without.
        hint: a sentence for a file that is not there.

    Raises:
        DataError: not there, not UTF-8, not JSON (with line and column), or a key written twice in one object.
    """
    path = Path(path)
    try:
        raw = read_bytes(path)
    except FileNotFoundError as err:
        raise DataError(f"{path}: no such annotation file{near_file(path)}{hint and f'. {hint}'}") from err
    except OSError as err:
        raise DataError(f"{path}: {_foreign(path) or f'cannot be read ({err.strerror or err})'}") from err
    if not raw.strip():
        raise DataError(f"{path}: the file is empty")
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{path}: line 1, column 1: the text is UTF-16, JSON must be UTF-8; save it as UTF-8")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line, column = _place(raw, err.start)
        what = f"line {line}, column {column}: byte 0x{raw[err.start]:02X} is not UTF-8 (Latin-1?); save as UTF-8"
        raise DataError(f"{path}: {_foreign(path) or what}") from err
    try:
        with _without_collection():
            return json.loads(text, object_pairs_hook=_unique_keys if unique_keys else None)
    except json.JSONDecodeError as err:
        what = f"line {err.lineno}, column {err.colno}: {err.msg}; the file is not valid JSON"
        raise DataError(f"{path}: {_foreign(path) or what}") from err
    except _DuplicateKeyError as err:
        raise DataError(f"{path}: the key {err.key!r} occurs twice in one object; remove one of the two") from err
    except (ValueError, RecursionError) as err:  # numbers of thousands of digits, nesting without end
        raise DataError(f"{path}: cannot be read as JSON ({err})") from err


def json_list_parts(path: str | os.PathLike) -> Generator[list, None, None]:
    """The elements of a file that is one JSON list of objects, some MiB at a time.

    A part ends between two objects, at `}, {`. Where that stands within one, in a text or a list in it, neither half is
    JSON. The garbage collector pauses until the last part: what is done with one meanwhile would wake it.

    Raises:
        ValueError, RecursionError: it is something else, or cannot be taken apart; `read_json` knows more.
        OSError: it cannot be read.
    """
    with _without_collection(), open_regular(path) as file:
        rest = file.read(_PART).removeprefix(b"\xef\xbb\xbf").lstrip()
        if not rest.startswith(b"["):
            raise ValueError("not a list")
        rest = rest[1:]
        while block := file.read(_PART):
            before = len(rest)
            rest += block
            cut = _last_between(rest, max(before, len(rest) - _TAIL)) or _last_between(rest, before)
            if cut is not None:
                yield _objects(b"[" + rest[: cut.start() + 1] + b"]")
                rest = rest[cut.end() :]
        elements = _objects(b"[" + rest)
        if elements:
            yield elements


def _last_between(text: bytes, start: int) -> re.Match[bytes] | None:
    found = deque(_BETWEEN.finditer(text, start), maxlen=1)
    return found[0] if found else None


def _objects(text: bytes) -> list:
    elements = json.loads(text.decode("utf-8"))
    if not isinstance(elements, list) or not set(map(type, elements)) <= {dict}:
        raise ValueError("not a list of objects")
    return elements


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Pauses the garbage collector, which looks again and again for circles among millions of new objects that have
    none: half of the time of a large file."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _foreign(path: Path) -> str | None:
    """What the file is instead, as far as its name or the files of the folder show it."""
    from vertebra_eval.files.foreign_labels import foreign_labels  # needs Pillow, which short commands do without

    try:
        return None if path.suffix.lower() == ".json" else foreign_labels(path)
    except OSError:
        return None


class Problems:
    """Faults found in one file or dataset. The first `limit` are listed, the others counted."""

    def __init__(self, file: Path | str, limit: int = 20) -> None:
        self.file = file
        self.limit = limit
        self.count = 0
        self._lines: list[str] = []

    def add(self, where: str, what: str) -> None:
        """`where` names the record, `what` what is wrong and how to fix it."""
        self.count += 1
        if len(self._lines) < self.limit:
            self._lines.append(f"{where}: {what}")

    def raise_if_any(self) -> None:
        """Raise a DataError with all that was added; does nothing if that is nothing."""
        if not self.count:
            return
        if self.count == 1:
            raise DataError(f"{self.file}: {self._lines[0]}")
        more = f"\n  ... and {self.count - self.limit} more" if self.count > self.limit else ""
        raise DataError(f"{self.file}: {self.count} faults:\n  " + "\n  ".join(self._lines) + more)


class _DuplicateKeyError(Exception):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict:
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _DuplicateKeyError(next(key for i, key in enumerate(keys) if key in keys[:i]))
    return result


def _place(raw: bytes, position: int) -> tuple[int, int]:
    """Line and column, both from 1, of a byte position (columns count bytes)."""
    before = raw[:position]
    return before.count(b"\n") + 1, position - (before.rfind(b"\n") + 1) + 1
