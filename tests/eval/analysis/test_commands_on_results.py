"""`vertebra compare` and `vertebra evaluate-results`, and the evaluations they read."""

import json
import shutil
import subprocess
import sys

import pytest
import torch

from vertebra.data import Dataset, Metadata
from vertebra.errors import DataError
from vertebra.evaluation import COCOEvaluator
from vertebra.structures import Boxes, BoxMode, Instances
from vertebra_eval.compare_runs import compare_runs


def evaluate_into(folder, truth, results):
    """What an evaluation of a model that gives these results leaves in a folder; the evaluator."""
    dicts = [
        {
            "image_id": image["id"],
            "file_name": image["file_name"],
            "height": 100,
            "width": 100,
            "annotations": [
                {"bbox": a["bbox"], "bbox_mode": BoxMode.XYWH_ABS, "category_id": a["category_id"] - 1}
                for a in truth["annotations"]
                if a["image_id"] == image["id"]
            ],
        }
        for image in truth["images"]
    ]
    metadata = Metadata("by_hand").set(thing_classes=[category["name"] for category in truth["categories"]])
    evaluator = COCOEvaluator(Dataset(dicts, metadata), folder, resamples=100)
    for record in dicts:
        own = [result for result in results if result["image_id"] == record["image_id"]]
        found = Instances((100, 100))
        boxes = torch.tensor([r["bbox"] for r in own], dtype=torch.float64).reshape(-1, 4)
        found.pred_boxes = Boxes(torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1))
        found.scores = torch.tensor([r["score"] for r in own])
        found.pred_classes = torch.tensor([r["category_id"] - 1 for r in own], dtype=torch.int64)
        evaluator.process([record], [{"instances": found}])
    evaluator.evaluate()
    return evaluator


@pytest.fixture
def runs(hand, tmp_path):
    """Two run folders of the same data, the second far better."""
    truth, worse = hand.many(50, seed=1, quality=0.3)
    better = hand.many(50, seed=2, quality=0.95)[1]
    return [
        (tmp_path / name, evaluate_into(tmp_path / name / "evaluation", truth, results))[0]
        for name, results in (("old", worse), ("new", better))
    ]


def test_compare_tells_the_difference_of_two_runs(command_line, runs, tmp_path):
    said = command_line("compare", *runs, "--resamples", 200, "--json", tmp_path / "compared.json").stdout
    assert "more than noise" in said and "another seed" in said
    written = json.loads((tmp_path / "compared.json").read_text())
    one = written["bbox/AP"]
    assert one["difference"] == pytest.approx(one["b"] - one["a"]) and one["difference"] > 0.1
    assert one["interval"][0] > 0 and one["p_value"] < 1e-4 and one["noise"] is False
    assert f"{one['difference']:+.4f}" in said


def test_compare_takes_several_runs_a_side(command_line, hand, runs, tmp_path):
    truth, _ = hand.many(50, seed=1)
    for name, seed, quality in (("old2", 5, 0.3), ("new2", 6, 0.95)):
        evaluate_into(tmp_path / name / "evaluation", truth, hand.many(50, seed=seed, quality=quality)[1])
    said = command_line("compare", runs[0], tmp_path / "old2", "against", runs[1], tmp_path / "new2").stdout
    assert "over 50 images and 2 and 2 runs" in said and "images only" not in said
    assert said.index("old2") < said.index("B  ") < said.index("new2")
    refused = command_line("compare", *runs, runs[0], code=2)
    assert "expected two runs, or two sides with the word against between them" in refused.stderr


def test_compare_takes_evaluation_folders_and_result_files(runs):
    whole, task, _ = compare_runs(*runs, resamples=100)
    assert task == "bbox"
    folders = [run / "evaluation" for run in runs]
    assert compare_runs(*folders, resamples=100)[0] == whole
    files = [folder / "coco_results.json" for folder in folders]
    truth = folders[0] / "coco_ground_truth.json"
    assert compare_runs(*files, annotations=truth, resamples=100)[0].differences == whole.differences
    with pytest.raises(DataError, match="--annotations"):
        compare_runs(*files)


def test_runs_on_different_data_are_not_compared(hand, runs, tmp_path):
    def other(name, truth, results):
        evaluate_into(tmp_path / name, truth, results)
        return tmp_path / name

    truth, results = hand.many(49, seed=1)
    with pytest.raises(DataError, match="different images: 50 and 49, 49 of them the same"):
        compare_runs(runs[0], other("fewer", truth, results))
    truth, results = hand.many(50, seed=1, objects_seed=3)
    with pytest.raises(DataError, match="different annotations"):
        compare_runs(runs[0], other("changed", truth, results))
    truth, results = hand.many(50, seed=1, classes=("cat", "dog", "owl"))
    with pytest.raises(DataError, match="different classes"):
        compare_runs(runs[0], other("classes", truth, results))


def test_folders_without_an_evaluation_say_what_to_do(runs, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="vertebra evaluate"):
        compare_runs(runs[0], tmp_path / "empty")
    with pytest.raises(DataError, match="no such folder or file"):
        compare_runs(runs[0], tmp_path / "nowhere")
    (runs[0] / "evaluation" / "coco_ground_truth.json").unlink()
    with pytest.raises(DataError, match="--annotations"):
        compare_runs(*runs)


def test_a_comparison_of_masks_that_the_ground_truth_lacks_says_so(hand, tmp_path):
    truth, results = hand.many(5, seed=0)
    gt, dt = hand.write(tmp_path / "gt.json", truth), hand.write(tmp_path / "dt.json", results)
    with pytest.raises(DataError, match=r"gt\.json[^$]*10 ground-truth objects without a mask"):
        compare_runs(dt, dt, annotations=gt, task="segm")


def test_a_moved_run_is_still_compared(runs, tmp_path):
    moved = shutil.move(runs[0], tmp_path / "elsewhere")
    assert compare_runs(moved, runs[1], resamples=100)[0].num_images == 50


def test_the_evaluator_gives_intervals_and_notes(hand, tmp_path):
    truth, results = hand.many(20, seed=0)
    evaluator = evaluate_into(tmp_path / "a", truth, [result | {"score": 0.5} for result in results])
    metrics = evaluator.evaluate()
    assert set(evaluator.intervals) == {"bbox/AP", "bbox/AP50", "bbox/AP75"}
    assert all(low <= metrics[key] <= high for key, (low, high) in evaluator.intervals.items())
    assert any("have the score 0.5" in note for note in evaluator.notes)


def test_evaluate_results_prints_and_writes_the_numbers(command_line, shared, tmp_path):
    folder = shared("data/cocoeval_sample/val2014_100")
    files = ("--annotations", folder / "gt_instances.json", "--results", folder / "det_bbox.json")
    options = ("--task", "bbox", "--resamples", 100, "--json", tmp_path / "n.json")
    said = command_line("evaluate-results", *files, *options).stdout
    assert "0.5046" in said and "95 % interval of bbox/AP:" in said
    assert json.loads((tmp_path / "n.json").read_text())["bbox/AP"] == pytest.approx(0.5045806987249628, abs=1e-12)


def test_evaluate_results_of_panoptic_files(command_line, shared, tmp_path):
    folder = shared("data/panoptic_sample")
    truth = ("--annotations", folder / "panoptic_examples.json", "--annotations-folder", folder / "panoptic_examples")
    results = ("--results", folder / "predictions" / "noise.json")
    command_line("evaluate-results", *truth, *results, "--task", "panoptic", "--json", tmp_path / "n.json")
    written = json.loads((tmp_path / "n.json").read_text())
    assert {key for key in written if "/" in key and "-" not in key} == {
        f"panoptic/{name}{group}" for name in ("PQ", "SQ", "RQ") for group in ("", "_things", "_stuff")
    }
    expected = json.loads((folder / "expected.json").read_text())["results"]["noise"]
    for group, suffix in (("All", ""), ("Things", "_things"), ("Stuff", "_stuff")):
        for name in ("PQ", "SQ", "RQ"):
            assert written[f"panoptic/{name}{suffix}"] == pytest.approx(expected[group][name.lower()], abs=1e-12)


def test_the_limit_on_detections_can_be_raised(command_line, hand, tmp_path):
    """150 objects of a class in one image, all found: 100 of them count by COCO's rule."""
    boxes = [(10 * (n % 20), 10 * (n // 20), 8, 8) for n in range(150)]
    gt = hand.write(tmp_path / "gt.json", hand.truth([(1, 1, box) for box in boxes]))
    results = [{"image_id": 1, "category_id": 1, "bbox": box, "score": 1 - n / 200} for n, box in enumerate(boxes)]
    dt = hand.write(tmp_path / "dt.json", results)
    files = ("--annotations", gt, "--results", dt, "--task", "bbox", "--resamples", 0, "--json", tmp_path / "n.json")
    said = command_line("evaluate-results", *files).stdout
    assert "1 images have more than 100 objects of one class (up to 150; first: annotation 1)" in said
    assert json.loads((tmp_path / "n.json").read_text())["bbox/AR100"] == pytest.approx(100 / 150)
    said = command_line("evaluate-results", *files, "--max-dets", "1,10,500").stdout
    assert "more than" not in said and "AR500" in said
    written = json.loads((tmp_path / "n.json").read_text())
    assert written["bbox/AP"] == written["bbox/AR500"] == 1.0
    for wrong in ("many", "0", "1,,2"):
        assert "expected numbers from 1" in command_line("evaluate-results", *files, "--max-dets", wrong, code=2).stderr


def test_wrong_options_and_files_say_so(command_line, tmp_path, hand):
    gt = hand.write(tmp_path / "gt.json", hand.truth([(1, 1, (0, 0, 5, 5))]))
    dt = hand.write(tmp_path / "dt.json", "[{")
    files = ("--annotations", gt, "--results", dt)
    assert "expected one of bbox" in command_line("evaluate-results", *files, "--task", "boxes", code=2).stderr
    failed = command_line("evaluate-results", *files, "--task", "bbox", code=2)
    assert isinstance(failed.error, DataError) and "dt.json" in failed.stderr


def test_masks_in_the_report_are_those_of_their_objects(hand, tmp_path):
    """The first object has no mask, so rows of annotations and of objects that count differ."""
    square = [[50, 50, 80, 50, 80, 80, 50, 80]]
    dicts = [
        {
            "image_id": 1,
            "file_name": "1.png",
            "height": 100,
            "width": 100,
            "annotations": [
                {"bbox": [0, 0, 20, 20], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0},
                {"bbox": [50, 50, 30, 30], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1, "segmentation": square},
            ],
        }
    ]
    evaluator = COCOEvaluator(Dataset(dicts, Metadata("by_hand").set(thing_classes=["cat", "dog"])), tasks=["segm"])
    found = Instances((100, 100))
    found.pred_boxes = Boxes(torch.tensor([[50.0, 50.0, 80.0, 80.0]]))
    found.scores, found.pred_classes = torch.tensor([0.9]), torch.tensor([1])
    mask = torch.zeros(1, 100, 100, dtype=torch.bool)
    mask[0, 50:80, 50:80] = True
    found.pred_masks = mask
    evaluator.process(dicts, [{"instances": found}])
    assert evaluator.evaluate()["segm/AP50-dog"] == pytest.approx(1)
    tables = [
        block for section in evaluator.sections(tmp_path, 0) for block in section.blocks if hasattr(block, "rows")
    ]
    errors = next(table for table in tables if "AP50 gained" in getattr(table, "columns", ()))
    assert [row[1] for row in errors.rows] == [0] * 6


def test_evaluate_results_needs_no_torch(hand, tmp_path):
    """In a process of its own, where importing torch fails."""
    truth, results = hand.many(5, seed=0)
    gt, dt = hand.write(tmp_path / "gt.json", truth), hand.write(tmp_path / "dt.json", results)
    code = (
        "import sys; sys.modules.update(torch=None, torchvision=None)\n"
        "from vertebra.cli.app import app\n"
        f"app(['evaluate-results', '--annotations', {str(gt)!r}, '--results', {str(dt)!r}, '--task', 'bbox'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "95 % interval of bbox/AP:" in done.stdout
