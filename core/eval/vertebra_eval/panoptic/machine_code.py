"""`machine_code`: functions compiled by numba, stored on the disk where numba finds a place. Needs numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

__all__ = ["machine_code"]


def machine_code(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled at its first call, without the lock of the interpreter.

    The next process loads the result from the disk. Where neither the package's folder nor the user's cache can be
    written, each process compiles anew.
    """
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # numba's "no locator available"
        return njit(nogil=True)(function)
