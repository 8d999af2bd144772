"""Which levels a head or neck uses: in order, and checked in one place."""

import pytest

from vertebra.models import ShapeSpec, chosen_level, finest_first, same_channels

SHAPES = {
    "p5": ShapeSpec(channels=8, stride=32),
    "p3": ShapeSpec(channels=8, stride=8),
    "p4": ShapeSpec(channels=4, stride=16),
}


def test_levels_come_finest_first_however_they_are_named():
    assert finest_first("X", SHAPES) == ["p3", "p4", "p5"]
    assert finest_first("X", SHAPES, ["p5", "p3"]) == ["p3", "p5"]
    assert finest_first("X", SHAPES, doubling=True) == ["p3", "p4", "p5"]
    assert chosen_level("X", SHAPES, "p4") == "p4"
    assert same_channels("X", SHAPES, ["p3", "p5"]) == 8


@pytest.mark.parametrize(
    ("check", "says"),
    [
        (lambda: finest_first("X", {}), "X needs at least one level in input_shape, got none"),
        (
            lambda: finest_first("X", SHAPES, ["p3", "p6", "p7"]),
            "X: in_features names 'p6', 'p7', but the features are p5, p3, p4. Choose among these, or add to the "
            "backbone's out_features",
        ),
        (lambda: finest_first("X", SHAPES, [], argument="low_levels"), "X: low_levels is empty, but the features are"),
        (
            lambda: finest_first("X", SHAPES, ["p3", "p5"], doubling=True),
            r"X: the strides of p3, p5 are \[8, 32\]; each must be twice the one before. Choose the levels by in_feat",
        ),
        (lambda: chosen_level("X", SHAPES, "p2"), "X: in_feature names 'p2'"),
        (lambda: same_channels("X", SHAPES, ["p3", "p4"]), r"X shares its layers.*'p3': 8, 'p4': 4.*Put a neck"),
    ],
)
def test_levels_that_do_not_fit_are_named(check, says):
    with pytest.raises(ValueError, match=says):
        check()
