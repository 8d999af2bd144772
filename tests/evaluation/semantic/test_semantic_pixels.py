"""Confusion counts and boundaries of one image."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vertebra.evaluation.semantic.pixels import (
    boundary_counts,
    boundary_radius,
    detectron2_boundary_counts,
    image_quality,
    pixel_counts,
    to_codes,
)

K = 3
codes = arrays.arrays(np.int64, (6, 9), elements=st.integers(0, K))


def test_labels_become_codes():
    labels = torch.tensor([[0, 2, 3, 255, -1]], dtype=torch.int16)
    assert to_codes(labels, 3, ignore_label=255).tolist() == [[0, 2, 4, 3, 4]]
    assert to_codes(labels, 3, ignore_label=-1).tolist() == [[0, 2, 4, 4, 3]]
    assert to_codes(torch.tensor([[3, 1]], dtype=torch.uint8), 3, ignore_label=3).tolist() == [[3, 1]]


def test_an_ignore_label_inside_the_classes_is_ignored_all_the_same():
    assert to_codes(torch.tensor([[0, 1, 2]]), 3, ignore_label=0).tolist() == [[3, 1, 2]]


@given(truth=codes, predicted=codes)
@settings(deadline=None, max_examples=50)
def test_counts_are_exact_and_lose_no_pixel(truth, predicted):
    counts = pixel_counts(torch.from_numpy(truth), torch.from_numpy(predicted), K)
    assert counts.dtype == torch.int64 and counts.shape == (K + 1, K + 2) and int(counts.sum()) == truth.size
    for t in range(K + 1):
        for p in range(K + 2):
            assert counts[t, p] == ((truth == t) & (predicted == p)).sum()


def test_quality_of_an_image_is_the_mean_iou_of_its_classes():
    truth, predicted = torch.tensor([[0, 0, 1, 3]]), torch.tensor([[0, 2, 1, 1]])
    assert float(image_quality(pixel_counts(truth, predicted, K))) == pytest.approx((1 / 2 + 1) / 2)
    assert image_quality(pixel_counts(torch.full((1, 2), K), torch.zeros(1, 2).long(), K)).isnan()


def _near_contour(mask, ignored, radius):
    """Pixels of a mask with something else, or the image's edge, at most `radius` away in the larger of x and y."""
    near = np.zeros_like(mask)
    height, width = mask.shape
    for y, x in np.argwhere(mask):
        y0, y1, x0, x1 = y - radius, y + radius + 1, x - radius, x + radius + 1
        outside = y0 < 0 or x0 < 0 or y1 > height or x1 > width
        window = (slice(max(y0, 0), y1), slice(max(x0, 0), x1))
        near[y, x] = outside or bool((~mask[window] & ~ignored[window]).any())
    return near


@given(truth=codes, predicted=codes, radius=st.integers(1, 4))
@settings(deadline=None, max_examples=40)
def test_boundaries_agree_with_a_search_around_each_pixel(truth, predicted, radius):
    counts = boundary_counts(torch.from_numpy(truth), torch.from_numpy(predicted), K, radius)
    ignored = truth == K
    for label in range(K):
        true_edge = _near_contour(truth == label, ignored, radius) & ~ignored
        pred_edge = _near_contour(predicted == label, ignored, radius) & ~ignored
        assert counts[:, label].tolist() == [(true_edge & pred_edge).sum(), true_edge.sum(), pred_edge.sum()]


@given(truth=codes, noise=codes)
@settings(deadline=None, max_examples=40)
def test_what_is_predicted_on_ignored_pixels_makes_no_difference(truth, noise):
    predicted = np.where(truth == K, noise, truth)
    common, true, found = boundary_counts(torch.from_numpy(truth), torch.from_numpy(predicted), K, 1).tolist()
    assert common == true == found


def test_a_square_has_the_boundary_one_can_count():
    truth = torch.zeros(9, 9).long()
    truth[2:7, 2:7] = 1  # 5 x 5, of which 3 x 3 are inside
    counts = boundary_counts(truth, truth, 2, radius=1)
    assert counts[1].tolist() == [81 - 25, 25 - 9]  # what is around it is 2 wide, so all of that is near a contour


def test_width_of_a_boundary():
    assert boundary_radius((480, 640), 0.02) == 16
    assert boundary_radius((5, 5), 0.02) == 1


def test_detectron2_counts_the_difference_to_the_eroded_map():
    truth = torch.tensor([[2, 2, 2, 2, 2]] * 5)
    counts = detectron2_boundary_counts(truth, truth, 3, radius=1)
    assert counts.tolist() == [[9, 0, 16]] * 3  # the inside becomes class 0
