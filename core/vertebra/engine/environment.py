"""What a run says about itself when it starts: versions, device, threads, sizes."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import TYPE_CHECKING

import torch

from vertebra.runtime import autocast_dtype, distributed

if TYPE_CHECKING:
    from vertebra.engine.parts import Parts

__all__ = ["describe_run", "version"]


def version(distribution: str = "vertebra") -> str:
    """An installed distribution's version."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def describe_run(parts: Parts) -> list[str]:
    """Lines for the head of log.txt."""
    plan, device = parts.plan, parts.device
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    precision = autocast_dtype(device, plan.amp)
    trained = sum(p.numel() for p in parts.model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in parts.model.parameters() if not p.requires_grad)
    packages = ", ".join(f"{name} {version(name)}" for name in ("vertebra", "torch", "torchvision", "numpy"))
    return [
        f"recipe {parts.recipe_source or '(built by hand)'}, seed {plan.seed}",
        f"{packages}, Python {platform.python_version()}",
        f"{platform.system()} {platform.release()}, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads",
        f"device {device} ({hardware}), {distributed.world_size()} process(es), "
        f"{str(precision or torch.float32).removeprefix('torch.')}" + (" autocast" if precision else ""),
        f"model: {trained:,} trained parameters, {frozen:,} frozen",
        f"{plan.steps} steps of {plan.batch_size} images",
        *map(str, parts.plugin_files),
    ]
