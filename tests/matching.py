"""Matches made by hand, for tests."""

import numpy as np

from vertebra_eval.coco import DetectionColumns, GroundTruthColumns, Matches


def matches_of(detections, objects, num_images=1, class_names=("cat", "dog")):
    """Matches at IoU 0.5.

    Args:
        detections: [(image, class, score, box, object it matched or -1), ...], boxes xyxy, best score of a class first.
        objects: [(image, class, box, whether it does not count), ...]
    """
    truth, found = (
        np.array([one[3 - is_truth] for one in many], float).reshape(-1, 4)
        for many, is_truth in ((objects, 1), (detections, 0))
    )
    for boxes in (truth, found):
        boxes[:, 2:] -= boxes[:, :2]
    ignored = np.array([one[3] for one in objects], bool)
    columns = GroundTruthColumns(
        image=np.array([one[0] for one in objects], np.int64),
        category=np.array([one[1] for one in objects], np.int64),
        boxes=truth,
        areas=truth[:, 2] * truth[:, 3],
        crowd=ignored,
        ignored=ignored,
        annotation_ids=np.arange(1, len(objects) + 1),
        image_ids=list(range(num_images)),
        category_ids=list(range(len(class_names))),
        category_names=list(class_names),
    )
    own = DetectionColumns(
        image=np.array([one[0] for one in detections], np.int64),
        category=np.array([one[1] for one in detections], np.int64),
        boxes=found,
        areas=None,
        scores=np.array([one[2] for one in detections], float),
    )
    count = np.arange(len(detections))
    return Matches(
        objects=columns,
        detections=own,
        iou_thresholds=np.array([0.5]),
        detection=count,
        rank=count,
        candidate=count,
        truth=np.array([one[4] for one in detections], np.int32).reshape(-1, 1, 1),
        outside=np.zeros((1, len(detections)), bool),
        truth_ignored=ignored[None],
        is_nothing=np.zeros(len(objects), bool),
    )


def matches_by_state(scores, states, num_truth=None, images=None, num_images=1):
    """Detections with these scores that matched an object (1), nothing (0), or an object that does not count (-1)."""
    hits = states.count(1)
    num_truth = hits if num_truth is None else num_truth
    box = (0, 0, 9, 9)
    objects = [(0, 0, box, False)] * num_truth + [(0, 0, box, True)]
    numbers = iter(range(hits))
    matched = [next(numbers) if state == 1 else num_truth if state == -1 else -1 for state in states]
    images = [0] * len(scores) if images is None else images
    detections = [(i, 0, score, box, one) for i, score, one in zip(images, scores, matched, strict=True)]
    return matches_of(detections, objects, num_images)
