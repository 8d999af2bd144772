from itertools import islice

import pytest

from vertebra.data.batching import BatchPlan, group_batches, is_wide
from vertebra.data.samplers import (
    RepeatFactorSampler,
    SampleKey,
    TrainingSampler,
    inference_indices,
    repeat_factors,
    sample_keys,
)
from vertebra.errors import DataError


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
