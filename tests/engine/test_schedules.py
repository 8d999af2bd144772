"""Schedules: Detectron2's learning rates step by step, and cases worked by hand."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vertebra.engine.schedules import FixedGamma, WarmupCosine, WarmupMultiStep, WarmupPoly

WARM = {"warmup_steps": 100, "warmup_factor": 0.001}
SCHEDULES = {
    "WarmupMultiStepLR": WarmupMultiStep([300, 600, 800], **WARM),
    "WarmupMultiStepLR_constant": WarmupMultiStep([300, 600, 800], warmup="constant", **WARM),
    "WarmupMultiStepLR_rescale": WarmupMultiStep([300, 600, 800], rescale=True, **WARM),
    "WarmupCosineLR": WarmupCosine(**WARM),
    "WarmupCosineLR_end": WarmupCosine(end_factor=0.01, **WARM),
    "WarmupStepWithFixedGammaLR": FixedGamma(num_decays=3, **WARM),
    "no_warmup": WarmupMultiStep([0.3, 0.6, 0.8], warmup_steps=0),
    "WarmupPolyLR": WarmupPoly(**WARM),
    "WarmupPolyLR_ending": WarmupPoly(constant_ending=0.1, **WARM),
}


@pytest.fixture(scope="module")
def golden(repository):
    return json.loads((repository / "tests/reference/learning_rates.json").read_text())


def test_every_golden_schedule_is_compared(golden):
    assert set(golden["cases"]) == set(SCHEDULES)


@pytest.mark.parametrize("name", SCHEDULES)
def test_learning_rates_equal_detectron2s(golden, name):
    ours = [golden["base_lr"] * SCHEDULES[name].factor(step, golden["max_iter"]) for step in golden["iterations"]]
    assert ours == pytest.approx(golden["cases"][name]["lr"], rel=1e-9, abs=1e-15)


def test_default_is_detectron2s_1x_schedule():
    schedule = WarmupMultiStep()
    rates = [schedule.factor(step, 90_000) for step in (0, 500, 1000, 59_999, 60_000, 79_999, 80_000, 89_999)]
    assert rates == pytest.approx([0.001, 0.001 + 0.999 * 0.5, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_default_warmup_takes_at_most_a_tenth_of_a_short_run():
    schedule = WarmupMultiStep()
    assert schedule.factor(19, 200) < 1
    assert schedule.factor(20, 200) == 1


def test_one_step_is_a_run_too():
    for schedule in (WarmupMultiStep(), WarmupCosine(), WarmupPoly(), FixedGamma()):
        assert schedule.factor(0, 1) == 1


@given(
    st.integers(1, 3000).flatmap(lambda total: st.tuples(st.integers(0, total - 1), st.just(total))),
    st.sampled_from([WarmupMultiStep(), WarmupCosine(), WarmupPoly(), FixedGamma(), WarmupMultiStep(rescale=True)]),
)
def test_factor_stays_between_zero_and_one(step_and_total, schedule):
    assert 0 < schedule.factor(*step_and_total) <= 1


def test_warmup_longer_than_the_run_is_an_error():
    with pytest.raises(ValueError, match="warmup_steps is 500, but the whole run has 300 steps"):
        WarmupMultiStep(warmup_steps=500).check(300)


def test_milestone_beyond_the_run_is_an_error():
    with pytest.raises(ValueError, match=r"milestones \[60000, 80000\] are beyond the 5000 steps of the run"):
        WarmupMultiStep(milestones=[60000, 80000]).check(5000)


def test_milestones_must_ascend():
    with pytest.raises(ValueError, match="must be positive and ascend"):
        WarmupMultiStep(milestones=[0.9, 0.5])
