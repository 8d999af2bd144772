"""From the files of a dataset through a model's outputs and the files written of them to panopticapi's numbers."""

import json

import pytest
import torch

from vertebra.data.coco.panoptic_format import CocoPanopticFormat
from vertebra.evaluation import panoptic_evaluate
from vertebra.evaluation.panoptic import PanopticEvaluator
from vertebra_eval.panoptic.runs import read_id_runs

SETS = ("perfect", "no_crowd", "shift_small", "relabel", "merge", "drop", "void", "noise", "spurious")


@pytest.fixture(scope="module")
def sample(shared):
    return shared("data/panoptic_sample")


@pytest.fixture(scope="module")
def dataset(sample):
    return CocoPanopticFormat("panoptic_examples.json", "input_images").load(str(sample))


def outputs_of(sample, name, metadata):
    """{image id: what a model would have to predict so that the files of set `name` come out}."""
    kinds = [(True, metadata.thing_dataset_id_to_contiguous_id), (False, metadata.stuff_dataset_id_to_contiguous_id)]
    numbers = {category: (thing, number) for thing, table in kinds for category, number in table.items()}
    found = {}
    for record in json.loads((sample / f"predictions/{name}.json").read_text())["annotations"]:
        infos = []
        for info in record["segments_info"]:
            thing, number = numbers[info["category_id"]]
            infos.append({"id": info["id"], "isthing": thing, "category_id": number})
        ids = read_id_runs(sample / "predictions" / name / record["file_name"]).pixels()
        found[record["image_id"]] = {"panoptic_seg": (torch.from_numpy(ids).int(), infos)}
    return found


def assert_expected(metrics, expected):
    for group, suffix in (("All", ""), ("Things", "_things"), ("Stuff", "_stuff")):
        for measure in ("PQ", "SQ", "RQ"):
            wanted = expected[group][measure.lower()]
            assert metrics[f"panoptic/{measure}{suffix}"] == pytest.approx(wanted, abs=1e-12), (group, measure)


@pytest.mark.parametrize("name", SETS)
def test_every_reference_result_from_file_to_file(sample, dataset, name, tmp_path):
    expected = json.loads((sample / "expected.json").read_text())["results"][name]
    evaluator = PanopticEvaluator(dataset, tmp_path)
    found = outputs_of(sample, name, dataset.metadata)
    for record in dataset.dicts:
        evaluator.process([record], [found[record["image_id"]]])
    assert_expected(evaluator.evaluate(), expected)
    again = panoptic_evaluate(sample / "panoptic_examples.json", pred_json=evaluator.files["panoptic_predictions"])
    assert_expected(again.metrics, expected)
    for category, row in expected["per_class"].items():
        quality = again.per_class[int(category)]
        assert (quality.tp, quality.fp, quality.fn) == (row["tp"], row["fp"], row["fn"])
        assert quality.iou_sum == pytest.approx(row["iou_sum"], abs=1e-12)
