"""Datasets and outputs made by hand, for the tests of evaluation."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vertebra.data import Dataset, Metadata
from vertebra.structures import Boxes, BoxMode, Instances


def make_dataset(images, class_names, **metadata):
    """A dataset without files. images: {image_id: [(xyxy box, class, extras), ...]}, all 100 x 100 pixels."""
    dicts = [
        {
            "image_id": image_id,
            "file_name": f"{image_id}.png",
            "height": 100,
            "width": 100,
            "annotations": [
                {
                    "bbox": list(box),
                    "bbox_mode": BoxMode.XYXY_ABS,
                    "category_id": category,
                    **(extras[0] if extras else {}),
                }
                for box, category, *extras in objects
            ],
        }
        for image_id, objects in images.items()
    ]
    return Dataset(dicts, Metadata("by_hand").set(thing_classes=class_names, **metadata))


def make_output(detections, **fields):
    """A model's output. detections: [(xyxy box, score, class), ...]."""
    instances = Instances((100, 100))
    instances.pred_boxes = Boxes(torch.tensor([list(d[0]) for d in detections]).reshape(-1, 4))
    instances.scores = torch.tensor([float(d[1]) for d in detections])
    instances.pred_classes = torch.tensor([int(d[2]) for d in detections], dtype=torch.int64)
    for name, value in fields.items():
        instances.set(name, value)
    return {"instances": instances}


def run_evaluator(evaluator, detections):
    """Feed {image_id: [(box, score, class), ...]} or {image_id: output} one image at a time, and evaluate."""
    evaluator.reset()
    for record in evaluator.dataset.dicts:
        if record["image_id"] in detections:
            output = detections[record["image_id"]]
            evaluator.process([record], [output if isinstance(output, dict) else make_output(output)])
    return evaluator.evaluate()


def filled(box, size=(100, 100)):
    """A bool mask (h, w) that is true inside an integer xyxy box."""
    mask = np.zeros(size, dtype=bool)
    x0, y0, x1, y1 = box
    mask[y0:y1, x0:x1] = True
    return mask


@pytest.fixture
def by_hand():
    """The helpers of this file, for tests to use."""
    return SimpleNamespace(dataset=make_dataset, output=make_output, run=run_evaluator, filled=filled)
