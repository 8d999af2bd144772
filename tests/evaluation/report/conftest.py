"""A report of generated images and detections, as large as a test wants it."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from vertebra.data import Dataset, Metadata
from vertebra.evaluation import COCOEvaluator
from vertebra.evaluation.report import dataset_sections, write_report
from vertebra.structures import Boxes, BoxMode, Instances

SIZE = (480, 640)  # (height, width)


def write_photographs(folder, count, seed):
    """JPEG files as hard to compress as photographs: coarse blobs under noise."""
    rng = np.random.default_rng(seed)
    files = []
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)).resize(SIZE[::-1], Image.BICUBIC)
        noise = rng.normal(0, 25, (*SIZE, 3))
        files.append(folder / f"{number}.jpg")
        Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8)).save(files[-1], quality=95)
    return files


def random_boxes(rng, count):
    """(count, 4) `xyxy` inside the image."""
    sides = rng.uniform(12, 200, (count, 2))
    corners = rng.uniform(0, 1, (count, 2)) * (np.array(SIZE[::-1]) - sides)
    return np.concatenate([corners, corners + sides], axis=1)


def make_dataset(folder, images, classes, objects, seed=0):
    rng = np.random.default_rng(seed)
    files = write_photographs(folder, min(images, 24), seed)
    dicts = []
    for number in range(images):
        labels = rng.integers(0, classes, objects).tolist()
        annotations = [
            {"bbox": box.tolist(), "bbox_mode": BoxMode.XYXY_ABS, "category_id": label}
            for box, label in zip(random_boxes(rng, objects), labels, strict=True)
        ]
        file = str(files[number % len(files)])
        dicts.append(
            {"image_id": number, "file_name": file, "height": SIZE[0], "width": SIZE[1], "annotations": annotations}
        )
    names = [f"class {chr(97 + number % 26)}{number}" for number in range(classes)]
    return Dataset(dicts, Metadata("generated").set(thing_classes=names))


def make_output(rng, record, classes, false):
    """Two thirds of the objects, moved a little, and false detections."""
    objects = record["annotations"]
    found = rng.random(len(objects)) < 0.67
    boxes = np.array([one["bbox"] for one in objects]).reshape(-1, 4)[found]
    boxes = np.concatenate([boxes + rng.normal(0, 3, boxes.shape), random_boxes(rng, false)])
    labels = np.array([one["category_id"] for one in objects], np.int64)[found]
    labels = np.concatenate([labels, rng.integers(0, classes, false)])
    instances = Instances(SIZE)
    instances.pred_boxes = Boxes(torch.from_numpy(boxes))
    instances.scores = torch.from_numpy(
        np.concatenate([rng.uniform(0.3, 1, int(found.sum())), rng.uniform(0, 0.8, false)])
    )
    instances.pred_classes = torch.from_numpy(labels)
    return {"instances": instances}


def make_report(folder: Path, images=12, classes=5, objects=4, false=4, pictures=4, resamples=200):
    """A report as `vertebra evaluate` writes it, without the model."""
    dataset = make_dataset(folder, images, classes, objects)
    evaluator = COCOEvaluator(dataset, resamples=resamples)
    rng = np.random.default_rng(1)
    for record in dataset.dicts:
        evaluator.process([record], [make_output(rng, record, classes, false)])
    metrics = evaluator.evaluate()
    sections = evaluator.sections(folder, pictures) + dataset_sections(dataset, folder / "plots")
    path = write_report(
        folder / "report.html",
        title="a <generated> report",
        subtitle="generated",
        metrics=metrics,
        reasons=evaluator.reasons,
        notes=evaluator.notes,
        intervals=evaluator.intervals,
        sections=sections,
        facts={"Versions": {"python": "3"}},
        recipe_yaml="seed: 0\n",
    )
    return SimpleNamespace(path=path, metrics=metrics, evaluator=evaluator, sections=sections)


@pytest.fixture(scope="session")
def generated_report(tmp_path_factory):
    """A small one, made once."""
    return make_report(tmp_path_factory.mktemp("generated_report"))


@pytest.fixture(scope="session")
def report_of():
    """The function that makes them."""
    return make_report
