"""Names that other libraries give the weights of backbones, translated into ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import nn

from vertebra.errors import CheckpointError
from vertebra.models.weights import load_weights, read_weights

__all__ = ["TORCHVISION_RESNET", "load_renamed", "resnet_names"]

TORCHVISION_RESNET = (
    (r"backbone\.(?:body\.)?conv1\.(\w+)", r"stem.conv1.\1"),
    (r"backbone\.(?:body\.)?bn1\.(\w+)", r"stem.conv1.norm.\1"),
    *(
        (rf"backbone\.(?:body\.)?layer{stage}\.(\d+)\.{theirs}\.(\w+)", rf"res{stage + 1}.\1.{ours}")
        for stage in (1, 2, 3, 4)
        for theirs, ours in (
            (r"conv(\d)", r"conv\2.\3"),
            (r"bn(\d)", r"conv\2.norm.\3"),
            (r"downsample\.0", r"shortcut.\2"),
            (r"downsample\.1", r"shortcut.norm.\2"),
        )
    ),
)
"""A ResNet inside torchvision's detection and segmentation models: (regular expression, replacement) pairs."""

_BRANCHES = {"1": "shortcut", "2a": "conv1", "2b": "conv2", "2c": "conv3"}
_CAFFE2_NORM = {"s": "weight", "b": "bias", "rm": "running_mean", "riv": "running_var"}


def load_renamed(backbone: nn.Module, source: str, rename: Callable[[str], str | None]) -> None:
    """Reads weights and loads them under new names.

    Stages of the weights that the backbone was built without are skipped. Statistics of batch normalization may be
    missing altogether: MSRA's weights have them folded into scale and shift.

    Args:
        rename: a name of the file to one of the backbone, or None for what it does not have (a classifier's weights).
    Raises:
        CheckpointError: the file cannot be read, its layout is not known, or the weights do not fit.
    """
    given = read_weights(source)
    renamed = {new: value for old, value in given.items() if (new := rename(old)) is not None}
    own = backbone.state_dict()
    parts = {name.split(".")[0] for name in own}
    fitting = {name: value for name, value in renamed.items() if name.split(".")[0] in parts}
    if not fitting:
        raise CheckpointError(
            f"{source}: its names match no layout that {type(backbone).__name__} knows; "
            f"they begin with {', '.join(list(given)[:3])}"
        )
    if not _has_statistics(fitting):
        fitting |= {name: value for name, value in own.items() if _has_statistics({name: value})}
    load_weights(backbone, fitting, source=source)


def resnet_names(name: str) -> str | None:
    """Of a ResNet: torchvision's, Caffe2's (MSRA's R-50.pkl) or Detectron2's name to ours; None for other parts."""
    for pattern, translate in _RESNET:
        match = re.fullmatch(pattern, name)
        if match:
            return translate(match)
    return None


def _has_statistics(weights: Mapping[str, object]) -> bool:
    return any(name.endswith(("running_mean", "running_var")) for name in weights)


_RESNET: tuple[tuple[str, Callable[[re.Match], str]], ...] = (
    # Detectron2's own: backbone.bottom_up.res2.0.conv1.norm.weight, or without what stands before res2
    (r"(?:backbone\.)?(?:bottom_up\.)?((?:stem\.conv\d|res\d)\..+)", lambda m: m[1]),
    # torchvision: conv1.weight, bn1.bias, layer1.0.conv2.weight, layer1.0.bn2.bias, layer1.0.downsample.0.weight
    (r"conv1\.(\w+)", lambda m: f"stem.conv1.{m[1]}"),
    (r"bn1\.(\w+)", lambda m: f"stem.conv1.norm.{m[1]}"),
    (r"layer(\d)\.(\d+)\.conv(\d)\.(\w+)", lambda m: f"res{int(m[1]) + 1}.{m[2]}.conv{m[3]}.{m[4]}"),
    (r"layer(\d)\.(\d+)\.bn(\d)\.(\w+)", lambda m: f"res{int(m[1]) + 1}.{m[2]}.conv{m[3]}.norm.{m[4]}"),
    (r"layer(\d)\.(\d+)\.downsample\.0\.(\w+)", lambda m: f"res{int(m[1]) + 1}.{m[2]}.shortcut.{m[3]}"),
    (r"layer(\d)\.(\d+)\.downsample\.1\.(\w+)", lambda m: f"res{int(m[1]) + 1}.{m[2]}.shortcut.norm.{m[3]}"),
    # Caffe2: conv1_w, res_conv1_bn_s, res2_0_branch2a_w, res2_0_branch2a_bn_s
    (r"conv1_w", lambda m: "stem.conv1.weight"),
    (r"res_conv1_bn_(s|b|rm|riv)", lambda m: f"stem.conv1.norm.{_CAFFE2_NORM[m[1]]}"),
    (r"res(\d)_(\d+)_branch(1|2a|2b|2c)_w", lambda m: f"res{m[1]}.{m[2]}.{_BRANCHES[m[3]]}.weight"),
    (
        r"res(\d)_(\d+)_branch(1|2a|2b|2c)_bn_(s|b|rm|riv)",
        lambda m: f"res{m[1]}.{m[2]}.{_BRANCHES[m[3]]}.norm.{_CAFFE2_NORM[m[4]]}",
    ),
)
