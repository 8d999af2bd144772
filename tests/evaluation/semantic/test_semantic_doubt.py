"""The uncertainty of the worst images: measured from scores, kept small, drawn into the report's sheets."""

import numpy as np
import torch
from PIL import Image

from vertebra.evaluation.semantic import SemSegEvaluator
from vertebra.evaluation.semantic.tally import DOUBT_LEVELS
from vertebra.visualize import entropy_map

NAMES = ("road", "car", "sky")
TRUTH = np.zeros((20, 30), np.uint8)


def judged(evaluator, output):
    evaluator.reset()
    evaluator.process([evaluator.dataset.dicts[0]], [{"sem_seg": output}])
    evaluator.evaluate()
    return evaluator.merged.worst[0]


def test_the_entropy_of_scores_is_kept_to_one_part_in_255(semantic_dataset):
    scores = torch.randn(3, 20, 30)
    kept = judged(SemSegEvaluator(semantic_dataset({1: TRUTH}, NAMES)), scores).doubt
    assert kept.dtype == torch.uint8
    torch.testing.assert_close(kept.float() / DOUBT_LEVELS, entropy_map(scores), atol=0.51 / DOUBT_LEVELS, rtol=0)


def test_labels_have_none_and_it_can_be_left_out(semantic_dataset):
    dataset = semantic_dataset({1: TRUTH}, NAMES)
    assert judged(SemSegEvaluator(dataset), torch.zeros(20, 30, dtype=torch.int64)).doubt is None
    assert judged(SemSegEvaluator(dataset, uncertainty=False), torch.randn(3, 20, 30)).doubt is None


def test_it_goes_to_another_process_with_the_counts(semantic_dataset):
    evaluator = SemSegEvaluator(semantic_dataset({1: TRUTH}, NAMES))
    kept = judged(evaluator, torch.randn(3, 20, 30)).doubt
    assert torch.equal(evaluator.tally.on_cpu().worst[0].doubt, kept)


def test_the_sheet_is_wider_with_it(semantic_dataset, tmp_path):
    """Truth, prediction and errors fill two rows of two; the uncertainty is the fourth."""
    dataset = semantic_dataset({1: TRUTH}, NAMES)
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(dataset.dicts[0]["file_name"])
    pictures = {}
    for uncertainty in (True, False):
        evaluator = SemSegEvaluator(dataset, uncertainty=uncertainty)
        judged(evaluator, torch.zeros(3, 20, 30))  # undecided everywhere: light
        folder = tmp_path / str(uncertainty)
        evaluator.sections(folder, 1)
        with Image.open(next((folder / "pictures" / "semantic").glob("*.png"))) as picture:
            pictures[uncertainty] = np.asarray(picture.convert("RGB")).astype(int)
    with_it, without = pictures[True], pictures[False]
    light = (with_it[..., 0] > 230) & (with_it[..., 2] < 200)
    assert light.mean() > 0.1
    assert ((without[..., 0] > 230) & (without[..., 2] < 200)).mean() < 0.02
