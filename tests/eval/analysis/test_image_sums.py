"""Intervals and comparisons of segmentation, from what each image adds."""

import numpy as np
import pytest

from vertebra_eval.analysis import ImageSums, compare_measured, measured_intervals
from vertebra_eval.errors import DataError
from vertebra_eval.panoptic.counts import ImageCounts
from vertebra_eval.panoptic.quality import PanopticClass, panoptic_quality
from vertebra_eval.semantic import pixels_of_classes, semantic_scores

CLASSES = [PanopticClass(7, "cat", True), PanopticClass(8, "dog", True), PanopticClass(9, "sky", False)]


def panoptic_images(count, seed=0):
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        matched, false, missed = (rng.integers(0, 3, rng.integers(0, 5)) for _ in range(3))
        images.append(ImageCounts(matched, rng.uniform(0.5, 1, len(matched)), false, missed))
    return images


def pixel_sums(images=40, classes=3, seed=0, better=0.0, names=None):
    """Mostly right maps; each image has two of the classes."""
    rng = np.random.default_rng(0)
    there = np.argsort(rng.random((images, classes)), axis=1) < 2
    true = np.where(there, rng.integers(1000, 5000, there.shape), 0)
    share = np.clip(0.7 + better + 0.1 * np.random.default_rng([1, seed]).normal(size=there.shape), 0, 1)
    both = (true * share).astype(int)
    predicted = both + np.where(there, (true - both)[:, ::-1], 0)
    names = names or [f"{number}.png" for number in range(images)]
    return ImageSums.of_pixels(names, [f"class {c}" for c in range(classes)], np.stack([both, true, predicted], axis=1))


def test_panoptic_values_are_the_metrics():
    images = panoptic_images(30)
    quality = panoptic_quality(CLASSES, images)
    sums = ImageSums.of_panoptic([str(number) for number in range(30)], quality.classes, quality.counts)
    for name, value in sums.values().items():
        assert value == pytest.approx(quality.metrics[f"panoptic/{name}"], abs=1e-12), name


def test_a_class_that_is_only_predicted_counts_as_zero_and_is_not_expected_to():
    """As a metric it is 0; of many images, where it has objects, it would not be."""
    nothing = np.zeros(0, int)
    images = [ImageCounts(np.array([0]), np.array([0.9]), nothing, nothing) for _ in range(5)]
    images[0].false = np.array([1])
    quality = panoptic_quality(CLASSES, images)
    sums = ImageSums.of_panoptic(list("abcde"), quality.classes, quality.counts)
    assert sums.values()["PQ"] == quality.metrics["panoptic/PQ"] == pytest.approx(0.45)
    assert sums.bias(np.random.default_rng(0))["PQ"] == pytest.approx(-0.45)


def test_semantic_values_are_the_metrics():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 50, (20, 4, 5))
    counts[:, 3] = 0  # a class without ground truth
    boundary = np.stack([counts[:, :3, 0].min(axis=1)] * 3, axis=1)
    boundary = np.repeat(np.array([1, 3, 2])[None, :, None], 20, axis=0) * np.ones((20, 3, 4), int)
    scores = semantic_scores(counts.sum(axis=0), boundary.sum(axis=0), list("abcd"))
    pixels = np.stack([pixels_of_classes(image) for image in counts])
    sums = ImageSums.of_pixels([str(n) for n in range(20)], list("abcd"), pixels, boundary)
    for name, value in sums.values().items():
        assert value == pytest.approx(scores.metrics[f"sem_seg/{name}"], abs=1e-12), name


def test_the_bias_of_a_ratio_is_that_of_repeated_samples():
    """Exponential areas and an IoU that falls with the area: the ratio of sums is below its limit."""
    rng = np.random.default_rng(0)

    def sample(images):
        true = rng.exponential(1000, (images, 1)).round() + 1
        return np.stack([(true * np.exp(-true / 2000)).round(), true, true], axis=1)

    truth = ImageSums.of_pixels([""] * 200_000, ["a"], sample(200_000)).values()["mIoU"]
    found = [ImageSums.of_pixels([""] * 10, ["a"], sample(10)) for _ in range(3000)]
    excess = np.mean([sums.values()["mIoU"] for sums in found]) - truth
    expected = np.mean([sums.bias(rng)["mIoU"] for sums in found])
    assert abs(excess) > 0.005 and expected == pytest.approx(excess, rel=0.35)


def test_intervals_hold_and_shrink():
    few, many = (measured_intervals(pixel_sums(count)) for count in (40, 640))
    for name, (low, high) in few.items():
        assert low < pixel_sums(40).values()[name] < high
        assert high - low > 2 * (many[name][1] - many[name][0])
    assert few == measured_intervals(pixel_sums(40)) != measured_intervals(pixel_sums(40), seed=1)


def test_an_interval_from_0_to_1_is_none():
    """Three images with an IoU of 0.05, 0.5 and 0.95: anything is possible."""
    pixels = np.array([[[5], [100], [100]], [[50], [100], [100]], [[95], [100], [100]]])
    found = measured_intervals(ImageSums.of_pixels(list("abc"), ["class"], pixels))
    assert "mean_accuracy" not in found and any("it would reach from 0 to 1" in note for note in found.notes)


def test_no_resamples_give_no_intervals():
    found = measured_intervals(pixel_sums(), resamples=0)
    assert found == {} and found.notes == []


def test_comparison_of_one_and_of_several_runs():
    same = compare_measured([pixel_sums(seed=1)], [pixel_sums(seed=2)])
    better = compare_measured([pixel_sums(seed=1)], [pixel_sums(seed=2, better=0.15)])
    assert next(iter(same.differences)) == "mIoU" and same.differences["mIoU"].is_noise
    assert not better.differences["mIoU"].is_noise
    sides = [[pixel_sums(seed=2 * s + side, better=0.15 * side) for s in range(3)] for side in (0, 1)]
    several = compare_measured(*sides)
    assert several.covers_seeds and not several.differences["mIoU"].is_noise
    own = compare_measured([pixel_sums()], [pixel_sums()]).differences["mIoU"]
    assert (own.difference, own.p_value) == (0, 1)


def test_other_ground_truth_is_not_compared():
    with pytest.raises(DataError, match="different ground truth: images"):
        compare_measured([pixel_sums()], [pixel_sums(names=[f"other {n}" for n in range(40)])])
    changed = pixel_sums()
    changed.columns["true"][0, 0] += 1
    with pytest.raises(DataError, match="true pixels of each image and class"):
        compare_measured([pixel_sums()], [changed])


def test_a_file_comes_back_as_it_was(tmp_path):
    sums = pixel_sums()
    sums.write(tmp_path / "sums.npz")
    again = ImageSums.read(tmp_path / "sums.npz")
    assert (again.task, list(again.images), list(again.classes)) == ("sem_seg", list(sums.images), list(sums.classes))
    assert all((again.columns[name] == column).all() for name, column in sums.columns.items())
    assert measured_intervals(again) == measured_intervals(sums)


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x05\x06" + bytes(18)])
def test_files_that_are_no_sums_are_refused(tmp_path, content):
    (tmp_path / "sums.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"sums.npz: not the image sums of an evaluation .*; evaluate again"):
        ImageSums.read(tmp_path / "sums.npz")


def test_damaged_bytes_are_one_message(tmp_path):
    """Every byte in the first part of a file, and every fifth later, changed by itself."""
    pixel_sums(images=4).write(tmp_path / "whole.npz")
    content = (tmp_path / "whole.npz").read_bytes()
    refused = 0
    for place in [*range(200), *range(200, len(content), 5)]:
        changed = bytearray(content)
        changed[place] ^= 0x55
        (tmp_path / "sums.npz").write_bytes(changed)
        try:
            ImageSums.read(tmp_path / "sums.npz")
        except DataError as err:
            assert str(err).startswith(f"{tmp_path}/sums.npz: not the image sums")
            refused += 1
    assert refused > 150


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"both": np.full((4, 3), np.nan)}, "column both has values that are not finite numbers from 0 on"),
        ({"true": np.full((4, 3), -1)}, "column true has values"),
        ({"both": np.full((4, 3), 10**6)}, "column both exceeds column true"),
        ({"both": np.full((4, 3), 1j)}, "column both is complex128 of shape"),
        ({"true": np.zeros((4, 2))}, r"column true is float64 of shape \(4, 2\); expected numbers"),
        ({"things": np.zeros(3)}, "things is float64"),
        ({"task": np.array("depth")}, "unknown task 'depth'"),
        ({"predicted": None}, "column predicted is missing"),
    ],
)
def test_values_that_make_no_sense_are_refused(tmp_path, change, said):
    sums = pixel_sums(images=4)
    arrays = {"task": np.array("sem_seg"), "things": sums.things, "images": np.array(sums.images)}
    arrays |= {"classes": np.array(sums.classes), **sums.columns, **change}
    np.savez(tmp_path / "sums.npz", **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(DataError, match=said):
        ImageSums.read(tmp_path / "sums.npz")


def test_a_header_that_claims_more_than_the_file_has(tmp_path):
    sums = pixel_sums(images=4)
    np.savez(tmp_path / "sums.npz", task=np.array("sem_seg"), things=sums.things, images=np.array(sums.images))
    content = (tmp_path / "sums.npz").read_bytes()
    assert b"(4,)" in content
    (tmp_path / "sums.npz").write_bytes(content.replace(b"(4,)", b"(9,)"))
    with pytest.raises(DataError, match="not the image sums"):
        ImageSums.read(tmp_path / "sums.npz")


def test_objects_in_a_file_are_not_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "touched"), "w")

    np.savez(tmp_path / "sums.npz", task=np.array([Evil()], dtype=object))
    with pytest.raises(DataError, match="not the image sums of an evaluation"):
        ImageSums.read(tmp_path / "sums.npz")
    assert not (tmp_path / "touched").exists()
