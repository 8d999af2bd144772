"""Calibration and AP by size, by hand."""

import numpy as np
import pytest

from matching import matches_by_state
from vertebra_eval.analysis import by_size, calibration
from vertebra_eval.coco import coco_evaluate


def test_expected_calibration_error_by_hand():
    """Scores 0.9 x 4, three right: 0.15 apart; 0.2 x 1, wrong: 0.2 apart; the one on a crowd does not count."""
    found = calibration(matches_by_state([0.9, 0.9, 0.9, 0.9, 0.2, 0.6], [1, 1, 1, 0, 0, -1]), 0)
    assert found.error == pytest.approx((4 * 0.15 + 1 * 0.2) / 5)
    assert found.counts.tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 4, 0]
    assert found.precision[8] == 0.75 and found.confidence[8] == pytest.approx(0.9) and np.isnan(found.precision[0])


def test_a_calibrated_detector_has_no_error_and_edges_belong_below():
    assert calibration(matches_by_state([1.0, 1.0, 0.0], [1, 1, 0]), 0).error == 0
    assert calibration(matches_by_state([0.5, 0.0], [1, 0]), 0, bins=2).counts.tolist() == [2, 0]


def test_what_cannot_be_calibrated_says_why():
    assert "no detection" in calibration(matches_by_state([], []), 0)
    assert "from -2 to 3.5" in calibration(matches_by_state([-2, 3.5], [0, 1]), 0)


def test_rows_by_size_hold_the_metrics_of_their_ranges(hand):
    objects = [(1, 1, (0, 0, 20, 20)), (1, 1, (30, 30, 60, 60)), (2, 1, (0, 0, 20, 20))]
    found = [(1, 1, (0, 0, 20, 20), 0.9), (1, 1, (30, 30, 60, 60), 0.8)]
    numbers = coco_evaluate(hand.truth(objects, classes=["cat"]), hand.results(found), "bbox")
    rows = {row.name: row for row in by_size(numbers.result)}
    assert {name: row.objects for name, row in rows.items()} == {"all": 3, "small": 2, "medium": 1, "large": 0}
    assert rows["small"].ap == pytest.approx(51 / 101) and rows["small"].ar == 0.5  # one of two, nothing false
    assert rows["medium"].ap == pytest.approx(1) and rows["medium"].ap50 == pytest.approx(1)
    assert rows["large"].ap is rows["large"].ar is None
    assert rows["all"].ap == pytest.approx(numbers["bbox/AP"])
