"""A module somewhere else: pickled to a spawned process, and exported by torch.export."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from typing import Any

import torch
from torch import nn

from vertebra.models.given import not_exportable
from vertebra.plugins.local_files import ANNOUNCED
from vertebra.testing.checks import check_same, require, tensors_in
from vertebra.testing.spawned import call

__all__ = ["check_export", "check_spawned", "there"]

_IN_GRAPHS = ("padding_mask", "raw")


def check_spawned(module: nn.Module, *arguments: Any, further: dict[str, Any] | None = None) -> None:
    """Pickled, sent to a spawned process and called there, a module gives what it gives here.

    Args:
        further: arguments by name.
    """
    module, further = module.eval(), further or {}
    with torch.no_grad():
        here = _arrays(module(*arguments, **further))
    check_same(here, there(module, *arguments, **further), "the output in a spawned process", tolerance=1e-5)


def there(function: Any, *arguments: Any, **further: Any) -> Any:
    """What a function, or an object that is called, gives in a spawned process; of a module its tensors.

    Raises:
        AssertionError: it cannot be pickled, or fails there.
    """
    name = getattr(function, "__name__", type(function).__name__)
    try:
        payload = pickle.dumps((function, arguments, further))
    except Exception as err:  # pickle raises whatever an object's own methods raise
        raise AssertionError(
            f"{name} cannot be pickled: {err}. Hold no lambdas, local functions, open files or locks"
        ) from err
    try:
        return pickle.loads(_pool(tuple(sys.path), os.environ.get(ANNOUNCED)).submit(call, payload).result())
    except Exception as err:
        if isinstance(err, BrokenProcessPool):
            _pool.cache_clear()
        raise AssertionError(f"{name} fails in a spawned process: {type(err).__name__}: {err}") from err


def check_export(module: nn.Module, *arguments: Any, further: dict[str, Any] | None = None) -> None:
    """torch.export traces the module, and the exported program gives the same tensors. What requires more than a graph
    of images can give is not exported.

    Args:
        further: arguments by name.
    """
    if any(not_exportable([(module, "forward")])):
        return
    module, further = module.eval(), {name: one for name, one in (further or {}).items() if name in _IN_GRAPHS}
    with torch.no_grad():
        here = [tensor for _, tensor in tensors_in(module(*arguments, **further))]
        require(bool(here), f"{type(module).__name__}.forward returns no tensors")
        try:
            exported = torch.export.export(module, arguments, further, strict=False)
        except Exception as err:
            raise AssertionError(
                f"torch.export cannot trace {type(module).__name__}.forward: {type(err).__name__}: {err}"
            ) from err
        traced = [tensor for _, tensor in tensors_in(exported.module()(*arguments, **further))]
    check_same(here, traced, "the exported program's output", tolerance=1e-5)


@cache
def _pool(path: tuple[str, ...], local_plugins: str | None) -> ProcessPoolExecutor:
    """One spawned process for all checks of this process, as long as what it can import stays the same."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def _arrays(value: Any) -> list[torch.Tensor]:
    return [tensor.detach().clone() for _, tensor in tensors_in(value)]
