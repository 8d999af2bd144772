"""What `vertebra doctor` looks at: versions, whether torch and torchvision fit, devices, plugins."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata

from vertebra import __version__
from vertebra.errors import VertebraError
from vertebra.plugins import PluginInfo, installed_plugins, unknown_in_switches

__all__ = ["diagnose"]

_PACKAGES = ("torch", "torchvision", "fvcore", "iopath", "pycocotools", "numpy", "pillow", "pydantic", "timm")


def diagnose() -> tuple[list[str], bool]:
    """Lines to print and whether all is well. Imports torch last, so that a broken one is still explained."""
    lines = [f"vertebra {__version__}, Python {platform.python_version()}, {platform.platform()}"]
    lines += [f"  {name:<12} {_version(name)}" for name in _PACKAGES]
    healthy = True
    try:
        lines += _torch_facts()
    except VertebraError as err:
        healthy = False
        lines.append(f"PROBLEM: {err}")
    except Exception as err:
        healthy = False
        lines.append(f"PROBLEM: torch or torchvision does not load: {type(err).__name__}: {err}")
    lines += _plugin_facts()
    lines.append("All is well." if healthy else "Fix the problems above, then run `vertebra doctor` again.")
    return lines, healthy


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def _torch_facts() -> list[str]:
    from vertebra._torch import check_torch_and_torchvision

    check_torch_and_torchvision()
    import torch
    from torchvision.ops import nms

    nms(torch.zeros(1, 4), torch.zeros(1), 0.5)  # fails where torchvision's operators did not load
    from vertebra.engine import supports_bf16

    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    cpu = torch.device("cpu")
    return [
        f"  CPU          {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}, bf16 {'yes' if supports_bf16(cpu) else 'no'}",
        f"  GPU          {', '.join(devices) or 'none'}",
    ]


def _plugin_facts() -> list[str]:
    found = installed_plugins()
    lines = [f"  plugins      {', '.join(map(str, found)) or 'none'}"]
    lines += [f"    {plugin}: {line}" for plugin in found for line in _oddities(plugin)]
    lines += [f"    {note}" for note in unknown_in_switches()]
    return [*lines, f"  interpreter  {sys.executable}"]


def _oddities(plugin: PluginInfo) -> list[str]:
    """What no import is needed to see; `vertebra plugins check` sees the rest."""
    problem = [f"cannot be used: {plugin.problem.replace(chr(10), chr(10) + '      ')}"] if plugin.problem else []
    return [*problem, *plugin.notes]
