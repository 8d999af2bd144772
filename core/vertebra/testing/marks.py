"""Marks for pytest, where it is installed: the kit itself runs without it."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["slow"]


def slow(test: Callable) -> Callable:
    """Marks a test as `slow`, so that `pytest -m "not slow"` skips it."""
    try:
        import pytest
    except ImportError:
        return test
    return pytest.mark.slow(test)
