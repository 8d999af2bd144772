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

from vertebra.plugins.local_files import ANNOUNCED
from vertebra.testing.checks import check_same, require, tensors_in
from vertebra.testing.spawned import call

__all__ = ["check_export", "check_spawned"]


def check_spawned(module: nn.Module, *arguments: Any) -> None:
    """Pickled, sent to a spawned process and called there, a module gives what it gives here."""
    module = module.eval()
    with torch.no_grad():
        here = _arrays(module(*arguments))
    try:
        payload = pickle.dumps((module, arguments))
    except Exception as err:  # pickle raises whatever an object's own methods raise
        raise AssertionError(
            f"{type(module).__name__} cannot be pickled: {err}. Hold no lambdas, local functions, open files or locks"
        ) from err
    try:
        there = pickle.loads(_pool(tuple(sys.path), os.environ.get(ANNOUNCED)).submit(call, payload).result())
    except Exception as err:
        if isinstance(err, BrokenProcessPool):
            _pool.cache_clear()
        raise AssertionError(
            f"{type(module).__name__} fails in a spawned process: {type(err).__name__}: {err}"
        ) from err
    check_same(here, there, "the output in a spawned process", tolerance=1e-5)


def check_export(module: nn.Module, *arguments: Any) -> None:
    """torch.export traces the module, and the exported program gives the same tensors."""
    module = module.eval()
    with torch.no_grad():
        here = [tensor for _, tensor in tensors_in(module(*arguments))]
        require(bool(here), f"{type(module).__name__}.forward returns no tensors")
        try:
            exported = torch.export.export(module, arguments, strict=False)
        except Exception as err:
            raise AssertionError(
                f"torch.export cannot trace {type(module).__name__}.forward: {type(err).__name__}: {err}"
            ) from err
        there = [tensor for _, tensor in tensors_in(exported.module()(*arguments))]
    check_same(here, there, "the exported program's output", tolerance=1e-5)


@cache
def _pool(path: tuple[str, ...], local_plugins: str | None) -> ProcessPoolExecutor:
    """One spawned process for all checks of this process, as long as what it can import stays the same."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def _arrays(value: Any) -> list[torch.Tensor]:
    return [tensor.detach().clone() for _, tensor in tensors_in(value)]
