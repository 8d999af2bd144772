"""What the benchmarks share: contestants timed in interleaved rounds, their peak memory, and a table of ratios.

A contestant is a name and a function that makes it: `make()` gives `run`, which does the work once. The first one named
is the peer that the others are compared with. The functions are sent to other processes: a `partial` of one that its
module defines, no lambda.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from vertebra.config import Recipe

__all__ = [
    "SETTINGS",
    "Contestants",
    "PeakMemory",
    "Result",
    "compare",
    "finish_step",
    "make_optimizer",
    "make_ready",
    "measure",
    "print_table",
]

SETTINGS = {
    "fp32 NCHW": ("train.amp=off", "evaluate.amp=off", "train.channels_last=false"),
    "fp32": ("train.amp=off", "evaluate.amp=off"),
    "default": (),
}
"""Overrides that a model of ours is measured with: the peers' precision and memory layout, their precision alone, and
what a recipe gets without asking (bf16 autocast where the CPU has it, channels_last where that is faster)."""

_MEMORY_RUNS = 3  # of which the median counts: they differ by a few MiB
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # glibc's malloc.h

Contestants = Mapping[str, Callable[[], Callable[[], object]]]


class Result(NamedTuple):
    """What one contestant needed: median seconds, and peak MiB above what was there before."""

    seconds: float
    peak_mib: float


class PeakMemory:
    """Peak resident memory above where it began, in MiB, sampled every 2 ms by a thread (Linux)."""

    def __enter__(self) -> PeakMemory:
        gc.collect()
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)
        self._start = self._peak = _resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.002):
            self._peak = max(self._peak, _resident())

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.mebibytes = (self._peak - self._start) / 2**20


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(contestants: Contestants, repeats: int, warmup: int = 2) -> dict[str, Result]:
    """Median seconds and peak MiB of each contestant.

    Memory is taken first, of each contestant in a process of its own; then the rounds of all are interleaved in this
    one, so that a busy machine slows all of them alike. During these the process keeps what it frees: otherwise each
    contestant waits for pages that the system took back, more or fewer by where the others left holes, which moved
    ratios by up to a tenth.
    """
    peaks = {name: _peak_of_its_own(make) for name, make in contestants.items()}
    _keep_freed_memory(True)
    runs = {name: make() for name, make in contestants.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + warmup):
        names = list(runs)
        first = turn % len(names)
        for name in (*names[first:], *names[:first]):  # nobody always comes after the same one
            start = time.perf_counter()
            runs[name]()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return {name: Result(statistics.median(values), peaks[name]) for name, values in seconds.items()}


def _peak_of_its_own(make: Callable[[], Callable[[], object]]) -> float:
    """Peak MiB of a run in a new process, whose heap has no holes that other networks left.

    What is freed goes back to the system at once, so that this is the memory in use, and not what the allocator keeps.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (make, torch.get_num_threads()))


def _peak(make: Callable[[], Callable[[], object]], threads: int) -> float:
    torch.set_num_threads(threads)
    _keep_freed_memory(False)
    run = make()
    run()
    peaks = []
    for _ in range(_MEMORY_RUNS):
        with PeakMemory() as memory:
            run()
        peaks.append(memory.mebibytes)
    return statistics.median(peaks)


def _keep_freed_memory(keep: bool) -> None:
    """Tells glibc to hand freed memory back to the system, or never to; does nothing elsewhere."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):
        libc.mallopt(_TRIM_THRESHOLD, -1 if keep else 2**17)  # bytes; -1: without limit
        libc.mallopt(_MMAP_MAX, 0 if keep else 2**16)  # allocations


def compare(results: Mapping[str, Result]) -> list[tuple[str, float, float, float, float]]:
    """(contestant, seconds, times as fast as the peer, peak MiB, share of the peer's) of each."""
    peer = next(iter(results.values()))
    return [
        (name, row.seconds, peer.seconds / row.seconds, row.peak_mib, row.peak_mib / max(peer.peak_mib, 1e-9))
        for name, row in results.items()
    ]


def print_table(title: str, results: Mapping[str, Result]) -> None:
    """The title, and a line for each contestant."""
    width = max(len(name) for name in results)
    print(f"\n{title}")
    print(f"  {'':<{width}} {'seconds':>8} {'speed-up':>9} {'peak MiB':>9} {'of peer':>8}")
    for name, seconds, speedup, peak, share in compare(results):
        print(f"  {name:<{width}} {seconds:8.3f} {speedup:8.2f}x {peak:9.0f} {share:7.2f}x", flush=True)


def make_ready(model: torch.nn.Module, recipe: Recipe, training: bool) -> Callable[[], AbstractContextManager[object]]:
    """Lays a model of ours out as the recipe says, for training, or as `Predictor` does; gives its autocast."""
    from vertebra.models import fuse_conv_bn
    from vertebra.runtime import autocast, use_channels_last

    device = torch.device("cpu")
    model.train(training)
    if not training:
        fuse_conv_bn(model)
    model.channels_last = use_channels_last(recipe.train.channels_last, device, training=training)
    return partial(autocast, device, (recipe.train if training else recipe.evaluate).amp)


def make_optimizer(model: torch.nn.Module) -> torch.optim.Optimizer:
    """The same for all. Random weights at a recipe's rate would diverge, and numbers near zero slow a CPU down."""
    return torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9, weight_decay=1e-4)


def finish_step(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> float:
    """Backward and the optimizer's step."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.item()
