"""Pictures of label maps: overlay and legend, errors, uncertainty, the sheet of all of them, bars by class."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vertebra.visualize import (
    PALETTE,
    Style,
    draw_errors,
    draw_iou_bars,
    draw_sem_seg,
    draw_sem_seg_overlay,
    draw_semantic_panel,
    draw_uncertainty,
    entropy_map,
    with_legend,
    with_scale,
)
from vertebra.visualize.semantic import CORRECT, WRONG

PLAIN = Style(min_side=0, labels=False)
GRAY = np.full((60, 300, 3), 128, np.uint8)


def halves(left=0, right=1, shape=(60, 300)):
    labels = np.full(shape, left)
    labels[:, shape[1] // 2 :] = right
    return labels


def has(picture, color):
    return bool((picture == np.array(color)).all(axis=2).any())


def test_a_dataset_may_bring_its_own_colors():
    own = [(10, 200, 30), (200, 10, 220)]
    picture = draw_sem_seg(GRAY, halves(), colors=own, style=Style(0, labels=False, mask_alpha=0.9))
    np.testing.assert_allclose(picture[30, 70], own[0], atol=2)
    np.testing.assert_allclose(picture[30, 230], own[1], atol=2)


def test_a_class_beyond_the_datasets_colors_gets_one_of_the_palette():
    picture = draw_sem_seg(GRAY, halves(0, 5), colors=[(10, 200, 30)], style=Style(0, labels=False, mask_alpha=0.9))
    np.testing.assert_allclose(picture[30, 230], PALETTE[5], atol=2)


def test_the_legend_names_the_classes_that_occur_below_the_picture():
    picture = draw_sem_seg_overlay(GRAY, halves(0, 2), ["sky", "road", "tree"], style=PLAIN)
    below = picture[60:]
    assert picture.shape[0] > 60 and len(below) > 8
    np.testing.assert_array_equal(picture[:60], draw_sem_seg(GRAY, halves(0, 2), style=PLAIN))
    assert has(below, PALETTE[0]) and has(below, PALETTE[2]) and not has(below, PALETTE[1])


def test_a_long_legend_goes_on_in_further_rows_and_stays_in_the_picture():
    few = with_legend(GRAY, [(PALETTE[0], "road")])
    many = with_legend(GRAY, [(color, f"a class with a name {i}") for i, color in enumerate(PALETTE)])
    assert few.shape[1] == many.shape[1] == 300
    assert many.shape[0] > few.shape[0]
    assert all(has(many[60:], color) for color in PALETTE)
    assert with_legend(GRAY, []) is GRAY


def test_a_name_wider_than_the_picture_is_cut():
    narrow = np.full((10, 40, 3), 128, np.uint8)
    assert with_legend(narrow, [(PALETTE[0], "an extraordinarily long name of a class")]).shape[1] == 40


def test_errors_are_red_where_the_prediction_is_wrong_and_nowhere_else():
    truth, predicted = halves(0, 1), np.zeros((60, 300), int)
    picture = draw_errors(GRAY, predicted, truth, style=PLAIN)[:60].astype(int)
    redder = picture[..., 0] - picture[..., 1]
    assert (redder[:, 155:] > 60).all()
    assert (redder[:, :145] <= 0).all()
    assert has(draw_errors(GRAY, predicted, truth, style=PLAIN)[60:], WRONG)


def test_ignored_pixels_are_neither_right_nor_wrong():
    truth = halves(0, 255)
    for predicted in (0, 1):
        picture = draw_errors(GRAY, np.full((60, 300), predicted), truth, style=PLAIN)[:60]
        assert (picture[:, 155:].std(axis=2) < 12).all()  # hatched gray and black, without red
        assert picture[:, 155:].min() < picture[:, :145].min()


def test_an_image_of_ignored_pixels_alone_can_be_drawn():
    nothing = np.full((60, 300), 255)
    for picture in (
        draw_errors(GRAY, halves(), nothing, style=PLAIN),
        draw_sem_seg_overlay(GRAY, nothing, style=PLAIN),
        draw_semantic_panel(GRAY, halves(), nothing, style=PLAIN),
    ):
        assert picture.dtype == np.uint8 and picture.shape[0] > 60


def test_a_perfect_prediction_has_no_red():
    picture = draw_errors(GRAY, halves(), halves(), style=PLAIN)[:60].astype(int)
    assert (picture[..., 0] <= picture[..., 1]).all()
    assert CORRECT[0] < CORRECT[1]


def test_entropy_is_0_where_a_class_is_certain_and_1_where_all_are_alike():
    scores = torch.zeros(4, 1, 3)
    scores[2, 0, 0] = 100.0
    scores[:2, 0, 1] = 50.0
    expected = torch.tensor([[0.0, math.log(2) / math.log(4), 1.0]])
    torch.testing.assert_close(entropy_map(scores), expected, atol=1e-5, rtol=0)


def test_probabilities_are_taken_as_they_are():
    scores = torch.randn(5, 6, 7)
    torch.testing.assert_close(entropy_map(scores.softmax(dim=0)), entropy_map(scores))
    torch.testing.assert_close(entropy_map(scores.log_softmax(dim=0)), entropy_map(scores))


def test_entropy_of_half_precision_and_of_a_single_class_is_finite():
    assert torch.isfinite(entropy_map(torch.randn(3, 4, 4).bfloat16() * 50)).all()
    assert entropy_map(torch.randn(1, 4, 4)).eq(0).all()
    with pytest.raises(ValueError, match=r"takes scores \(K, H, W\)"):
        entropy_map(torch.zeros(4, 4))


def test_doubt_is_light_and_certainty_dark():
    scores = torch.zeros(3, 60, 300)
    scores[0, :, :150] = 20.0
    picture = draw_uncertainty(GRAY, scores, style=PLAIN)[:60].astype(int).sum(axis=2)
    assert picture[:, :145].max() < picture[:, 155:].min()
    np.testing.assert_array_equal(
        draw_uncertainty(GRAY, scores, style=PLAIN), draw_uncertainty(GRAY, entropy_map(scores), style=PLAIN)
    )


def test_the_sheet_has_truth_prediction_errors_and_uncertainty():
    scores = torch.randn(3, 60, 300)
    whole = draw_semantic_panel(GRAY, scores, halves(), style=PLAIN)
    without_truth = draw_semantic_panel(GRAY, scores, style=PLAIN)
    labels_alone = draw_semantic_panel(GRAY, scores.argmax(dim=0), halves(), style=PLAIN)
    assert whole.shape[0] > 2 * 60 and whole.shape[1] > 2 * 300  # two rows of two
    assert without_truth.shape[1] == whole.shape[1] and without_truth.shape[0] < whole.shape[0]
    assert labels_alone.shape[1] == whole.shape[1]
    assert draw_semantic_panel(GRAY, scores.argmax(dim=0), style=PLAIN).shape[1] < whole.shape[1]


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1)])
def test_images_of_one_pixel_and_of_one_row_can_be_drawn(size):
    image, labels = np.full((*size, 3), 128, np.uint8), np.zeros(size, int)
    scores = torch.randn(3, *size)
    for style in (PLAIN, None):
        assert draw_sem_seg_overlay(image, labels, ["sky"], style=style).ndim == 3
        assert draw_errors(image, labels, labels, style=style).ndim == 3
        assert draw_uncertainty(image, scores, style=style).ndim == 3
        assert draw_semantic_panel(image, scores, labels, ["sky"], style=style).ndim == 3


def test_maps_of_another_size_are_refused():
    small = np.zeros((5, 5), int)
    for draw in (
        lambda: draw_errors(GRAY, small, halves()),
        lambda: draw_errors(GRAY, halves(), small),
        lambda: draw_uncertainty(GRAY, small),
        lambda: draw_sem_seg_overlay(GRAY, small),
    ):
        with pytest.raises(ValueError, match=r"do not fit an image of \(60, 300\)"):
            draw()


def test_bars_are_as_long_as_their_values_and_have_the_colors_of_the_classes():
    picture = draw_iou_bars([1.0, 0.5, None, 0.0], ["sky", "road", "pole", "tree"])
    lengths = [(picture == np.array(PALETTE[i])).all(axis=2).any(axis=0).sum() for i in range(4)]
    assert lengths[0] == pytest.approx(2 * lengths[1], abs=2) and lengths[0] > 300
    assert lengths[2] == lengths[3] == 0


def test_bars_take_the_datasets_colors_and_need_a_class():
    assert has(draw_iou_bars([0.5, float("nan")], colors=[(1, 2, 3), (4, 5, 6)]), (1, 2, 3))
    assert draw_iou_bars([None, None]).shape[1] == 640
    with pytest.raises(ValueError, match="at least one class"):
        draw_iou_bars([])


def test_a_scale_shows_its_colors_from_left_to_right():
    colors = np.array([(0, 0, 0), (255, 0, 0)], np.uint8)
    below = with_scale(GRAY, colors, ("low", "high"), "mean 0.5")[60:]
    red = below[len(below) // 2, :, 0].astype(int) - below[len(below) // 2, :, 1]
    place = np.flatnonzero(red > 100)
    assert len(place) and (np.diff(red[place[0] : place[-1]]) >= -1).all()
