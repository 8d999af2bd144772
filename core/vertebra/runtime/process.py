"""The one door through which a program that trains or evaluates becomes a process among others."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn

from vertebra.errors import SetupError
from vertebra.runtime import distributed
from vertebra.runtime.precision import choose_device

__all__ = ["check_ranks_agree", "open_process", "text_checksum", "weights_checksum"]


def open_process(device: str = "auto") -> torch.device:
    """Joins the process group that the environment announces, if it announces one, and returns this process's device.

    Everything that writes files or shares work calls this first; a second call changes nothing.

    Args:
        device: `auto`, `cpu`, `cuda` or `cuda:0`; see `choose_device`.
    Raises:
        SetupError: no such device, or an environment that does not say where the processes meet.
    """
    chosen = choose_device(device)
    distributed.initialize(chosen)
    return chosen


def check_ranks_agree(facts: dict[str, Any], hint: str) -> None:
    """All processes have to call this before they start, each with what it knows.

    Args:
        facts: name -> a value that must be the same in all processes.
        hint: how to fix it where they differ.
    Raises:
        SetupError: in all processes, with the values of each.
    """
    everyone = distributed.gather_objects(facts)
    lines = []
    for name in facts:
        values = [one.get(name) for one in everyone]
        if any(value != values[0] for value in values):
            lines.append(f"  {name}: " + ", ".join(f"rank {rank} has {value}" for rank, value in enumerate(values)))
    if lines:
        raise SetupError("the processes do not agree, so nothing was started.\n" + "\n".join(lines) + f"\n  {hint}")


def text_checksum(text: str) -> str:
    """The first digits of a hash, to compare long texts between processes."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def weights_checksum(model: nn.Module) -> str:
    """The first digits of a hash of all parameters; only in a run of several processes, otherwise empty.

    Not of buffers: each process has its own running statistics.
    """
    if distributed.world_size() == 1:
        return ""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(model.named_parameters()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
