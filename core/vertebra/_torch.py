"""Finds a torch and a torchvision that do not fit each other before either fails in an obscure way.

Imported (for its effect) by every package of the core that needs torch.
"""

from __future__ import annotations

from importlib import metadata

from packaging.requirements import Requirement
from packaging.version import Version

from vertebra.errors import SetupError

__all__ = ["check_torch_and_torchvision", "find_mismatch"]


def find_mismatch(torch_version: str | None, torchvision_version: str | None, needs: str | None = None) -> str | None:
    """Why these two cannot work together and how to fix it, or None where they fit.

    Args:
        torch_version: such as `2.14.1` or `2.13.0+cpu`; None where torch is not installed.
        torchvision_version: the same for torchvision.
        needs: what torchvision's metadata asks of torch, such as `torch==2.14.1`; None where unknown.
    """
    if torch_version is None or torchvision_version is None:
        missing = "torch" if torch_version is None else "torchvision"
        return f"{missing} is not installed.\n  Fix it: pip install torch torchvision"
    torch, torchvision = Version(torch_version), Version(torchvision_version)
    if needs and not Requirement(needs).specifier.contains(torch.public, prereleases=True):
        return (
            f"torchvision {torchvision_version} needs {needs}, but torch {torch_version} is installed.\n"
            f"  Fix it: pip install 'torchvision' 'torch=={torch.public}'   (pip then picks the torchvision that fits)"
        )
    if _is_cpu_build(torch) and not _is_cpu_build(torchvision):
        return (
            f"torch {torch_version} is a CPU-only build, torchvision {torchvision_version} was built for PyPI's torch: "
            "its operators (nms, roi_align) cannot be loaded with it.\n"
            f"  Fix it, either: pip install --force-reinstall 'torch=={torch.public}'   (PyPI's, also runs on CPUs)\n"
            "  or install torchvision from the PyTorch CPU index that this torch came from (its version ends in +cpu)."
        )
    return None


def check_torch_and_torchvision() -> None:
    """Raises SetupError where the installed torch and torchvision do not fit. Imports neither."""
    torch, torchvision = _version("torch"), _version("torchvision")
    reason = find_mismatch(torch, torchvision, _requirement_on_torch())
    if reason:
        raise SetupError(f"Vertebra cannot start: {reason}")


def _is_cpu_build(version: Version) -> bool:
    return version.local is not None and version.local.startswith("cpu")


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _requirement_on_torch() -> str | None:
    try:
        requirements = metadata.requires("torchvision") or []
    except metadata.PackageNotFoundError:
        return None
    return next((text for text in requirements if Requirement(text).name == "torch"), None)


check_torch_and_torchvision()
