"""`SemSegEvaluator`: worked cases, Detectron2's numbers, many processes, clear errors."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vertebra.errors import DataError, RecipeError
from vertebra.evaluation.semantic import SemSegEvaluator
from vertebra.evaluation.semantic.tally import Tally
from vertebra.registry import EVALUATORS

GOLDEN = Path(__file__).resolve().parents[2] / "reference"
ROAD, CAR, SKY, VOID = 0, 1, 2, 255
TRUTH = np.array([[ROAD, ROAD, CAR, CAR], [ROAD, ROAD, CAR, VOID]])
GUESS = np.array([[ROAD, ROAD, ROAD, CAR], [ROAD, CAR, CAR, SKY]])
NAMES = ("road", "car", "sky")


def _run(evaluator, outputs):
    evaluator.reset()
    for record in evaluator.dataset.dicts:
        if record["image_id"] in outputs:
            evaluator.process([record], [{"sem_seg": torch.as_tensor(outputs[record["image_id"]])}])
    return evaluator.evaluate()


def test_a_case_worked_by_hand(semantic_dataset):
    """Road: 3 right, 1 missed, 1 false. Car: 2 right, 1 missed, 1 false. The void pixel counts nowhere."""
    evaluator = SemSegEvaluator(semantic_dataset({1: TRUTH}, NAMES))
    metrics = _run(evaluator, {1: GUESS})
    assert metrics["sem_seg/IoU-road"] == 3 / 5 and metrics["sem_seg/IoU-car"] == 2 / 4
    assert metrics["sem_seg/mIoU"] == pytest.approx((3 / 5 + 2 / 4) / 2)
    assert metrics["sem_seg/fwIoU"] == pytest.approx((4 * 3 / 5 + 3 * 2 / 4) / 7)
    assert metrics["sem_seg/pixel_accuracy"] == 5 / 7
    assert metrics["sem_seg/mean_accuracy"] == pytest.approx((3 / 4 + 2 / 3) / 2)
    assert metrics["sem_seg/Dice-road"] == 6 / 8 and metrics["sem_seg/precision-car"] == 2 / 3
    assert metrics["sem_seg/recall-car"] == 2 / 3
    precision, recall = metrics["sem_seg/precision-road"], metrics["sem_seg/recall-road"]
    assert metrics["sem_seg/F1-road"] == pytest.approx(2 * precision * recall / (precision + recall))
    assert metrics["sem_seg/mF1"] == metrics["sem_seg/mDice"] == pytest.approx((6 / 8 + 4 / 6) / 2)


def test_a_class_without_ground_truth_stays_out_and_is_named(semantic_dataset):
    guess = GUESS.copy()
    guess[0, 0] = SKY
    evaluator = SemSegEvaluator(semantic_dataset({1: TRUTH}, NAMES))
    metrics = _run(evaluator, {1: guess})
    assert metrics["sem_seg/IoU-sky"] is None
    assert "does not occur in the ground truth" in evaluator.reasons["sem_seg/IoU-sky"]
    assert metrics["sem_seg/mIoU"] == pytest.approx((2 / 5 + 2 / 4) / 2)
    assert "sky; 1 pixels were predicted as such" in evaluator.notes[0]
    assert set(evaluator.reasons) == {key for key, value in metrics.items() if value is None}


def test_a_class_never_predicted_has_no_precision(semantic_dataset):
    evaluator = SemSegEvaluator(semantic_dataset({1: TRUTH}, NAMES))
    metrics = _run(evaluator, {1: np.zeros_like(TRUTH)})
    assert metrics["sem_seg/precision-car"] is None and metrics["sem_seg/IoU-car"] == 0.0
    assert evaluator.reasons["sem_seg/precision-car"] == "car is never predicted"


def test_a_perfect_prediction_and_scores_instead_of_labels(semantic_dataset):
    truth = np.where(TRUTH == CAR, SKY, TRUTH)
    scores = torch.nn.functional.one_hot(torch.from_numpy(np.where(truth == VOID, CAR, truth)), 3).permute(2, 0, 1)
    evaluator = SemSegEvaluator(semantic_dataset({1: truth}, NAMES))
    metrics = _run(evaluator, {1: scores.float()})
    for name in ("mIoU", "fwIoU", "pixel_accuracy", "mean_accuracy", "mDice", "mPrecision", "mBoundaryIoU"):
        assert metrics[f"sem_seg/{name}"] == 1.0


def test_pixels_predicted_as_none_are_missed(semantic_dataset):
    guess = np.where(TRUTH == CAR, VOID, TRUTH)
    evaluator = SemSegEvaluator(semantic_dataset({1: TRUTH}, NAMES))
    metrics = _run(evaluator, {1: guess})
    assert metrics["sem_seg/pixel_accuracy"] == 4 / 7 and metrics["sem_seg/recall-car"] == 0.0
    assert any("3 pixels with a true class were predicted as none" in note for note in evaluator.notes)


def test_nothing_but_ignored_pixels_gives_reasons(semantic_dataset):
    evaluator = SemSegEvaluator(semantic_dataset({1: np.full((3, 3), VOID)}, NAMES))
    metrics = _run(evaluator, {1: np.zeros((3, 3), int)})
    assert set(metrics.values()) == {None} and set(evaluator.reasons) == set(metrics)


def test_numbers_are_those_of_detectron2(semantic_dataset):
    expected = json.loads((GOLDEN / "golden_sem_seg.json").read_text())
    arrays = np.load(GOLDEN / "golden_sem_seg.npz")
    names = [f"s{i}" for i in range(5)]
    dataset = semantic_dataset({i: arrays[f"gt{i}"] for i in range(4)}, names)
    metrics = _run(SemSegEvaluator(dataset, boundary_iou="detectron2"), {i: arrays[f"pred{i}"] for i in range(4)})
    ours = {"mIoU": "mIoU", "fwIoU": "fwIoU", "mACC": "mean_accuracy", "pACC": "pixel_accuracy"}
    for name in names:
        ours |= {f"IoU-{name}": f"IoU-{name}", f"ACC-{name}": f"recall-{name}"}
        ours[f"BoundaryIoU-{name}"] = f"BoundaryIoU-{name}"
    assert set(ours) == {key for key in expected if not key.startswith("min(")}
    for theirs, key in ours.items():
        assert 100 * metrics[f"sem_seg/{key}"] == pytest.approx(expected[theirs], abs=1e-10)


def test_the_void_label_may_be_any_number(semantic_dataset):
    truth = np.where(TRUTH == VOID, 3, TRUTH)
    metrics = _run(SemSegEvaluator(semantic_dataset({1: truth}, NAMES, ignore_label=3)), {1: GUESS})
    assert metrics["sem_seg/pixel_accuracy"] == 5 / 7


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"instances": 1}, "has no 'sem_seg', only 'instances'"),
        ({"sem_seg": torch.zeros(4, 2, 4)}, "scores of 4 classes, the dataset has 3"),
        ({"sem_seg": torch.zeros(2, 4)}, "expected scores"),
        ({"sem_seg": torch.zeros(2, 5).long()}, r"4x2 pixels \(width x height\), the prediction for image 17 5x2"),
    ],
)
def test_wrong_outputs_are_told_with_their_image(semantic_dataset, output, message):
    evaluator = SemSegEvaluator(semantic_dataset({17: TRUTH}, NAMES))
    with pytest.raises(DataError, match=message) as caught:
        evaluator.process([evaluator.dataset.dicts[0]], [output])
    assert "image 17" in str(caught.value)


def test_labels_outside_the_classes_are_errors_on_either_side(semantic_dataset):
    evaluator = SemSegEvaluator(semantic_dataset({1: np.full((2, 4), 3)}, NAMES))
    with pytest.raises(DataError, match=r"labels_1\.png: labels 3 on 8 pixels belong to no class; there are 3 classes"):
        _run(evaluator, {1: GUESS})
    evaluator = SemSegEvaluator(semantic_dataset({1: TRUTH}, NAMES))
    with pytest.raises(DataError, match="the model gave 8 pixels a label that is not a class"):
        _run(evaluator, {1: np.full((2, 4), 3)})


def test_datasets_and_arguments_that_cannot_work(semantic_dataset):
    dataset = semantic_dataset({1: TRUTH}, NAMES)
    with pytest.raises(RecipeError, match="boundary_ratio is 2"):
        SemSegEvaluator(dataset, boundary_ratio=2.0)
    with pytest.raises(DataError, match="no stuff_classes"):
        SemSegEvaluator(semantic_dataset({1: TRUTH}, ()))
    record = {"image_id": 1, "file_name": dataset.dicts[0]["file_name"]}
    evaluator = SemSegEvaluator(type(dataset)([record], dataset.metadata))
    with pytest.raises(DataError, match="no sem_seg_file_name"):
        evaluator.process([record], [{"sem_seg": torch.from_numpy(GUESS)}])


def _random_set(semantic_dataset, count):
    rng = np.random.default_rng(0)
    truth = {i: rng.choice([0, 1, 2, 255], size=(8, 11)) for i in range(count)}
    guesses = {i: rng.integers(0, 3, size=(8, 11)) for i in range(count)}
    return semantic_dataset(truth, NAMES), guesses


def test_shards_equal_one_process_whatever_they_share(semantic_dataset):
    dataset, guesses = _random_set(semantic_dataset, 9)
    alone = SemSegEvaluator(dataset)
    expected = _run(alone, guesses)
    shards = [SemSegEvaluator(dataset) for _ in range(4)]
    for shard, rows in zip(shards, [[0, 3, 6, 0], [1, 4, 7, 0], [2, 5, 8, 1], []], strict=True):
        for row in rows:
            shard.process([dataset.dicts[row]], [{"sem_seg": torch.from_numpy(guesses[row])}])
    sent = pickle.loads(pickle.dumps([shard.tally.on_cpu() for shard in shards]))  # as between processes
    merged, intervals, _ = shards[0]._evaluate_all(sent)
    assert merged.metrics == expected
    assert intervals == alone.intervals and set(intervals) >= {"sem_seg/mIoU", "sem_seg/mBoundaryIoU"}
    assert [i.key for i in shards[0].merged.worst] == [i.key for i in alone.merged.worst]


def test_images_two_processes_both_counted_long_ago_are_an_error(semantic_dataset):
    dataset, guesses = _random_set(semantic_dataset, 10)
    shards = [SemSegEvaluator(dataset) for _ in range(2)]
    for shard in shards:
        for row in range(10):
            shard.process([dataset.dicts[row]], [{"sem_seg": torch.from_numpy(guesses[row])}])
    with pytest.raises(DataError, match=r"image 0 .* was evaluated in two processes"):
        Tally.merged([shard.tally.on_cpu() for shard in shards])


def test_only_the_worst_images_are_kept(semantic_dataset):
    dataset = semantic_dataset({i: np.zeros((1, 200)) for i in range(130)}, NAMES)
    evaluator = SemSegEvaluator(dataset, boundary_iou="off")
    for i in range(130):
        guess = torch.zeros(1, 200).long()
        guess[0, : (i * 37) % 130] = 1  # wrong pixels, a number for each image
        evaluator.process([dataset.dicts[i]], [{"sem_seg": guess}])
        assert len(evaluator.tally.worst) < 64
    evaluator.evaluate()
    kept = [(i.key.image_id * 37) % 130 for i in evaluator.merged.worst]
    assert kept == list(range(129, 129 - 24, -1))


def test_the_report_shows_classes_confusion_and_the_worst_image_first(semantic_dataset, tmp_path):
    dataset = semantic_dataset({1: TRUTH, 2: TRUTH}, NAMES)
    for record in dataset.dicts:
        Image.new("RGB", (4, 2), (90, 120, 90)).save(record["file_name"])
    evaluator = SemSegEvaluator(dataset)
    assert evaluator.sections(tmp_path / "report", 4) == []  # nothing was evaluated yet
    _run(evaluator, {1: np.where(TRUTH == VOID, 0, TRUTH), 2: GUESS})
    plots, worst, facts = evaluator.sections(tmp_path / "report", 4)
    assert [figure.path.name for figure in plots.blocks] == ["sem_seg_class_iou.png", "sem_seg_confusion.png"]
    assert all(figure.path.is_file() for figure in plots.blocks)
    captions = [picture.caption for picture in worst.blocks[0].pictures]
    assert captions == ["2.jpg: mean IoU 0.550 over its classes", "1.jpg: mean IoU 1.000 over its classes"]
    assert facts.blocks[0].rows["pixels without"] == "2 (12.5%), label 255"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_nothing_waits_and_the_counts_are_the_same(semantic_dataset):
    dataset, guesses = _random_set(semantic_dataset, 5)
    expected = _run(SemSegEvaluator(dataset), guesses)
    evaluator = SemSegEvaluator(dataset)
    outputs = {i: torch.from_numpy(guess).cuda() for i, guess in guesses.items()}
    evaluator.process([dataset.dicts[0]], [{"sem_seg": outputs[0]}])
    torch.cuda.set_sync_debug_mode("error")
    try:
        for i in range(1, 5):
            evaluator.process([dataset.dicts[i]], [{"sem_seg": outputs[i]}])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert evaluator.evaluate() == expected


def test_recipes_find_it_by_name():
    assert EVALUATORS.get("SemSegEvaluator") is SemSegEvaluator


def test_a_single_class_is_always_right_which_a_note_says(semantic_dataset):
    evaluator = SemSegEvaluator(semantic_dataset({1: np.array([[0, 0, VOID]])}, ("road",)))
    assert _run(evaluator, {1: np.array([[0, 0, 0]])})["sem_seg/mIoU"] == 1
    assert "road is the only class" in evaluator.notes[0] and "always 1" in evaluator.notes[0]
