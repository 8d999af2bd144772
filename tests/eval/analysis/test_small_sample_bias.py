"""How far few images push AP up, and Student's distribution."""

import numpy as np
import pytest

from vertebra_eval.analysis.small_sample_bias import small_sample_bias
from vertebra_eval.analysis.student import t_quantile, t_tails
from vertebra_eval.analysis.weighted_ap import RankedClass, mean_average_precision


def simulated(rng, images, per_image=1.0, recall=0.7, false=1.0):
    """A class whose hits score by N(1, 1) and whose false detections by N(0, 1)."""
    objects = rng.poisson(per_image, images)
    truth_image = np.repeat(np.arange(images), objects)
    hits = truth_image[rng.random(len(truth_image)) < recall]
    wrong = rng.integers(0, images, rng.poisson(false * images))
    score = np.concatenate([rng.normal(1, 1, len(hits)), rng.normal(0, 1, len(wrong))])
    order = np.argsort(-score)
    image = np.concatenate([hits, wrong])[order]
    hit = (order < len(hits))[:, None]
    return RankedClass(0, image, score[order], hit, np.zeros_like(hit), truth_image)


def ap(parts, images):
    return float(mean_average_precision(parts, np.ones((images, 1), np.int32))[0, 0])


@pytest.mark.parametrize(("images", "classes", "samples"), [(60, 1, 150), (4, 12, 60)], ids=["many", "few"])
def test_the_bias_is_that_of_repeated_samples(images, classes, samples):
    """Many objects a class, where smoothing matters, and few, where other classes do."""
    rng = np.random.default_rng(0)
    truth = ap([simulated(rng, 100_000)], 100_000)
    excess, expected = [], []
    for number in range(samples):
        parts = [part for part in (simulated(rng, images) for _ in range(classes)) if len(part.truth_image)]
        excess.append(ap(parts, images) - truth)
        expected.append(small_sample_bias(parts, images, np.random.default_rng(number)).mean())
    error = np.std(excess) / samples**0.5
    assert np.mean(excess) > 3 * error, "there is something to find"
    assert np.mean(expected) == pytest.approx(np.mean(excess), abs=2 * error + 0.2 * np.mean(excess))


def test_what_cannot_be_lucky_is_not_biased():
    rng = np.random.default_rng(1)
    for part in (simulated(rng, 50, recall=1.0, false=0.0), simulated(rng, 50, recall=0.0)):
        assert small_sample_bias([part], 50, rng) == pytest.approx(np.zeros((1, 1)), abs=1e-12)
    assert small_sample_bias([], 50, rng).shape == (0, 0)


def test_a_class_without_detections_has_none():
    nothing = np.zeros((0, 1), bool)
    part = RankedClass(0, np.zeros(0, int), np.zeros(0), nothing, nothing, np.array([0, 1]))
    assert small_sample_bias([part], 3, np.random.default_rng(0)).tolist() == [[0.0]]


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.7062), (2, 4.30265), (10, 2.22814), (30, 2.04227), (1e6, 1.95997)]
)
def test_student_against_a_printed_table(freedom, quantile):
    assert t_quantile(0.95, freedom) == pytest.approx(quantile, rel=1e-5)
    assert t_tails(quantile, freedom) == pytest.approx(0.05, rel=1e-4)
    assert t_tails(0, freedom) == pytest.approx(1)
