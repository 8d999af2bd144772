"""Weights out of files and URLs, and into modules. Nothing in a file is ever executed."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from iopath.common.file_io import PathHandler, PathManager
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vertebra.errors import CheckpointError
from vertebra.models.channels import adapted_state
from vertebra.models.downloads import SCHEMES, check_sha256, download, split_checksum
from vertebra.models.pickles import read_pickle_arrays
from vertebra.models.torch_files import read_torch_file
from vertebra_eval.files import check_regular
from vertebra_eval.nearest import nearest

__all__ = ["PATHS", "LoadReport", "fetch", "load_weights", "read_checkpoint", "read_contents", "read_weights"]
__all__ += ["weights_in"]

_WRAPPERS = ("model", "state_dict", "model_state", "model_state_dict")  # keys under which trainers keep the weights
_SHOWN = 8  # names per kind in a message


class _NetworkHandler(PathHandler):
    def _get_supported_prefixes(self) -> list[str]:
        return list(SCHEMES)

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        return str(download(*split_checksum(path)))


class _TorchvisionHandler(PathHandler):
    """`torchvision:ResNet50_Weights.IMAGENET1K_V1`: the address that torchvision gives these weights."""

    def _get_supported_prefixes(self) -> list[str]:
        return ["torchvision:"]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        from torchvision.models import get_model_weights, get_weight, list_models

        name = path.removeprefix("torchvision:")
        try:
            return fetch(get_weight(name).url)
        except (ValueError, KeyError, AttributeError) as err:
            known = [str(weight) for model in list_models() for weight in get_model_weights(model)]
            raise CheckpointError(
                f"{path}: torchvision has no weights of that name. Nearest: {', '.join(nearest(name, known)) or 'none'}"
            ) from err


class _Detectron2Handler(PathHandler):
    """`detectron2://ImageNetPretrained/MSRA/R-50.pkl`: Detectron2's public files."""

    def _get_supported_prefixes(self) -> list[str]:
        return ["detectron2://"]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        return fetch("https://dl.fbaipublicfiles.com/detectron2/" + path.removeprefix("detectron2://"))


PATHS = PathManager()
"""Where weights come from. A plugin may register a handler for addresses of its own."""
for _handler in (_NetworkHandler(), _TorchvisionHandler(), _Detectron2Handler()):
    PATHS.register_handler(_handler)


def fetch(uri: str | Path) -> str:
    """The local path of a file. A URL is downloaded once, into $FVCORE_CACHE (default ~/.torch/iopath_cache).

    An address may end in `#sha256=` and the first 8 to 64 digits of the file's checksum; the name of a URL's file may
    hold it too (`name-1a2b3c4d.pth`). Both are compared whenever the file is used.

    Raises:
        CheckpointError: there is no such file, it cannot be downloaded, or it is another one by its checksum.
    """
    uri = str(uri)
    address, checksum = split_checksum(uri)
    try:
        path = PATHS.get_local_path(uri if uri.startswith(SCHEMES) else address)
        check_regular(path)
        if checksum:
            check_sha256(path, checksum, uri)
    except FileNotFoundError as err:
        raise CheckpointError(f"{uri}: no such file{_siblings(path)}") from err
    except OSError as err:
        raise CheckpointError(f"{uri}: cannot be read: {err.strerror or err}") from err
    return path


def read_checkpoint(uri: str | Path) -> dict[str, Any]:
    """What a `.pth` file holds, as plain data and tensors on the CPU: weights alone or a whole training checkpoint.

    Raises:
        CheckpointError: missing, damaged, empty, no checkpoint, or one that asks for code to be run (none is).
    """
    path = fetch(uri)
    return read_torch_file(path, _called(uri, path))


def read_weights(uri: str | Path) -> dict[str, Tensor]:
    """The named tensors of a file, on the CPU: `.pth`, `.safetensors`, or Detectron2's `.pkl`.

    `uri` is a path, a URL, `torchvision:ResNet50_Weights.IMAGENET1K_V1` or `detectron2://...`. Weights inside a
    training checkpoint (under `model` or `state_dict`) are taken out of it; entries that are not tensors are skipped.

    Raises:
        CheckpointError: the file is missing, damaged or hostile, or holds no tensors.
    """
    return weights_in(read_contents(uri), uri)


def read_contents(uri: str | Path) -> dict[str, Any]:
    """All that a file holds, by the rules of `read_weights`."""
    path = fetch(uri)
    suffix = Path(path).suffix.lower()
    if suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as err:
            raise CheckpointError(f"{_called(uri, path)}: is not a complete safetensors file ({err})") from err
    if suffix in (".pkl", ".pickle"):
        return {name: torch.from_numpy(array) for name, array in read_pickle_arrays(path).items()}
    return read_torch_file(path, _called(uri, path))


def weights_in(content: dict[str, Any], uri: str | Path) -> dict[str, Tensor]:
    """The named tensors in what `read_contents` gave."""
    for key in _WRAPPERS:
        if isinstance(content.get(key), Mapping):
            content = content[key]
            break
    weights = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if not weights:
        raise CheckpointError(
            f"{uri}: contains no weights; its entries: {', '.join(map(repr, list(content)[:_SHOWN])) or 'none at all'}"
        )
    if all(name.startswith("module.") for name in weights):  # saved from inside DistributedDataParallel
        weights = {name.removeprefix("module."): value for name, value in weights.items()}
    return weights


@dataclass
class LoadReport:
    """What became of each name when weights were loaded.

    Args:
        loaded: names copied.
        missing: names of the module that the weights do not have.
        unexpected: names of the weights that the module does not have.
        mismatched: by name, the module's and the weights' shape.
    """

    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} tensors loaded"]
        if self.mismatched:
            lines.append(f"  {len(self.mismatched)} of another shape:")
            shapes = [f"{name}: model {have}, weights {given}" for name, (have, given) in self.mismatched.items()]
            lines += _some(shapes)
        if self.missing:
            lines.append(f"  {len(self.missing)} missing from the weights:")
            lines += _some(self.missing, self.unexpected)
        if self.unexpected:
            lines.append(f"  {len(self.unexpected)} in the weights that the model does not have:")
            lines += _some(self.unexpected, self.missing)
        return "\n".join(lines)


def load_weights(
    module: nn.Module, state: Mapping[str, Tensor], strict: bool = True, *, source: str | Path = "the weights"
) -> LoadReport:
    """Copies named tensors into a module's parameters and buffers.

    Batch normalization's counters (`num_batches_tracked`) may be absent or superfluous.

    Args:
        strict: every name and shape must fit; otherwise what fits is loaded and the report tells the rest.
        source: the file's name, for the error message.
    Raises:
        CheckpointError: strict and not everything fits, nothing fits at all, or a tensor holds NaN. Nothing is changed
            then.
    """
    own = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    state = adapted_state(module, state)
    report = LoadReport()
    for name, tensor in own.items():
        if name not in state:
            if not name.endswith("num_batches_tracked"):
                report.missing.append(name)
        elif state[name].shape != tensor.shape:
            report.mismatched[name] = (tuple(tensor.shape), tuple(state[name].shape))
        else:
            report.loaded.append(name)
    report.unexpected = [name for name in state if name not in own and not name.endswith("num_batches_tracked")]
    if (strict and not report.complete) or (own and not report.loaded):
        raise CheckpointError(f"{source}: the weights do not fit the {type(module).__name__}.\n  {report}")
    broken = [name for name in report.loaded if state[name].is_floating_point() and bool(state[name].isnan().any())]
    if broken:
        raise CheckpointError(
            f"{source}: {len(broken)} of {len(report.loaded)} tensors hold NaN: {', '.join(broken[:_SHOWN])}.\n"
            "  The training that wrote them diverged, or the file was damaged: take an earlier checkpoint"
        )
    values = OrderedDict((name, state[name]) for name in report.loaded)
    values._metadata = getattr(module.state_dict(), "_metadata", None)  # type: ignore[attr-defined]  # versions of layers
    module.load_state_dict(values, strict=False)
    return report


def _some(names: Iterable[str], others: Iterable[str] = ()) -> list[str]:
    """Up to eight indented lines, each with the nearest of the other names."""
    names, others = list(names), list(others)
    lines = []
    for name in names[:_SHOWN]:
        near = nearest(name, others, limit=1)
        lines.append(f"    {name}" + (f"   (near: {near[0]})" if near else ""))
    return lines + ([f"    ... and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else [])


def _called(uri: str | Path, path: str) -> str:
    """A file's name in messages: of one that was downloaded, also that of its copy."""
    return str(uri) if os.path.exists(uri) else f"{uri} (its copy: {path}; delete it to fetch it again)"


def _siblings(path: str) -> str:
    """Other weights files in the folder of a missing one, for the message."""
    folder = Path(path).parent
    if not folder.is_dir():
        return f" (nor the folder {folder})"
    found = sorted(item.name for item in folder.iterdir() if item.suffix in (".pth", ".pt", ".pkl", ".safetensors"))
    return f". In {folder}: {', '.join(found[:_SHOWN])}" if found else ""
