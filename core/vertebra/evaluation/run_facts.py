"""Facts for the report: which model, which data, which versions."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import TYPE_CHECKING, Any

from torch import nn

from vertebra.config.component import USUAL_MODEL

if TYPE_CHECKING:
    from vertebra.config import Recipe

__all__ = ["dataset_name", "model_facts", "versions"]

_PACKAGES = ("vertebra", "torch", "torchvision", "pycocotools", "numpy", "pillow")


def dataset_name(dataset: Any) -> str:
    """The dataset's name, as far as it has one."""
    return str(getattr(dataset.metadata, "name", None) or "a dataset without a name")


def model_facts(model: nn.Module, recipe: Recipe) -> dict[str, str]:
    """Parts and size of the model."""
    whole = recipe.model.whole
    usual = whole.name == USUAL_MODEL
    named = {} if usual else {"model": whole.name}
    for path, spec in recipe.model.parts.items():
        named[path if spec.kind != "head" else f"head {path.removeprefix('heads.')}"] = spec.name
    if usual:
        named.setdefault("neck", "none")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {
        **named,
        "parameters": f"{parameters / 1e6:.1f} million",
    }


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed as a package"
    return found
