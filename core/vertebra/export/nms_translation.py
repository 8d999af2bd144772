"""NMS in an ONNX graph: the operator of `vertebra.detection.graph_nms` as NonMaxSuppression."""

from __future__ import annotations

from typing import Any

import torch

import vertebra.detection.graph_nms  # noqa: F401  defines the operator

__all__ = ["onnx_translations"]


def onnx_translations() -> dict[Any, Any]:
    """The `custom_translation_table` for torch.onnx.export. Needs onnxscript."""
    from onnxscript import opset18 as op

    def nms(boxes: Any, scores: Any, nms_threshold: float, score_threshold: float, max_per_class: int) -> Any:
        limits: tuple[Any, ...] = (
            op.Constant(value_ints=[max_per_class]),
            op.Constant(value_floats=[nms_threshold]),
            op.Constant(value_floats=[score_threshold]),
        )
        selected = op.NonMaxSuppression(boxes, scores, *limits)  # (M, 3) int64: image, class, box
        nothing = op.Mul(scores, op.Constant(value_float=0.0))
        return op.ScatterND(nothing, selected, op.GatherND(scores, selected))

    return {torch.ops.vertebra.suppressed_scores.default: nms}
