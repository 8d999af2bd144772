"""Detections are kept as columns: exact, in the dataset's order, and small."""

import json
import pickle
import tracemalloc

import numpy as np
import pytest
import torch

from vertebra.errors import DataError
from vertebra.evaluation import COCOEvaluator
from vertebra.evaluation.coco_results import write_results
from vertebra.evaluation.detections import Detections, ImageKey
from vertebra.evaluation.ground_truth import GroundTruth
from vertebra.evaluation.growing_columns import GrowingColumn, GrowingRunLengths
from vertebra.evaluation.loop import predict_all
from vertebra_eval.coco import DetectionColumns
from vertebra_eval.masks import MaskColumn


def detected(count, seed, masks=None, keypoints=None):
    rng = np.random.default_rng(seed)
    boxes = rng.uniform(0, 100, (count, 4)).astype(np.float32).astype(np.float64)
    masks = None if masks is None else MaskColumn.of_encoded(masks)
    image = np.zeros(count, np.int64)
    return DetectionColumns(image, rng.integers(0, 3, count), boxes, None, rng.random(count), masks, keypoints)


def run_lengths(count, seed):
    rng = np.random.default_rng(seed)
    return [
        {"size": [4, 5 + seed], "counts": bytes(rng.integers(48, 90, n + 1).astype(np.uint8))} for n in range(count)
    ]


class Finds(torch.nn.Module):
    """The same output for every image."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, inputs):
        return [self.output] * len(inputs)


def truth_of(num_images):
    return GroundTruth(
        keys=[ImageKey(i, None) for i in range(num_images)],
        image_ids=list(range(num_images)),
        sizes=[(100, 100)] * num_images,
        class_names=["a", "b", "c"],
        category_ids=[1, 2, 3],
    )


def test_a_column_gives_back_what_it_took_whatever_the_parts():
    column, parts = GrowingColumn((3,)), [np.random.default_rng(n).random((n, 3)) for n in (0, 1, 50_000, 7, 30_000)]
    for part in parts[:3]:
        column.extend(part)
    assert np.array_equal(column.array(), np.concatenate(parts[:3]))
    for part in parts[3:]:
        column.extend(part)
    assert len(column) == 80_008
    assert np.array_equal(pickle.loads(pickle.dumps(column)).array(), np.concatenate(parts))


def test_masks_come_back_row_by_row_and_in_any_order():
    column, masks = GrowingRunLengths(), [*run_lengths(4, 0), *run_lengths(3, 1)]
    column.extend(MaskColumn.of_encoded(masks[:4]))
    column.extend(MaskColumn.of_encoded([masks[0], *masks[4:]]).take(np.array([1, 2, 3])))
    assert list(column.array()) == masks
    assert list(column.array()[np.array([6, 0, 3])]) == [masks[6], masks[0], masks[3]]
    assert list(column.array()[2:5]) == masks[2:5]


def test_table_has_the_images_in_order_and_each_once():
    detections = Detections()
    parts = {i: detected(i, i, run_lengths(i, i), np.full((i, 2, 3), float(i))) for i in (3, 1, 0, 2)}
    for image, part in parts.items():
        detections.add(ImageKey(image, None), part)
    detections.add(ImageKey(3, None), detected(9, 9))  # a sampler's padding
    table = detections.columns({ImageKey(i, None): i for i in range(4)})
    assert table.image.tolist() == [1, 2, 2, 3, 3, 3]
    for name in ("boxes", "scores", "category", "keypoints"):
        assert np.array_equal(getattr(table, name), np.concatenate([getattr(parts[i], name) for i in (1, 2, 3)]))
    assert list(table.masks) == [mask for i in (1, 2, 3) for mask in parts[i].masks]


def test_shards_together_are_the_whole():
    whole, shards = Detections(), [Detections(), Detections(), Detections()]
    for image in range(6):
        part = detected(image, image, run_lengths(image, image))
        dropped = int(image == 4)
        whole.add(ImageKey(image, None), part, dropped)
        shards[image % 2].add(ImageKey(image, None), part, dropped)
        if image in (3, 4):
            shards[1 - image % 2].add(ImageKey(image, None), part, dropped)
    rows = {ImageKey(i, None): i for i in range(6)}
    merged = Detections.merged(pickle.loads(pickle.dumps(shards)))
    assert merged.dropped == whole.dropped == (1, [ImageKey(4, None)])
    one, other = merged.columns(rows), whole.columns(rows)
    for name in ("image", "boxes", "scores", "category"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
    assert list(one.masks) == list(other.masks)


def test_masks_are_there_only_if_every_image_with_detections_has_them():
    detections = Detections()
    detections.add(ImageKey(0, None), detected(2, 0, run_lengths(2, 0)))
    detections.add(ImageKey(1, None), detected(0, 1))  # an empty image does not matter
    rows = {ImageKey(i, None): i for i in range(3)}
    assert len(detections.columns(rows).masks) == 2
    detections.add(ImageKey(2, None), detected(1, 2))
    assert detections.columns(rows).masks is None


def test_another_number_of_keypoints_names_the_image():
    detections = Detections()
    detections.add(ImageKey(0, None), detected(1, 0, keypoints=np.zeros((1, 17, 3))))
    with pytest.raises(DataError, match=r"image 7 has 5 keypoints .* had 17"):
        detections.add(ImageKey(7, None), detected(1, 0, keypoints=np.zeros((1, 5, 3))))


def test_predicting_keeps_nothing_but_the_columns(by_hand):
    """With a model that finds 100 boxes on each of 400 images."""
    evaluator = COCOEvaluator(by_hand.dataset({i: [] for i in range(400)}, ["cat"]))
    model = Finds(by_hand.output([((i % 50, 10, 60, 60), 0.5, 0) for i in range(100)]))
    batches = [[record] for record in evaluator.dataset.dicts]
    predict_all(model, batches[:2], [evaluator])  # what is made once
    evaluator.reset()
    tracemalloc.start()
    try:
        with torch.inference_mode():
            for inputs in batches:
                evaluator.process(inputs, model(inputs))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(evaluator.detections.images) == 400
    assert peak < 40_000 * 64 + 2e6  # blocks that are begun; as Python objects it would be over 10e6


@pytest.mark.slow
def test_memory_is_the_columns_and_writing_needs_none_that_grows(tmp_path):
    """A box is 4 coordinates, score and class: 48 bytes; as a dict of Python numbers it would take over 400."""
    num_images, each = 1000, 100
    part, detections = detected(each, 0), Detections()
    truth = truth_of(num_images)
    tracemalloc.start()
    try:
        for key in truth.keys:
            detections.add(key, part)
        per_detection = tracemalloc.get_traced_memory()[1] / (num_images * each)
        table = detections.columns(truth.rows(detections.images))
        kept = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        write_results(tmp_path, truth, table, ["bbox"])
        growth = tracemalloc.get_traced_memory()[1] - kept
    finally:
        tracemalloc.stop()
    assert per_detection < 64
    assert growth < 12e6  # 5000 records at a time; all 100,000 as dicts would be over 40e6
    records = json.loads((tmp_path / "coco_results.json").read_text())
    assert len(records) == num_images * each
    assert [record["score"] for record in records[-each:]] == part.scores.tolist()
    assert not list(tmp_path.glob("*.part"))
