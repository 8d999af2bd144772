"""Matching of one image's segments against a plain version with loops."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vertebra_eval.panoptic.counts import Segments, count_image
from vertebra_eval.panoptic.runs import IdRuns, common_pixels, read_id_runs, write_segment_ids

SIZE = (5, 7)
maps = arrays.arrays(np.int64, SIZE, elements=st.integers(0, 4))


@given(first=maps, second=maps)
@settings(deadline=None, max_examples=50)
def test_common_pixels_are_those_counted_one_by_one(first, second):
    counted = {}
    for pair in zip(first.flat, second.flat, strict=True):
        counted[pair] = counted.get(pair, 0) + 1
    a, b, pixels = common_pixels(IdRuns.of(first), IdRuns.of(second))
    assert dict(zip(zip(a.tolist(), b.tolist(), strict=True), pixels.tolist(), strict=True)) == counted


@given(
    ids=arrays.arrays(
        np.int64,
        st.tuples(st.integers(1, 4), st.integers(1, 6)),
        elements=st.sampled_from([0, 1, 255, 256, 65535, 65536, 2**24 - 1]),
    )
)
@settings(deadline=None, max_examples=30)
def test_ids_survive_the_png(tmp_path_factory, ids):
    path = tmp_path_factory.mktemp("ids") / "a.png"
    write_segment_ids(ids, path)
    runs = read_id_runs(path)
    assert np.array_equal(runs.pixels(), ids)
    same = IdRuns.of(ids)
    assert np.array_equal(runs.starts, same.starts) and np.array_equal(runs.ids, same.ids)


def test_an_image_without_pixels_has_no_pairs():
    empty = IdRuns.of(np.zeros((0, 4), int))
    assert [len(column) for column in common_pixels(empty, empty)] == [0, 0, 0]


@st.composite
def images(draw):
    """Maps, and segments for their ids with classes and crowds drawn at random."""
    true_ids, pred_ids = draw(maps), draw(maps)
    kinds = st.tuples(st.integers(0, 1), st.booleans())
    truth = {int(i): draw(kinds) for i in np.unique(true_ids) if i}
    predicted = {int(i): draw(kinds)[0] for i in np.unique(pred_ids) if i}
    return true_ids, truth, pred_ids, predicted


def by_loops(true_ids, truth, pred_ids, predicted):
    """(true positives as (class, IoU), false, missed), straight from the definition."""
    void = true_ids == 0
    matched_truth, matched_pred, found = set(), set(), []
    for t, (label, crowd) in truth.items():
        for p, guess in predicted.items():
            mine, other = true_ids == t, pred_ids == p
            iou = (mine & other).sum() / (mine | (other & ~void)).sum()
            if label == guess and not crowd and iou > 0.5:
                found.append((label, iou))
                matched_truth.add(t)
                matched_pred.add(p)
    missed = [label for t, (label, crowd) in truth.items() if not crowd and t not in matched_truth]
    false = []
    for p, guess in predicted.items():
        crowds = [t for t, (label, crowd) in truth.items() if crowd and label == guess]
        excused = (pred_ids == p) & (void | (true_ids == crowds[-1]) if crowds else void)
        if p not in matched_pred and excused.sum() <= 0.5 * (pred_ids == p).sum():
            false.append(guess)
    return sorted(found), sorted(false), sorted(missed)


@given(images())
@settings(deadline=None, max_examples=150)
def test_matching_agrees_with_the_definition(image):
    true_ids, truth, pred_ids, predicted = image
    rows = {0: 0, 1: 1}
    true_segments = Segments.of(
        [{"id": i, "category_id": label, "iscrowd": crowd} for i, (label, crowd) in truth.items()], rows, "here"
    )
    pred_segments = Segments.of([{"id": i, "category_id": label} for i, label in predicted.items()], rows, "here")
    counts = count_image(IdRuns.of(true_ids), true_segments, IdRuns.of(pred_ids), pred_segments, "here")
    found = sorted(zip(counts.matched.tolist(), counts.iou.tolist(), strict=True))
    expected = by_loops(true_ids, truth, pred_ids, predicted)
    assert (found, sorted(counts.false.tolist()), sorted(counts.missed.tolist())) == expected
