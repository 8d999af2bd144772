"""`PanopticEvaluator`: a model's outputs in memory give the numbers of the files it writes."""

import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from vertebra.data import read_labels
from vertebra.data.shapes.format import ShapesFormat
from vertebra.errors import DataError
from vertebra.evaluation import panoptic_evaluate
from vertebra.evaluation.panoptic import PanopticEvaluator
from vertebra.evaluation.semantic import SemSegEvaluator
from vertebra.registry import EVALUATORS
from vertebra_eval.panoptic.runs import read_id_runs


def _segment(number, category, isthing, **more):
    return {"id": number, "category_id": category, "isthing": isthing, **more}


TRUTH = np.array([[1, 1, 1, 2, 2, 2]] * 3 + [[9] * 6] * 3)
SEGMENTS = [_segment(1, 0, True), _segment(2, 1, True), _segment(9, 0, False)]
GUESS = np.array([[4, 4, 5, 5, 5, 5]] * 3 + [[6] * 6] * 3)
GUESSES = [_segment(4, 0, True), _segment(5, 1, True), _segment(6, 0, False)]


def _output(ids, segments):
    return {"panoptic_seg": (torch.as_tensor(ids), segments)}


def _run(evaluator, outputs):
    evaluator.reset()
    for record in evaluator.dataset.dicts:
        if record["image_id"] in outputs:
            evaluator.process([record], [outputs[record["image_id"]]])
    return evaluator.evaluate()


def test_numbers_from_memory(panoptic, tmp_path):
    evaluator = PanopticEvaluator(panoptic.dataset(tmp_path, {1: (TRUTH, SEGMENTS)}))
    metrics = _run(evaluator, {1: _output(GUESS, GUESSES)})
    assert metrics["panoptic/PQ-cat"] == 6 / 9
    assert metrics["panoptic/PQ-dog"] == 9 / 12
    assert metrics["panoptic/PQ"] == pytest.approx((6 / 9 + 9 / 12 + 1) / 3)
    assert metrics["panoptic/PQ_stuff"] == 1.0 and not evaluator.intervals
    assert evaluator.notes == [
        "panoptic: no interval of PQ, SQ, RQ, PQ_things, SQ_things, RQ_things, PQ_stuff, SQ_stuff, RQ_stuff: an "
        "interval needs at least two images, and objects in them"
    ]


def test_written_files_give_the_same_numbers(panoptic, tmp_path):
    ids = {"thing_dataset_id_to_contiguous_id": {7: 0, 3: 1}, "stuff_dataset_id_to_contiguous_id": {40: 0}}
    truth = {1: (TRUTH, SEGMENTS), 2: (TRUTH[::-1], SEGMENTS)}
    evaluator = PanopticEvaluator(panoptic.dataset(tmp_path, truth, **ids), tmp_path / "out")
    metrics = _run(evaluator, {1: _output(GUESS, GUESSES), 2: _output(TRUTH[::-1].copy(), SEGMENTS)})
    numbers = {(True, 0): 7, (True, 1): 3, (False, 0): 40}
    records = [{**s, "category_id": numbers[s["isthing"], s["category_id"]], "iscrowd": 0} for s in SEGMENTS]
    gt = panoptic.write(tmp_path, "gt", {1: (TRUTH, records), 2: (TRUTH[::-1], records)})
    assert evaluator.files["panoptic_predictions"] == tmp_path / "out/panoptic_predictions.json"
    again = panoptic_evaluate(gt, pred_json=evaluator.files["panoptic_predictions"])
    assert again.metrics == metrics
    written = json.loads((tmp_path / "out/panoptic_predictions.json").read_text())["annotations"][0]
    assert written["segments_info"][0] == {"id": 4, "category_id": 7, "area": 6}


def test_void_may_be_minus_one_and_an_image_twice_counts_once(panoptic, tmp_path):
    evaluator = PanopticEvaluator(panoptic.dataset(tmp_path, {1: (TRUTH, SEGMENTS)}))
    expected = _run(evaluator, {1: _output(np.where(GUESS == 5, 0, GUESS), [GUESSES[0], GUESSES[2]])})
    evaluator.reset()
    output = _output(np.where(GUESS == 5, -1, GUESS), [GUESSES[0], GUESSES[2]])
    for _ in range(2):
        evaluator.process([evaluator.dataset.dicts[0]], [output])
    assert evaluator.evaluate() == expected
    assert expected["panoptic/PQ-dog"] == 0.0


def test_images_without_a_prediction_are_missed_and_empty_segments_left_out(panoptic, tmp_path):
    evaluator = PanopticEvaluator(panoptic.dataset(tmp_path, {1: (TRUTH, SEGMENTS), 2: (TRUTH, SEGMENTS)}))
    metrics = _run(evaluator, {1: _output(TRUTH, [*SEGMENTS, _segment(77, 0, True)])})
    assert metrics["panoptic/PQ"] == pytest.approx(1 / 1.5)
    assert "1 of the dataset's 2 images were not predicted" in evaluator.notes[0]
    assert "1 predicted segments have no pixel" in evaluator.notes[1]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"instances": 1}, "has no 'panoptic_seg', only 'instances'"),
        ({"panoptic_seg": (torch.zeros(6, 6), [])}, "expected whole numbers of shape"),
        ({"panoptic_seg": (torch.zeros(6, 6).int(), None)}, "needs its list of segments"),
        (_output(GUESS, GUESSES[:2]), "segment ids 6 that are not in its segments_info"),
        (_output(GUESS, [_segment(4, 5, True)]), "thing class 5, but the dataset has 2 thing classes"),
        (_output(GUESS, [{"id": 4, "category_id": 0}]), "needs id, category_id and isthing"),
        (_output(GUESS[:5], GUESSES), "6x5 pixels .*, the ground truth 6x6"),
    ],
)
def test_wrong_outputs_are_told_with_their_image(panoptic, tmp_path, output, message):
    evaluator = PanopticEvaluator(panoptic.dataset(tmp_path, {31: (TRUTH, SEGMENTS)}))
    with pytest.raises(DataError, match=message) as caught:
        evaluator.process([evaluator.dataset.dicts[0]], [output])
    assert "image 31" in str(caught.value)


def test_a_dataset_without_panoptic_labels_says_so(panoptic, tmp_path):
    dataset = panoptic.dataset(tmp_path, {1: (TRUTH, SEGMENTS)})
    record = {k: v for k, v in dataset.dicts[0].items() if k != "pan_seg_file_name"}
    evaluator = PanopticEvaluator(type(dataset)([record], dataset.metadata))
    with pytest.raises(DataError, match="no pan_seg_file_name"):
        evaluator.process([record], [_output(GUESS, GUESSES)])


def test_shards_merge_without_counting_an_image_twice(panoptic, tmp_path):
    truth = {i: (TRUTH, SEGMENTS) for i in range(3)}
    outputs = {0: _output(GUESS, GUESSES), 1: _output(TRUTH, SEGMENTS), 2: _output(np.zeros((6, 6), int), [])}
    dataset = panoptic.dataset(tmp_path, truth)
    alone = PanopticEvaluator(dataset)
    expected = _run(alone, outputs)
    parts = [PanopticEvaluator(dataset) for _ in range(3)]
    for part, rows in zip(parts, [[0, 2], [1, 0], []], strict=True):
        for row in rows:
            part.process([dataset.dicts[row]], [outputs[row]])
    sent = pickle.loads(pickle.dumps([(part.counts, part.records, part.worst) for part in parts]))
    quality, intervals, _ = parts[0]._evaluate_all(sent)
    assert quality.metrics == expected and intervals == alone.intervals
    assert [image.key.image_id for image in parts[0].worst] == [2, 0, 1]


def test_the_report_shows_classes_and_the_worst_image_first(panoptic, tmp_path):
    dataset = panoptic.dataset(tmp_path, {1: (TRUTH, SEGMENTS), 2: (TRUTH, SEGMENTS)})
    for record in dataset.dicts:
        Image.new("RGB", (6, 6), (90, 120, 90)).save(record["file_name"])
    evaluator = PanopticEvaluator(dataset)
    assert evaluator.sections(tmp_path / "report", 4) == []  # nothing was evaluated yet
    _run(evaluator, {1: _output(TRUTH, SEGMENTS), 2: _output(GUESS, GUESSES)})
    segments, worst, facts = evaluator.sections(tmp_path / "report", 4)
    figure, table = segments.blocks
    assert figure.path.is_file() and table.rows[0] == ["cat", "thing", 2, 0, 0]
    captions = [picture.caption for picture in worst.blocks[0].pictures]
    assert captions[0].startswith("2.jpg: PQ 0.806") and captions[1].startswith("1.jpg: PQ 1.000")
    assert facts.blocks[0].rows["segments found"] == "6 of 6"


def test_ground_truth_against_itself_is_perfect_in_a_dataset_with_semantic_labels_too(tmp_path, monkeypatch):
    """There `stuff_classes` names the semantic labels, among them the things'."""
    monkeypatch.setenv("VERTEBRA_CACHE", str(tmp_path))
    dataset = ShapesFormat(images=3, val_images=1, size=[48, 64], labels=["semantic", "panoptic"]).load()
    panoptic, semantic = PanopticEvaluator(dataset), SemSegEvaluator(dataset)
    for record in dataset.dicts:
        ids = torch.from_numpy(read_id_runs(record["pan_seg_file_name"]).pixels())
        labels = torch.from_numpy(read_labels(record["sem_seg_file_name"]))
        panoptic.process([record], [_output(ids, record["segments_info"])])
        semantic.process([record], [{"sem_seg": labels}])
    assert panoptic.evaluate()["panoptic/PQ"] == 1.0
    assert semantic.evaluate()["sem_seg/mIoU"] == 1.0
    stuff = panoptic.truth.stuff_names
    assert stuff and dataset.metadata.stuff_classes == [*dataset.metadata.thing_classes, *stuff]


def test_recipes_find_it_by_name():
    assert EVALUATORS.get("PanopticEvaluator") is PanopticEvaluator
