from itertools import islice

import numpy as np
import pytest
import torch

from vertebra.data.batching import BatchPlan, group_batches, is_wide
from vertebra.data.samplers import (
    RepeatFactorSampler,
    SampleKey,
    Sampler,
    TrainingSampler,
    epoch_length_of,
    inference_indices,
    repeat_factors,
    sample_keys,
)
from vertebra.errors import DataError, PluginError


def dicts_of(categories: list[list[int]]) -> list[dict]:
    return [{"annotations": [{"category_id": c} for c in image]} for image in categories]


def stream(sampler, dicts, seed, count, rank=0, world_size=1):
    return [key.index for key in islice(sample_keys(sampler, dicts, seed, rank, world_size), count)]


def test_streams_equal_detectron2s(golden_data):
    golden = golden_data[1]["samplers"]
    shuffled = golden["TrainingSampler(13, shuffle=True, seed=42)[:40]"]
    assert stream(TrainingSampler(), dicts_of([[]] * 13), 42, 40) == shuffled
    plain = golden["TrainingSampler(5, shuffle=False, seed=1)[:12]"]
    assert stream(TrainingSampler(shuffle=False), dicts_of([[]] * 5), 1, 12) == plain
    repeated = golden["RepeatFactorTrainingSampler(factors at 0.5, shuffle=True, seed=3)[:40]"]
    assert stream(RepeatFactorSampler(0.5), dicts_of(golden["repeat_factor_categories"]), 3, 40) == repeated
    blocks = golden["InferenceSampler._get_local_indices(11, 4, rank)"]
    assert [list(inference_indices(11, rank, 4)) for rank in range(4)] == blocks


def test_processes_share_one_stream():
    whole = stream(TrainingSampler(), dicts_of([[]] * 7), 1, 60)
    for rank in range(3):
        assert stream(TrainingSampler(), dicts_of([[]] * 7), 1, 20, rank, 3) == whole[rank::3]


def test_keys_tell_epoch_and_repeat():
    keys = list(islice(sample_keys(TrainingSampler(shuffle=False), dicts_of([[]] * 2), 0), 3))
    assert keys == [SampleKey(0, 0), SampleKey(0, 1), SampleKey(1, 0)]
    rare = dicts_of([[0], [1], [1], [1]])  # class 0 on a quarter of the images
    keys = list(islice(sample_keys(RepeatFactorSampler(1.0, sqrt=False, shuffle=False), rare, 0), 4))
    assert keys == [SampleKey(0, 0, 0), SampleKey(0, 0, 1), SampleKey(0, 0, 2), SampleKey(0, 0, 3)]


def test_repeat_factors_by_hand():
    # f(0) = 1/2, f(1) = 1/8 of eight images, threshold 1/2: sqrt(1) and sqrt(4)
    dicts = dicts_of([[0], [0], [0], [0, 1], [], [], [], []])
    assert repeat_factors(dicts, 0.5).tolist() == [1, 1, 1, 2, 1, 1, 1, 1]
    assert RepeatFactorSampler(0.5).epoch_length(dicts) == 9
    with pytest.raises(ValueError, match="repeat_threshold is 0"):
        RepeatFactorSampler(0)


def test_aspect_ratio_groups_equal_detectron2s(golden_data):
    golden = golden_data[1]["aspect_ratio_groups"]
    wide = is_wide([{"width": w, "height": h} for w, h in golden["width_height"]])
    keys = (SampleKey(0, i) for i in range(8))
    batches = group_batches(keys, golden["batch"], wide)
    assert [[key.index for key in batch] for batch in batches] == golden["batches"]


def test_a_plan_goes_on_where_another_stopped():
    dicts = [{"width": 5 + i % 3, "height": 6} for i in range(11)]

    def plan(start):
        return BatchPlan(lambda: sample_keys(TrainingSampler(), dicts, 4), 3, is_wide(dicts), start)

    whole = list(islice(plan(0), 40))
    for start in (0, 1, 17, 39):
        assert list(islice(plan(start), 40 - start)) == whole[start:]


def test_grouping_without_sizes_says_how_to_go_on():
    with pytest.raises(DataError, match=r"a\.png.*aspect_ratio_grouping: false"):
        is_wide([{"file_name": "a.png"}])


class Given(Sampler):
    """Yields what it was made with, for ever, unless told otherwise."""

    def __init__(self, epoch, length=1, times=None):
        self.epoch, self.length, self.times = epoch, length, times

    def epochs(self, dicts, seed):
        done = 0
        while self.times is None or done < self.times:
            yield self.epoch
            done += 1

    def epoch_length(self, dicts):
        return self.length


@pytest.mark.parametrize("epoch", [[2, 0, 1], (2, 0, 1), torch.tensor([2, 0, 1]), np.array([2, 0, 1], dtype=np.uint8)])
def test_a_sampler_may_yield_lists_and_tensors_of_integers(epoch):
    assert stream(Given(epoch), dicts_of([[]] * 3), 0, 4) == [2, 0, 1, 2]


@pytest.mark.parametrize(
    ("epoch", "words"),
    [
        ([0, 3], "epoch 1 has the index 3, expected 0 to 2: the dataset has 3 images"),
        ([-1, 0], "epoch 1 has the index -1, expected 0 to 2"),
        ([0.0, 1.0], r"epoch 1 is an array of shape \(2,\) and float64, expected a one-dimensional array of integers"),
        ([True, False, True], r"epoch 1 is an array of shape \(3,\) and bool, expected a one-dimensional array"),
        ([[0, 1]], r"epoch 1 is an array of shape \(1, 2\) and int64, expected a one-dimensional array"),
        ([[0], [1, 2]], "epoch 1 is a value of type list, expected a one-dimensional array"),
        (0, r"epoch 1 is a value of type int, expected .*\n  Yield the indices of a whole epoch at once"),
        (None, "epoch 1 is a value of type NoneType, expected"),
        ([], "epoch 1 has no indices, so that no batch would ever be full"),
    ],
)
def test_a_sampler_that_yields_something_else_is_named(epoch, words):
    with pytest.raises(PluginError, match=f"sampler Given: {words}"):
        stream(Given(epoch), dicts_of([[]] * 3), 0, 1)


def test_a_sampler_that_ends_is_told_how_to_go_on():
    with pytest.raises(PluginError, match=r"sampler Given: epochs ended after 2 of them.*\n.*while True: yield"):
        stream(Given([0, 1], times=2), dicts_of([[]] * 2), 0, 5)


def test_a_sampler_that_yields_nothing_is_named():
    class Returns(Sampler):
        def epochs(self, dicts, seed):
            return None

    with pytest.raises(PluginError, match="sampler Returns: epochs must yield one array of indices per epoch, got a"):
        stream(Returns(), dicts_of([[]]), 0, 1)


@pytest.mark.parametrize(("length", "words"), [(None, "a value of type NoneType"), (0, "0"), (float("inf"), "inf")])
def test_the_length_of_an_epoch_is_a_number_above_0(length, words):
    with pytest.raises(PluginError, match=f"sampler Given: epoch_length must return the mean .*, got {words}"):
        epoch_length_of(Given([0], length), dicts_of([[]]))
