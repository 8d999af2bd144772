"""Result files are on disk while a model predicts, and in the end the same as those written from all detections."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vertebra.errors import DataError
from vertebra.evaluation import COCOEvaluator
from vertebra.evaluation.coco_json import json_text
from vertebra.evaluation.result_stream import ResultStream
from vertebra.structures import Boxes, Instances


class _Dataset:
    def __init__(self, images=4):
        self.metadata = SimpleNamespace(
            thing_classes=["a", "b"], thing_dataset_id_to_contiguous_id={7: 0, 90: 1}, name="made"
        )
        self.dicts = [
            {"image_id": 10 * i, "file_name": f"{i}.png", "height": 40, "width": 60, "annotations": []}
            for i in range(images)
        ]


def _found(count, seed, masks=False):
    rng = np.random.default_rng(seed)
    corners = rng.random((count, 2)) * 20
    boxes = np.concatenate([corners, corners + 1 + rng.random((count, 2)) * 19], axis=1)
    fields = {"scores": torch.rand(count), "pred_classes": torch.from_numpy(rng.integers(2, size=count))}
    if masks:
        fields["pred_masks"] = torch.from_numpy(rng.random((count, 40, 60)) > 0.5)
    return {"instances": Instances((40, 60), pred_boxes=Boxes(torch.from_numpy(boxes)), **fields)}


def _read(path):
    return json.loads(path.read_text())


@pytest.mark.parametrize("masks", [False, True])
def test_the_files_are_those_written_from_the_whole_table(tmp_path, masks):
    evaluators = [COCOEvaluator(_Dataset(), tmp_path / name, resamples=0) for name in ("streamed", "whole")]
    for seed, record in enumerate(_Dataset().dicts):
        for evaluator in evaluators:
            torch.manual_seed(seed)
            evaluator.process([record], [_found(3 * seed, seed, masks)])
    evaluators[1].stream.discard()
    evaluators[1].stream = None
    for evaluator in evaluators:
        evaluator.evaluate()
    for name in ("coco_results.json", "coco_results_segm.json")[: 1 + masks]:
        streamed, whole = (_read(tmp_path / part / name) for part in ("streamed", "whole"))
        assert streamed == whole
        assert len(streamed) == 18
    assert not list(tmp_path.rglob("*.part"))


def test_a_break_leaves_what_was_found_before_it(tmp_path, monkeypatch):
    monkeypatch.setattr("vertebra.evaluation.result_stream._AT_A_TIME", 0)
    evaluator = COCOEvaluator(_Dataset(), tmp_path)
    for seed, record in enumerate(_Dataset().dicts[:3]):
        evaluator.process([record], [_found(2, seed)])
    text = (tmp_path / "coco_results.json.part").read_text()
    assert [record["image_id"] for record in json.loads(text + "]")] == [0, 0, 10, 10, 20, 20]
    assert not (tmp_path / "coco_results.json").exists()


def test_an_image_that_comes_twice_is_written_once(tmp_path):
    dataset = _Dataset()
    evaluator = COCOEvaluator(dataset, tmp_path, resamples=0)
    for record in (dataset.dicts[1], dataset.dicts[0], dataset.dicts[1]):
        evaluator.process([record], [_found(1, 0)])
    evaluator.evaluate()
    assert [record["image_id"] for record in _read(tmp_path / "coco_results.json")] == [10, 0]


def test_images_processed_after_an_evaluation_do_not_replace_those_before(tmp_path):
    dataset = _Dataset()
    evaluator = COCOEvaluator(dataset, tmp_path, resamples=0)
    for record in dataset.dicts[:2]:
        evaluator.process([record], [_found(1, 0)])
        evaluator.evaluate()
    assert [record["image_id"] for record in _read(tmp_path / "coco_results.json")] == [0, 10]


def test_no_detection_at_all_is_an_empty_list(tmp_path):
    evaluator = COCOEvaluator(_Dataset(), tmp_path, resamples=0)
    evaluator.process([_Dataset().dicts[0]], [_found(0, 0)])
    evaluator.evaluate()
    assert _read(tmp_path / "coco_results.json") == []


def test_a_class_the_dataset_lacks_is_told_at_once(tmp_path):
    output = _found(1, 0)
    output["instances"].pred_classes = torch.tensor([5])
    with pytest.raises(DataError, match="the model predicts class 5, but the dataset has 2 classes"):
        COCOEvaluator(_Dataset(), tmp_path).process([_Dataset().dicts[0]], [output])


def test_every_process_has_files_of_its_own(tmp_path):
    streams = [ResultStream(tmp_path, _Dataset(), ["bbox"], rank) for rank in (0, 3)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coco_results.json.3.part", "coco_results.json.part"]
    for stream in streams:
        stream.discard()
    assert not list(tmp_path.iterdir())


def test_numbers_that_json_does_not_have_are_replaced_and_texts_are_not():
    value = {"Infinity": [float("inf"), -float("inf"), 1.5], 'say "NaN\\"': float("nan"), "b": 'a "-Infinity", NaN'}
    text = json_text(value)
    assert text == r'{"Infinity": [1e999, -1e999, 1.5], "say \"NaN\\\"": null, "b": "a \"-Infinity\", NaN"}'
    assert json.loads(text, parse_constant=pytest.fail) == value | {'say "NaN\\"': None}
