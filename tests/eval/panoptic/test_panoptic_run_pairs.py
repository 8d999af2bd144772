"""Common pixels by machine code are those of the plain way, whatever the ids and the runs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba", reason="the fast counting of panoptic pairs needs numba")

from vertebra.errors import DataError
from vertebra_eval.panoptic.counts import Segments, count_image
from vertebra_eval.panoptic.machine_code import machine_code
from vertebra_eval.panoptic.run_pairs import paired_rows
from vertebra_eval.panoptic.runs import IdRuns

IDS = st.lists(st.integers(1, 2**32 - 1), min_size=1, max_size=40, unique=True)


def _image(ids, seed, size=(6, 9)):
    """Segments of these ids and void, in runs of a few pixels."""
    rng = np.random.default_rng(seed)
    pixels = np.repeat(rng.choice([0, *ids], size=size[0] * size[1]), rng.integers(1, 4))[: size[0] * size[1]]
    columns = rng.integers(2, size=(2, len(ids)))
    segments = Segments(np.array(ids), columns[0], columns[1] == 1, np.full(len(ids), -1))
    runs = IdRuns.of(pixels.reshape(size))
    return runs, segments.with_pixels(runs)


@pytest.mark.slow
@given(true=IDS, predicted=IDS, seed=st.integers(0, 99))
@settings(deadline=None, max_examples=100)
def test_an_image_counts_the_same_either_way(true, predicted, seed):
    true_runs, truth = _image(true, seed)
    pred_runs, guess = _image(predicted, seed + 1)
    plain, fast = (count_image(true_runs, truth, pred_runs, guess, "", fast=fast) for fast in (False, True))
    for name in ("matched", "iou", "false", "missed"):
        assert np.array_equal(getattr(plain, name), getattr(fast, name)), name
    assert plain.odd_areas == fast.odd_areas


def test_the_order_is_that_of_ids_and_not_of_rows():
    true_runs, pred_runs = IdRuns.of(np.array([[9, 9, 4, 0]])), IdRuns.of(np.array([[7, 2, 2, 2]]))
    found = paired_rows(
        (true_runs.starts, true_runs.ids), np.array([9, 4]), (pred_runs.starts, pred_runs.ids), np.array([7, 2]), 4
    )
    assert [column.tolist() for column in found] == [[-1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]


def test_an_unknown_id_is_told_as_by_the_plain_way():
    runs = IdRuns.of(np.array([[5, 6]]))
    segments = Segments(np.array([5]), np.array([0]), np.array([False]), np.array([-1]))
    with pytest.raises(DataError, match="segment ids 6 that are not in its segments_info"):
        count_image(runs, segments, runs, segments, "a.png", fast=True)


def test_more_segments_than_the_tables_hold_are_counted_too():
    ids = np.arange(1, 402)
    runs = IdRuns.of(ids[None])
    segments = Segments(ids, np.zeros(401, int), np.zeros(401, bool), np.full(401, -1))
    counts = count_image(runs, segments, runs, segments, "", fast=True)
    assert len(counts.matched) == 401 and (counts.iou == 1).all()


def test_what_numba_can_store_nowhere_is_compiled_all_the_same():
    numba = pytest.importorskip("numba")
    names: dict = {}
    exec("def double(x):\n    return 2 * x", names)  # of no file, so that there is no folder for its machine code
    with pytest.raises(RuntimeError, match="cannot cache"):
        numba.njit(cache=True)(names["double"])
    assert machine_code(names["double"])(21) == 42
