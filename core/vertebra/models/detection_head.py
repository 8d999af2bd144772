"""DetectionHead: what detectors with candidates and NMS have in common, from candidates to finished predictions."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from vertebra.config.component import described, where_written
from vertebra.detection import Candidates, Suppression, rescale_instances
from vertebra.errors import PluginError
from vertebra.models.batch import Batch
from vertebra.models.contracts import Head, check_num_classes

__all__ = ["DetectionHead"]


def _of_suppression(name: str) -> Any:
    """An attribute of the head that is its suppression's, so that there is one number and either name changes it."""
    return property(
        lambda head: getattr(head.suppression, name), lambda head, value: setattr(head.suppression, name, value)
    )


class DetectionHead(Head):
    """Detection by scored candidates and NMS. Subclasses implement `forward`, `losses` and `candidates`.

    `predict` gives `instances` with `pred_boxes`, `scores`, `pred_classes`.

    Args:
        num_classes: K, at least 1.
        suppression: from candidates to detections. None: Suppression().
    """

    task_outputs: ClassVar = ("instances",)
    score_threshold = _of_suppression("score_threshold")
    topk_candidates = _of_suppression("topk")
    nms_threshold = _of_suppression("nms_threshold")
    class_agnostic_nms = _of_suppression("class_agnostic")
    max_detections = _of_suppression("max_detections")

    def __init__(self, num_classes: int, suppression: Suppression | None = None) -> None:
        super().__init__()
        check_num_classes(self, num_classes)
        self.num_classes = num_classes
        self.suppression = Suppression() if suppression is None else suppression

    def candidates(self, raw: Any) -> Candidates:
        """Raw outputs to scored boxes in input pixels: plain tensor code that exports, all images at once."""
        raise NotImplementedError(f"{type(self).__name__} cannot predict: it has no method candidates(raw)")

    def predict(self, raw: Any, batch: Batch) -> list[dict]:
        """The best boxes of each image, scaled to its original size and clipped to it, best first."""
        found = self.suppression(self._checked_candidates(raw), batch.image_sizes)
        return [
            {"instances": rescale_instances(one, *size)} for one, size in zip(found, batch.original_sizes, strict=True)
        ]

    def _checked_candidates(self, raw: Any) -> Candidates:
        candidates: Any = self.candidates(raw)
        if not isinstance(candidates, Candidates):
            raise PluginError(
                f"{where_written(self, type(self).__name__)}: candidates must return vertebra.detection.Candidates, "
                f"got {described(candidates)}.\n  Return Candidates(boxes, scores, classes, valid), of the shapes "
                "(N, R, 4), (N, R), (N, R) and (N, R)"
            )
        return candidates

    def export_predictions(self, raw: Any, image_size: tuple[int, int]) -> dict[str, Tensor]:
        """`boxes` (N, D, 4) xyxy in input pixels, `scores` and `classes` (N, D), best first, NMS in the graph."""
        return self.suppression.candidates_in_graph(self._checked_candidates(raw), self.num_classes)
