"""Matching of one image's segments against a plain version with loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vertebra_eval.errors import DataError
from vertebra_eval.panoptic import counts
from vertebra_eval.panoptic.counts import Segments, count_image
from vertebra_eval.panoptic.runs import IdRuns, common_runs, read_id_runs, write_segment_ids

SIZE = (5, 7)
maps = arrays.arrays(np.int64, SIZE, elements=st.integers(0, 4))


@given(first=maps, second=maps)
@settings(deadline=None, max_examples=50)
def test_common_runs_are_the_two_images_pixel_by_pixel(first, second):
    runs = IdRuns.of(first), IdRuns.of(second)
    a, b, pixels = common_runs(*runs)
    assert (pixels > 0).all()
    for one, which, image in zip(runs, (a, b), (first, second), strict=True):
        assert np.array_equal(np.repeat(one.ids[which], pixels), image.reshape(-1))


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
    assert [len(column) for column in common_runs(empty, empty)] == [0, 0, 0]


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


IDS = st.lists(st.integers(1, 2**32 - 1), min_size=1, max_size=40, unique=True)


def _image(ids, seed, size=(6, 9)):
    """Segments of these ids and void, in runs of a few pixels."""
    rng = np.random.default_rng(seed)
    pixels = np.repeat(rng.choice([0, *ids], size=size[0] * size[1]), rng.integers(1, 4))[: size[0] * size[1]]
    columns = rng.integers(2, size=(2, len(ids)))
    segments = Segments(np.array(ids), columns[0], columns[1] == 1, np.full(len(ids), -1))
    runs = IdRuns.of(pixels.reshape(size))
    return runs, segments.with_pixels(runs)


@given(true=IDS, predicted=IDS, seed=st.integers(0, 99))
@settings(deadline=None, max_examples=50)
def test_few_and_many_segments_are_counted_alike(true, predicted, seed):
    images = *_image(true, seed), *_image(predicted, seed + 1), ""
    in_table = count_image(*images)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counts, "_TABLE", 0)
        in_list = count_image(*images)
    for name in ("matched", "iou", "false", "missed"):
        assert np.array_equal(getattr(in_table, name), getattr(in_list, name)), name
    assert in_table.odd_areas == in_list.odd_areas


def test_the_order_is_that_of_ids_and_not_of_rows():
    true_runs, pred_runs = IdRuns.of(np.array([[9, 9, 4, 0]])), IdRuns.of(np.array([[7, 2, 2, 2]]))
    truth, guess = (Segments(np.array(ids), *np.zeros((2, 2), int), np.full(2, -1)) for ids in ([9, 4], [7, 2]))
    found = counts._pairs(true_runs, truth, pred_runs, guess, "")
    assert [column.tolist() for column in found] == [[-1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]


@pytest.mark.parametrize("segments", [1, 401])
def test_an_unknown_id_is_told(segments):
    ids = np.arange(1, segments + 2)
    runs = IdRuns.of(ids[None])
    known = Segments(ids[:-1], *np.zeros((2, segments), int), np.full(segments, -1))
    with pytest.raises(DataError, match=rf"segment ids {segments + 1} that are not in its segments_info"):
        count_image(runs, known, runs, known, "a.png")
    whole = Segments(ids, *np.zeros((2, segments + 1), int), np.full(segments + 1, -1))
    found = count_image(runs, whole, runs, whole, "")
    assert len(found.matched) == segments + 1 and (found.iou == 1).all()
