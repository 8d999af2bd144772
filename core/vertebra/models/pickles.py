"""Weights out of a pickle of numpy arrays (Detectron2's and Caffe2's `.pkl`), without running anything it says.

A pickle is a small program: it names functions and calls them. Here none of the functions it names is ever
called. The few that a dictionary of numpy arrays needs have stand-ins of our own, which check their arguments
and yield plain numbers; any other name ends the reading. Numpy's own unpickling is not used either, because a
forged dtype could make it take raw bytes for pointers.
"""

import io
import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vertebra.errors import CheckpointError
from vertebra.models.growth import GrowthError, check_pickle
from vertebra_eval.files import read_bytes

__all__ = ["read_pickle_arrays", "read_pickle_content"]

_NUMERIC = re.compile(r"[<>=|]?[biufc]\d{1,2}|\?")  # bool, int, unsigned, float, complex; no objects, no records
_WRAPPERS = ("model", "state_dict", "blobs", "model_state")  # keys under which trainers keep the weights


def read_pickle_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a pickled `{name: array}`, or of one under `model`, `state_dict` or `blobs`.

    Strings of Python 2 are read as Latin-1, as Caffe2's model zoo needs. Entries beside the arrays (an author's
    name, hints for matching) are dropped. Arrays are native-endian, writable and own their memory.

    Raises:
        CheckpointError: the file is missing, is not a pickle, is cut off, holds no arrays, or names a function or
            class that arrays of numbers do not need; says which.
    """
    path = Path(path)
    content = _load(path)
    for key in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a dictionary of arrays, found a {_kind(content)}")
    found = {name: item.value for name, item in content.items() if isinstance(item, _Array) and isinstance(name, str)}
    arrays = {name: array for name, array in found.items() if array is not None}
    if len(arrays) < len(found):
        raise CheckpointError(f"{path}: the array {min(found.keys() - arrays.keys())!r} has no contents")
    if not arrays:
        raise CheckpointError(
            f"{path}: holds no arrays; its entries: {', '.join(map(repr, list(content)[:5])) or 'none'}"
        )
    return arrays


def read_pickle_content(path: str | Path) -> Any:
    """Everything in a pickle of dicts, lists, texts, numbers and numpy arrays, nested in any way.

    Raises:
        CheckpointError: the file is missing, is not a pickle, is cut off, or names a function or class that these do
            not need; says which.
    """
    path = Path(path)
    return _unwrapped(_load(path), path)


def _load(path: Path) -> Any:
    """The file's content, with stand-ins in place of arrays."""
    try:
        content = read_bytes(path)
        if content.startswith(b"PK\x03\x04"):
            raise CheckpointError(f"{path}: a zip archive as torch.save writes it; name it .pth, not {path.suffix}")
        check_pickle(io.BytesIO(content))
        return _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
    except CheckpointError:
        raise
    except (_RefusedError, GrowthError) as err:
        raise CheckpointError(
            f"{path}: refused, nothing was run: {err}.\n"
            "  A weights file of this kind holds a dictionary of numpy arrays of numbers and nothing else. Get it from "
            "a source you trust, or save the weights with torch.save or safetensors instead."
        ) from err
    except OSError as err:
        raise CheckpointError(f"{path}: cannot be read: {err.strerror or err}") from err
    except Exception as err:  # broken bytes make the unpickler raise nearly anything: EOFError, KeyError, MemoryError
        raise CheckpointError(
            f"{path}: is not a complete pickle of numpy arrays ({type(err).__name__}: {err}). Is the download complete?"
        ) from err


def _unwrapped(content: Any, path: Path, depth: int = 0) -> Any:
    """The content with arrays in place of their stand-ins."""
    if depth > 20:
        raise CheckpointError(f"{path}: its lists and dicts are nested too deep, or hold themselves")
    if isinstance(content, _Array):
        if content.value is None:
            raise CheckpointError(f"{path}: an array in it has no contents")
        return content.value
    if isinstance(content, dict):
        return {key: _unwrapped(value, path, depth + 1) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_unwrapped(value, path, depth + 1) for value in content]
    return content


class _RefusedError(Exception):
    """The pickle asks for something that arrays of numbers do not need."""


class _ArrayUnpickler(pickle._Unpickler):
    """The interpreter's unpickler in Python: the one in C makes tables as long as a forged file asks for."""

    def find_class(self, module: str, name: str) -> Any:
        stand_in = _STAND_INS.get((module.replace("numpy._core", "numpy.core"), name))
        if stand_in is None:
            raise _RefusedError(f"it names {module}.{name}")
        return stand_in

    def persistent_load(self, pid: Any) -> Any:
        raise _RefusedError(f"it refers to an object outside the file ({str(pid)[:60]!r})")


class _StandIn:
    """A callable that takes the place of a named one. The pickle can call it and cannot change it."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        try:
            return self._function(*args)
        except TypeError as err:
            raise _RefusedError(f"it passes {len(args)} unfitting arguments on ({err})") from err

    def __setstate__(self, state: Any) -> None:
        raise _RefusedError("it tries to change a function")


class _DType:
    """Stands for numpy.dtype: a kind and size of number, and its byte order."""

    __slots__ = ("value",)

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not _NUMERIC.fullmatch(code):
            raise _RefusedError(f"it holds an array of type {str(code)[:40]!r}, which is not a type of number")
        try:
            self.value = np.dtype(code)
        except TypeError as err:
            raise _RefusedError(f"it holds an array of type {code!r}, which numpy does not know") from err

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, sub-array, field names, fields, item size, alignment, flags[, metadata])
        if not isinstance(state, tuple) or len(state) < 5 or any(state[2:5]) or state[1] not in ("<", ">", "|", "="):
            raise _RefusedError("it holds an array whose type has parts or fields")
        self.value = self.value.newbyteorder(state[1])


class _Array:
    """Stands for numpy.ndarray: empty when made, filled by `__setstate__` as numpy writes it."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise _RefusedError("it holds an array that numpy did not write")
        shape, dtype, fortran, data = state[-4:]  # before them, sometimes, a version number
        self.value = _numbers(data, dtype, shape, "F" if fortran else "C")


def _numbers(data: Any, dtype: Any, shape: Any, order: Literal["C", "F"]) -> np.ndarray:
    if isinstance(data, str):
        data = data.encode("latin1")  # bytes of Python 2
    if not isinstance(data, (bytes, bytearray)) or not isinstance(dtype, _DType):
        raise _RefusedError("it holds an array of objects, not of numbers")
    if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise _RefusedError(f"it holds an array of shape {str(shape)[:60]}")
    if math.prod(shape) * dtype.value.itemsize != len(data):
        raise _RefusedError(f"it holds an array of shape {shape} and type {dtype.value} in {len(data)} bytes")
    array = np.frombuffer(data, dtype.value).reshape(shape, order=order)
    return np.array(array, dtype=dtype.value.newbyteorder("="), order="C")  # a native, writable copy


def _reconstruct(kind: Any, shape: Any, typecode: Any) -> _Array:
    return _Array()  # numpy passes (0,) and 'b' and sets the rest afterwards


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.value = _numbers(data, dtype, shape, "F" if order == "F" else "C")
    return array


def _scalar(dtype: Any, data: Any) -> _Array:
    array = _Array()
    array.value = _numbers(data, dtype, (), "C")
    return array


def _latin1(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _RefusedError(f"it encodes a text as {str(encoding)[:40]!r}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""  # how protocol 2 writes the contents of an array of no elements


def _plain_dict(items: Any = ()) -> dict:
    return {key: value for key, value in items}


def _no_class(*_: Any) -> None:
    raise _RefusedError("it makes an array in a way that numpy does not write")


_STAND_INS: dict[tuple[str, str], _StandIn] = {
    ("numpy.core.multiarray", "_reconstruct"): _StandIn(_reconstruct),
    ("numpy.core.multiarray", "scalar"): _StandIn(_scalar),
    ("numpy.core.numeric", "_frombuffer"): _StandIn(_frombuffer),
    ("numpy", "ndarray"): _StandIn(_no_class),
    ("numpy", "dtype"): _StandIn(_DType),
    ("_codecs", "encode"): _StandIn(_latin1),
    ("codecs", "encode"): _StandIn(_latin1),
    ("__builtin__", "bytes"): _StandIn(_no_bytes),
    ("builtins", "bytes"): _StandIn(_no_bytes),
    ("collections", "OrderedDict"): _StandIn(_plain_dict),
}


def _kind(content: Any) -> str:
    return "single array" if isinstance(content, _Array) else type(content).__name__
