"""Several processes together give the numbers of one."""

import json

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image

from vertebra.data import Dataset, Metadata
from vertebra.errors import DataError, VertebraError
from vertebra.evaluation import COCOEvaluator, LVISEvaluator, VOCEvaluator
from vertebra.evaluation.panoptic import PanopticEvaluator
from vertebra.evaluation.semantic import SemSegEvaluator
from vertebra.runtime.distributed import on_main_process
from vertebra.structures import Boxes, Instances

COUNT = 5
ROWS = ([0, 1, 3], [2, 3, 4], [])
"""Of each process: the last has no image, the others share image 3, as padding samplers make them do."""


def _labels(row):
    """(100, 100) true labels: 0 sky, 1 cat, 255 none; other ones for each image."""
    labels = np.zeros((100, 100), np.uint8)
    labels[10:60, 10 : 30 + 10 * row] = 1
    labels[80:] = 255
    return labels


def _write_labels(folder):
    for row in range(COUNT):
        Image.fromarray(_labels(row)).save(folder / f"semantic_{row}.png")
        ids = np.where(_labels(row) == 255, 0, _labels(row) + 1)
        Image.fromarray(np.stack([ids, 0 * ids, 0 * ids], axis=-1).astype(np.uint8)).save(
            folder / f"panoptic_{row}.png"
        )


def _evaluators(folder, output):
    """One of each kind, all on the same five images."""
    dicts = [
        {
            "image_id": row,
            "file_name": f"{row}.jpg",
            "height": 100,
            "width": 100,
            "annotations": [{"bbox": [10, 10, 60, 60], "bbox_mode": 0, "category_id": 0}],
            "sem_seg_file_name": f"{folder}/semantic_{row}.png",
            "pan_seg_file_name": f"{folder}/panoptic_{row}.png",
            "segments_info": [
                {"id": 1, "category_id": 0, "isthing": False},
                {"id": 2, "category_id": 0, "isthing": True},
            ],
        }
        for row in range(COUNT)
    ]
    things = Dataset(dicts, Metadata("things").set(thing_classes=["cat"]))
    labels = Dataset(dicts, Metadata("labels").set(stuff_classes=["sky", "cat"]))
    both = Dataset(dicts, Metadata("both").set(thing_classes=["cat"], stuff_classes=["sky"]))
    return [
        COCOEvaluator(things, output),
        VOCEvaluator(things, iou=0.9),
        LVISEvaluator(things),
        SemSegEvaluator(labels),
        PanopticEvaluator(both, output),
    ]


def _predict(evaluators, rows):
    """A model that is wrong in another way in every image."""
    for row in rows:
        shift = row % 4
        boxes = Boxes([[10.0 + 3 * shift, 10, 60, 60]])
        found = Instances((100, 100), pred_boxes=boxes, scores=torch.tensor([0.9 - 0.1 * row]), pred_classes=[0])
        guess = np.roll(np.where(_labels(row) == 255, 0, _labels(row)), 2 * row + 1, axis=1)
        segments = [{"id": 1, "category_id": 0, "isthing": False}, {"id": 2, "category_id": 0, "isthing": True}]
        output = {
            "instances": found,
            "sem_seg": torch.from_numpy(guess.astype(np.int64)),
            "panoptic_seg": (torch.from_numpy(guess + 1), segments),
        }
        for evaluator in evaluators:
            evaluator.process([evaluator.dataset.dicts[row]], [output])


def _evaluate(evaluators):
    """[[metrics, reasons, notes], ...]"""
    return [[evaluator.evaluate(), evaluator.reasons, evaluator.notes] for evaluator in evaluators]


def _fail():
    raise DataError("the ground truth is gone")


def _work(rank, world_size, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world_size)
    evaluators = _evaluators(folder, f"{folder}/results")
    _predict(evaluators, ROWS[rank])
    numbers = _evaluate(evaluators)
    try:
        on_main_process(_fail)
        failure = None
    except VertebraError as err:
        failure = str(err)
    with open(f"{folder}/{rank}.json", "w", encoding="utf-8") as file:
        json.dump([numbers, failure], file)
    dist.destroy_process_group()


@pytest.mark.slow
def test_shards_with_duplicates_and_an_empty_one_equal_one_process(tmp_path):
    _write_labels(tmp_path)
    alone = _evaluators(tmp_path, None)
    _predict(alone, range(COUNT))
    expected = _evaluate(alone)
    keys = ("bbox/AP", "voc/AP", "lvis_bbox/AP", "sem_seg/mIoU", "panoptic/PQ")
    for key, (metrics, _, notes) in zip(keys, expected, strict=True):
        assert 0 < metrics[key] < 1 and all("no interval of" in note for note in notes)
    mp.spawn(_work, args=(len(ROWS), str(tmp_path)), nprocs=len(ROWS))
    for rank in range(len(ROWS)):
        numbers, failure = json.loads((tmp_path / f"{rank}.json").read_text())
        assert numbers == expected  # to the last bit
        assert "the ground truth is gone" in failure  # in every process, nobody waits for ever
    assert len(json.loads((tmp_path / "results" / "coco_results.json").read_text())) == COUNT
    written = json.loads((tmp_path / "results" / "panoptic_predictions.json").read_text())["annotations"]
    assert [record["image_id"] for record in written] == list(range(COUNT))
