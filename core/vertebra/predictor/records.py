"""Predictions as plain records, one a detection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from vertebra.predictor.predictor import Prediction
from vertebra.structures import BoxMode, Instances, encode_masks

__all__ = ["count_detections", "outputs_of", "records_of"]


def outputs_of(prediction: Prediction, key: str) -> Iterator[tuple[str, Any]]:
    """Each output of this kind: a suffix for file names, and the value. Further heads' are `<head>/<key>`."""
    for name, value in prediction.outputs.items():
        head, _, own = name.rpartition("/")
        if own == key:
            yield (f"-{head}" if head else ""), value


def count_detections(prediction: Prediction) -> int:
    return sum(len(found) for _, found in outputs_of(prediction, "instances"))


def records_of(prediction: Prediction, class_names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Detections of one image, best first.

    `file_name`, of a video or camera `frame` and `seconds`, `category`, `category_id` (from 0), `bbox` [x, y, width,
    height] in pixels, `score`, and where the model gives them `segmentation` (run lengths) and `keypoints`.
    """
    frame = prediction.frame
    origin: dict[str, Any] = {"file_name": frame.name}
    if frame.number is not None:
        origin |= {"frame": frame.number, "seconds": round(frame.seconds, 3)}
    for _, found in outputs_of(prediction, "instances"):
        for record in _detections(found, class_names):
            yield {**origin, **record}


def _detections(found: Instances, class_names: Sequence[str]) -> Iterator[dict[str, Any]]:
    boxes = BoxMode.convert(found.pred_boxes.tensor.float(), BoxMode.XYXY_ABS, BoxMode.XYWH_ABS).tolist()
    masks = found.pred_masks if found.has("pred_masks") else None
    if masks is not None and not isinstance(masks, list):  # a list holds run lengths already
        masks = encode_masks(masks)
    points = found.pred_keypoints.tolist() if found.has("pred_keypoints") else None
    for i, (box, label, score) in enumerate(
        zip(boxes, found.pred_classes.tolist(), found.scores.tolist(), strict=True)
    ):
        record = {
            "category": class_names[label] if label < len(class_names) else str(label),
            "category_id": label,
            "bbox": [round(value, 3) for value in box],
            "score": round(score, 5),
        }
        if masks is not None:
            record["segmentation"] = masks[i]
        if points is not None:
            record["keypoints"] = [round(value, 3) for point in points[i] for value in point]
        yield record
