"""AP of weighted images, intervals, and the paired comparison."""

import numpy as np
import pytest

from vertebra.errors import DataError
from vertebra_eval.analysis import bootstrap_intervals, compare_matches
from vertebra_eval.analysis.intervals import resample_weights
from vertebra_eval.analysis.measured import MeasuredAP
from vertebra_eval.analysis.weighted_ap import Judged, mean_average_precision, rank_classes
from vertebra_eval.coco import coco_evaluate, read_ground_truth
from vertebra_eval.evaluate_results import match_results


def repeated(truth, results, times):
    """Ground truth and results in which image i comes times[i] times, as images of their own, in the same order."""
    rows = {image["id"]: [] for image in truth["images"]}
    for image, count in zip(truth["images"], times, strict=True):
        rows[image["id"]] = [image["id"] * 1000 + copy for copy in range(count)]
    images = [image | {"id": new} for image in truth["images"] for new in rows[image["id"]]]
    annotations = [a | {"image_id": new} for a in truth["annotations"] for new in rows[a["image_id"]]]
    annotations = [a | {"id": number} for number, a in enumerate(annotations, start=1)]
    found = [r | {"image_id": new} for r in results for new in rows[r["image_id"]]]
    return truth | {"images": images, "annotations": annotations}, found


def test_weights_of_one_give_coco_ap_to_rounding(hand):
    truth, results = hand.many(40, seed=1)
    expected = coco_evaluate(truth, results, "bbox")
    values = mean_average_precision(rank_classes(Judged.of(hand.match(truth, results))), np.ones((40, 1), np.int32))
    assert values.mean() == pytest.approx(expected["bbox/AP"], abs=1e-12)
    assert values[0, 0] == pytest.approx(expected["bbox/AP50"], abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_a_weight_is_the_image_so_many_times(hand, seed):
    """Among them zeros, so that classes lose all objects, and ties in score between copies."""
    truth, results = hand.many(9, seed, classes=("cat", "dog", "owl"))
    weights = np.random.default_rng(seed).integers(0, 3, (9, 5))
    values = mean_average_precision(rank_classes(Judged.of(hand.match(truth, results))), weights)
    for column in range(5):
        expected = coco_evaluate(*repeated(truth, results, weights[:, column]), "bbox")
        assert values[:, column].mean() == pytest.approx(expected["bbox/AP"], abs=1e-12)


def test_a_resample_without_objects_has_no_ap(hand):
    truth = hand.truth([(1, 1, (0, 0, 20, 20))], images=[1, 2])
    matches = hand.match(truth, hand.results([(1, 1, (0, 0, 20, 20), 0.9)]))
    values = mean_average_precision(rank_classes(Judged.of(matches)), np.array([[0, 2], [2, 0]]))
    assert np.isnan(values[:, 0]).all() and (values[:, 1] == 1).all()


def test_images_that_all_agree_tell_nothing(hand):
    """An AP of 1 on two images is not 1 on all."""
    box = (0, 0, 20, 20)
    truth = hand.truth([(1, 1, box), (2, 1, box)], images=[1, 2])
    truth["categories"] = truth["categories"][:1]
    found = bootstrap_intervals(hand.match(truth, hand.results([(1, 1, box, 0.9), (2, 1, box, 0.9)])))
    assert found == {} and found.notes == [
        "no interval of AP, AP50, AP75: all images agree, so their spread is unknown"
    ]


def test_real_results_weighted_by_one_equal_the_reference(shared):
    folder = shared("data/cocoeval_sample/val2014_100")
    truth = read_ground_truth(folder / "gt_instances.json", "bbox")
    matches = match_results(folder / "det_bbox.json", truth, "bbox").result.matches
    values = mean_average_precision(rank_classes(Judged.of(matches)), np.ones((truth.num_images, 1), np.int32))
    assert values.mean() == pytest.approx(0.5045806987249628, abs=1e-12)  # pycocotools 2.0.11


def test_weights_draw_as_many_images_as_there_are():
    weights = resample_weights(np.random.default_rng(0), 7, 20)
    assert weights.shape == (7, 20) and (weights.sum(axis=0) == 7).all() and weights.min() == 0


def test_intervals_are_seeded_hold_the_number_and_shrink_with_images(hand):
    few, many = (hand.match(*hand.many(count, seed=5)) for count in (30, 480))
    a, b = bootstrap_intervals(few, resamples=300), bootstrap_intervals(few, resamples=300)
    assert a == b != bootstrap_intervals(few, resamples=300, seed=1)
    width = {name: high - low for name, (low, high) in a.items()}
    for name, (low, high) in bootstrap_intervals(many, resamples=300).items():
        assert 0 <= low < high <= 1 and high - low < width[name] / 2
    value = coco_evaluate(*hand.many(30, seed=5), "bbox")
    assert all(low <= value[f"bbox/{name}"] <= high for name, (low, high) in a.items())


def test_one_image_or_no_object_gives_no_interval(hand):
    box = (0, 0, 20, 20)
    assert bootstrap_intervals(hand.match(hand.truth([(1, 1, box)]), hand.results([(1, 1, box, 0.9)]))) == {}
    crowd = hand.truth([(1, 1, box, True)], images=[1, 2])
    found = bootstrap_intervals(hand.match(crowd, hand.results([(1, 1, box, 0.9)])))
    assert found == {} and "at least two images, and objects" in found.notes[0]


def test_a_run_compared_with_itself_is_no_difference(hand):
    matches = hand.match(*hand.many(30, seed=2))
    found = compare_matches(matches, matches, resamples=200)
    for one in found.differences.values():
        assert (one.difference, one.low, one.high, one.p_value) == (0, 0, 0, 1) and one.is_noise
    assert "no difference" in found.verdict("A", "B")


def test_a_far_better_run_is_more_than_noise_either_way_round(hand):
    (truth, worse), (_, better) = hand.many(120, seed=1, quality=0.4), hand.many(120, seed=2, quality=0.9)
    first, second = hand.match(truth, worse), hand.match(truth, better)
    up, down = compare_matches(first, second, resamples=300), compare_matches(second, first, resamples=300)
    a, b = up.differences["AP"], down.differences["AP"]
    assert a.difference == pytest.approx(-b.difference) and a.difference > 0.1
    assert a.low > 0 and b.high < 0 and a.p_value == pytest.approx(b.p_value, rel=1e-9) and a.p_value < 1e-5
    assert "above that of old" in up.verdict("old", "new") and "more than noise" in up.verdict("old", "new")
    assert "below that of new" in down.verdict("new", "old")


def test_runs_of_the_same_quality_are_noise(hand):
    """Of 12 pairs at the level 0.05, more than 4 called real has a chance below one in 1000."""
    truth, _ = hand.many(60, seed=0)
    real = 0
    for seed in range(12):
        a, b = (hand.match(truth, hand.many(60, seed=100 + 2 * seed + side)[1]) for side in (0, 1))
        found = compare_matches(a, b, resamples=100)
        real += not found.differences["AP"].is_noise
        assert ("within noise" in found.verdict("A", "B")) == found.differences["AP"].is_noise
    assert real <= 4


def test_different_ground_truth_is_not_compared(hand):
    matches = hand.match(*hand.many(10, seed=0))
    other = hand.match(*hand.many(10, seed=0, objects_seed=7))
    with pytest.raises(DataError, match="different ground truth"):
        compare_matches(matches, other)


def test_pooled_categories_are_one_class(hand):
    truth, results = hand.many(40, seed=3, classes=("cat", "dog", "owl"))
    expected = coco_evaluate(truth, results, "bbox", use_categories=False)
    measured = MeasuredAP(expected.result.matches)
    assert measured.values()["AP"] == pytest.approx(expected["bbox/AP"], abs=1e-12)
    assert measured.num_classes["AP"] == 1


def test_classes_that_do_not_occur_cost_the_interval(hand):
    """Of 40 classes 3 occur; what the others would be is unknown."""
    truth, results = hand.many(40, seed=3, classes=("cat", "dog", "owl"))
    known = truth["categories"]
    truth["categories"] = known + [{"id": 100 + number, "name": f"rare {number}"} for number in range(37)]
    found = bootstrap_intervals(hand.match(truth, results))
    assert found == {} and "37 of 40 classes do not occur in these 40 images" in found.notes[0]


def test_several_runs_a_side(hand):
    """Images alone call it real; the spread of the seeds says otherwise. Where they agree, it stays real."""
    truth, _ = hand.many(80, seed=0)

    def run(quality, seed):
        return hand.match(truth, hand.many(80, seed=seed, quality=quality)[1])

    apart = compare_matches([run(0.5, 1), run(0.9, 2)], [run(0.9, 3), run(0.7, 4)], resamples=200)
    assert compare_matches(run(0.5, 1), run(0.9, 3), resamples=200).differences["AP"].p_value < 1e-4
    assert apart.runs == (2, 2) and apart.covers_seeds and apart.differences["AP"].is_noise
    assert "over 80 images and 2 and 2 runs" in apart.verdict("old", "new")
    agree = compare_matches([run(0.5, 1), run(0.5, 2), run(0.5, 5)], [run(0.9, 3), run(0.9, 4)], resamples=200)
    assert agree.runs == (3, 2) and not agree.differences["AP"].is_noise
    one = compare_matches(run(0.5, 1), [run(0.9, 3), run(0.9, 4)], resamples=200)
    assert one.covers_seeds and one.differences["AP"].difference > 0.1
