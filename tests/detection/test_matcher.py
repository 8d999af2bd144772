import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vertebra.detection import BACKGROUND, IGNORE, Matcher, subsample_labels
from vertebra.detection.matcher import MAX_PAIRS
from vertebra.structures import pairwise_iou


def test_intervals_include_their_lower_end():
    matches, labels = Matcher([0.3, 0.7], [0, -1, 1])(torch.tensor([[0.29, 0.3, 0.69, 0.7]]))
    assert labels.tolist() == [0, -1, -1, 1]
    assert labels.dtype == torch.int8
    assert matches.tolist() == [0, 0, 0, 0]


def test_low_quality_matches_take_all_that_tie_and_keep_their_own_best():
    quality = torch.tensor(
        [
            [0.2, 0.2, 0.1],  # best at 0 and 1, a tie
            [0.6, 0.0, 0.1],  # best at 0
        ]
    )
    matches, labels = Matcher([0.5], [0, 1], allow_low_quality_matches=True)(quality)
    assert labels.tolist() == [1, 1, 0]
    assert matches.tolist() == [1, 0, 0]


def test_no_candidates():
    matches, labels = Matcher([0.5], [0, 1])(torch.zeros(3, 0))
    assert matches.shape == labels.shape == (0,)
    found = Matcher([0.5], [0, 1], True).match_boxes(torch.zeros(0, 4), torch.zeros(2, 3, 4), torch.ones(2, 3).bool())
    assert found.shape == (2, 0)


def random_boxes(generator, *shape):
    corner = torch.randint(0, 12, (*shape, 2), generator=generator)  # whole numbers make ties
    size = torch.randint(1, 8, (*shape, 2), generator=generator)
    return torch.cat((corner, corner + size), dim=-1).float()


@pytest.mark.parametrize("max_pairs", [1, 2**20])
@pytest.mark.parametrize("allow_low_quality", [False, True])
@given(seed=st.integers(0, 10_000))
def test_a_padded_batch_matches_as_each_image_alone(seed, allow_low_quality, max_pairs):
    generator = torch.Generator().manual_seed(seed)
    matcher = Matcher([0.3, 0.6], [0, -1, 1], allow_low_quality)
    candidates, truth = random_boxes(generator, 20), random_boxes(generator, 3, 4)
    valid = torch.arange(4) < torch.randint(0, 5, (3, 1), generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MAX_PAIRS, "cpu", max_pairs)
        found = matcher.match_boxes(candidates, truth, valid)
    assert torch.equal(found, matcher.match_boxes(candidates.expand(3, 20, 4), truth, valid))
    for image in range(3):
        matches, labels = matcher(pairwise_iou(truth[image, valid[image]], candidates))
        expected = torch.where(labels == 1, matches, torch.where(labels == 0, BACKGROUND, IGNORE))
        assert torch.equal(found[image], expected)


def test_padding_never_matches_even_where_a_candidate_lies_on_it():
    candidates = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 9.0, 9.0], [50.0, 50.0, 60.0, 60.0]])
    truth = torch.tensor([[[0.0, 0.0, 9.0, 9.0], [50.0, 50.0, 60.0, 60.0]]])
    matcher = Matcher([0.4, 0.5], [0, -1, 1], allow_low_quality_matches=True)
    assert matcher.match_boxes(candidates, truth, torch.tensor([[True, False]])).tolist() == [
        [BACKGROUND, 0, BACKGROUND]
    ]
    assert matcher.match_boxes(candidates, truth, torch.tensor([[False, False]])).tolist() == [[BACKGROUND] * 3]
    assert matcher.match_boxes(candidates, torch.zeros(1, 0, 4), torch.zeros(1, 0).bool()).tolist() == [
        [BACKGROUND] * 3
    ]


def test_without_truth_the_first_label_decides():
    matcher = Matcher([0.5], [-1, 1])
    assert matcher.match_boxes(torch.zeros(2, 4), torch.zeros(1, 0, 4), torch.zeros(1, 0).bool()).tolist() == [
        [IGNORE] * 2
    ]


@pytest.mark.parametrize(
    ("thresholds", "labels", "message"),
    [
        ([0.7, 0.3], [0, -1, 1], "must ascend"),
        ([0.0], [0, 1], "more than 0"),
        ([0.5], [0, -1, 1], "3 labels for 1 thresholds"),
        ([0.5], [0, 2], "each must be -1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(thresholds, labels, message):
    with pytest.raises(ValueError, match=message):
        Matcher(thresholds, labels)


def test_sampling_keeps_to_its_fraction_and_to_what_there_is():
    labels = torch.tensor([3] * 10 + [0, 1, 2, 0] + [-1] * 5)
    positive, negative = subsample_labels(labels, 8, 0.25, bg_label=3)
    assert len(positive) == 2 and len(negative) == 6
    assert all(10 <= i < 14 for i in positive) and all(i < 10 for i in negative)
    positive, negative = subsample_labels(labels, 100, 0.5, bg_label=3)
    assert sorted(positive.tolist()) == [10, 11, 12, 13] and sorted(negative.tolist()) == list(range(10))


def test_sampling_from_nothing():
    positive, negative = subsample_labels(torch.tensor([-1, -1]), 8, 0.5, bg_label=0)
    assert positive.tolist() == negative.tolist() == []
    assert positive.dtype == negative.dtype == torch.int64
