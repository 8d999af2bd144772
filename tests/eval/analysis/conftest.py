"""Matches and files made by hand, for the tests of what lies behind AP."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from vertebra_eval.analysis import overlaps
from vertebra_eval.coco import coco_evaluate


def make_truth(objects, images=None, classes=("cat", "dog"), size=100):
    """COCO ground truth. objects: [(image id, category id, xywh box, crowd), ...], the last optional; ids from 1."""
    images = sorted({o[0] for o in objects}) if images is None else images
    return {
        "images": [{"id": i, "width": size, "height": size, "file_name": f"{i}.png"} for i in images],
        "categories": [{"id": k, "name": name} for k, name in enumerate(classes, start=1)],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "bbox": list(box),
                "area": box[2] * box[3],
                "iscrowd": int(bool(crowd)),
            }
            for number, (image, category, box, *crowd) in enumerate(objects, start=1)
        ],
    }


def make_results(detections):
    """COCO results. detections: [(image id, category id, xywh box, score), ...]"""
    return [{"image_id": i, "category_id": k, "bbox": list(box), "score": s} for i, k, box, s in detections]


def match(truth, results):
    """The matches of ground truth and results as COCO has them."""
    return coco_evaluate(truth, results, "bbox").result.matches


def many_images(num_images, seed, quality=0.6, classes=("cat", "dog"), objects_seed=0):
    """Ground truth and results with two objects an image: found with probability `quality`, and a few false ones."""
    fixed, rng = np.random.default_rng(objects_seed), np.random.default_rng(seed)
    objects, detections = [], []
    for image in range(1, num_images + 1):
        for slot in range(2):
            category = int(fixed.integers(1, len(classes) + 1))
            box = (5 + 50 * slot, 5, 30, 30)
            objects.append((image, category, box))
            if rng.random() < quality:
                moved = (box[0] + float(rng.uniform(0, 9)), 5, 30, 30)
                detections.append((image, category, moved, float(rng.beta(4, 2))))
        if rng.random() < 0.5:
            detections.append((image, int(rng.integers(1, len(classes) + 1)), (10, 60, 30, 30), float(rng.beta(2, 4))))
    return make_truth(objects, images=range(1, num_images + 1), classes=classes), make_results(detections)


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def hand():
    """The helpers of this file, for tests to use."""
    return SimpleNamespace(
        truth=make_truth, results=make_results, match=match, many=many_images, write=write, overlaps=overlaps
    )
