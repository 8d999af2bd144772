"""Caffe2's parameter names (MSRA's R-50.pkl, Detectron's model zoo) in Detectron2's words.

Names only: a two-stage detector's class order and box weights differ as well and are not turned round here.
"""

import re
from collections.abc import Callable

__all__ = ["caffe2_to_detectron2", "is_caffe2_name"]

_SUFFIXES = {"w": "weight", "b": "bias", "s": "weight", "rm": "running_mean", "riv": "running_var"}  # s: a norm's scale
_CONVOLUTIONS = {"1": "shortcut", "2a": "conv1", "2b": "conv2", "2c": "conv3"}

# (whole name without its suffix, Detectron2's name or a function of the match)
_LAYERS: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"conv1", "stem.conv1"),
    (r"(?:res_)?conv1_bn", "stem.conv1.norm"),
    (r"res(\d)_(\d+)_branch(1|2a|2b|2c)(_bn)?", lambda m: _residual(*m.groups())),
    (r"fpn_inner_res(\d)_\d+_sum(?:_lateral)?", r"fpn_lateral\1"),
    (r"fpn_res(\d)_\d+_sum", r"fpn_output\1"),
    (r"conv_rpn(?:_fpn\d)?", "proposal_generator.rpn_head.conv"),
    (r"rpn_bbox_pred(?:_fpn\d)?", "proposal_generator.rpn_head.anchor_deltas"),
    (r"rpn_cls_logits(?:_fpn\d)?", "proposal_generator.rpn_head.objectness_logits"),
    (r"_\[mask\]_fcn(\d+)", r"mask_head.mask_fcn\1"),
    (r"conv5_mask", "mask_head.deconv"),
    (r"mask_fcn_logits", "mask_head.predictor"),
    (r"fc6", "box_head.fc1"),
    (r"fc7", "box_head.fc2"),
    (r"(cls_score|bbox_pred|fc1000)", r"\1"),
]


def caffe2_to_detectron2(name: str) -> str | None:
    """`res2_0_branch2a_bn_s` to `res2.0.conv1.norm.weight`; None for a name of no layer known here.

    Caffe2 does not say which module a layer belongs to, so the prefix (`backbone.bottom_up.`) is left to the caller.
    """
    match = re.fullmatch(r"(.+)_(w|b|s|rm|riv)", name)
    if match is None:
        return None
    layer, suffix = match.groups()
    for pattern, target in _LAYERS:
        found = re.fullmatch(pattern, layer)
        if found:
            return f"{target(found) if callable(target) else found.expand(target)}.{_SUFFIXES[suffix]}"
    return None


def is_caffe2_name(name: str) -> bool:
    """Whether `name` can only be Caffe2's: PyTorch's have a dot before the last word."""
    return "." not in name and caffe2_to_detectron2(name) is not None


def _residual(stage: str, block: str, branch: str, norm: str | None) -> str:
    return f"res{stage}.{block}.{_CONVOLUTIONS[branch]}" + (".norm" if norm else "")
