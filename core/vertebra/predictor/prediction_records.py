"""Predictions as plain records, one a detection."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vertebra.data.category_ids import category_ids
from vertebra.predictor.predictor import Prediction
from vertebra.structures import BoxMode, Instances, encode_masks

__all__ = ["ClassLabels", "class_names_of", "count_detections", "outputs_of", "records_of"]


@dataclass(frozen=True)
class ClassLabels:
    """What files call the classes that a model counts from 0.

    Args:
        names: where a class has none, its number stands for it.
        ids: the category ids of the dataset that the model was trained on; likewise.
    """

    names: Sequence[str] = ()
    ids: Sequence[Hashable] = ()

    @staticmethod
    def of(metadata: Any) -> ClassLabels:
        """From a predictor's metadata."""
        names = metadata.get("thing_classes") or metadata.get("stuff_classes") or ()
        return ClassLabels(list(names), category_ids(metadata, "thing"))

    def name(self, number: int) -> str:
        return self.names[number] if number < len(self.names) else str(number)

    def category_id(self, number: int) -> Hashable:
        return self.ids[number] if number < len(self.ids) else number


def outputs_of(prediction: Prediction, key: str) -> Iterator[tuple[str, Any]]:
    """Each output of this kind: a suffix for file names, and the value. Further heads' are `<head>/<key>`."""
    for name, value in prediction.outputs.items():
        head, _, own = name.rpartition("/")
        if own == key:
            yield (f"-{head}" if head else ""), value


def class_names_of(prediction: Prediction, metadata: Any) -> Sequence[str] | None:
    """What `pred_classes` count: the output `class_names` of a model that was given its classes, or the dataset's."""
    return prediction.outputs.get("class_names", metadata.get("thing_classes"))


def count_detections(prediction: Prediction) -> int:
    return sum(len(found) for _, found in outputs_of(prediction, "instances"))


def records_of(prediction: Prediction, labels: ClassLabels) -> Iterator[dict[str, Any]]:
    """Detections of one image, best first.

    `file_name`, of a video or camera `frame` and `seconds`, `category`, `category_id`, `bbox` [x, y, width, height]
    in pixels, `score`, and where the model gives them `segmentation` (run lengths) and `keypoints`.
    """
    frame = prediction.frame
    if "class_names" in prediction.outputs:
        labels = ClassLabels(prediction.outputs["class_names"])
    origin: dict[str, Any] = {"file_name": frame.name}
    if frame.number is not None:
        origin["frame"] = frame.number
    if frame.seconds is not None:
        origin["seconds"] = round(frame.seconds, 3)
    for _, found in outputs_of(prediction, "instances"):
        for record in _detections(found, labels):
            yield {**origin, **record}


def _detections(found: Instances, labels: ClassLabels) -> Iterator[dict[str, Any]]:
    boxes = BoxMode.convert(found.pred_boxes.tensor.float(), BoxMode.XYXY_ABS, BoxMode.XYWH_ABS).tolist()
    masks = found.pred_masks if found.has("pred_masks") else None
    if masks is not None and not isinstance(masks, list):  # a list holds run lengths already
        masks = encode_masks(masks)
    points = found.pred_keypoints.tolist() if found.has("pred_keypoints") else None
    for i, (box, label, score) in enumerate(
        zip(boxes, found.pred_classes.tolist(), found.scores.tolist(), strict=True)
    ):
        record = {
            "category": labels.name(label),
            "category_id": labels.category_id(label),
            "bbox": [round(value, 3) for value in box],
            "score": round(score, 5),
        }
        if masks is not None:
            record["segmentation"] = masks[i]
        if points is not None:
            record["keypoints"] = [round(value, 3) for point in points[i] for value in point]
        yield record
