"""What the outputs of an exported graph mean, in words that go into the file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vertebra.export.graph import ExportGraph
from vertebra.models import BaseModel

__all__ = ["describe_outputs"]

_MEANINGS = {
    "boxes": "xyxy in pixels of the input, of each detection, best first",
    "scores": "0 to 1, of each detection; rows with 0 only fill up",
    "classes": "number in class_names, of each detection",
    "sem_seg": "number in the classes, of each pixel of the input",
    "sem_seg_scores": "scores of each class before the softmax or sigmoid, of each pixel of the input",
}
_SETTINGS = ("score_threshold", "nms_threshold", "class_agnostic_nms", "max_detections")


def describe_outputs(model: BaseModel, graph: ExportGraph, outputs: Iterable[Any]) -> dict[str, dict[str, Any]]:
    """{output: {meaning, head, and the thresholds that are in the graph}} for the outputs of an ONNX graph."""
    described = {}
    for output in outputs:
        name = output.name
        owner = next((head for head in graph.heads if head and name.startswith(f"{head}_")), None)
        base = name.removeprefix(f"{owner}_") if owner and name not in _MEANINGS else name
        facts: dict[str, Any] = {}
        if owner is None and len(graph.heads) == 1:
            owner = graph.heads[0]
        facts["meaning"] = _MEANINGS.get(base, "what the head computes, before it is decoded")
        if owner is not None:
            head = model.tasks[owner]
            facts["head" if owner else "model"] = f"{owner}: {type(head).__name__}".removeprefix(": ")
            if graph.form == "end-to-end":
                facts |= {
                    key: getattr(head, key) for key in _SETTINGS if isinstance(getattr(head, key, None), (int, float))
                }
        described[name] = facts
    return described
