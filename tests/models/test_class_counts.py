"""Number of classes that each head is built for, where the recipe does not set it."""

import pytest
from torch import nn

from vertebra.config import load_recipe
from vertebra.models import Head, build_model
from vertebra.registry import HEADS
from vertebra.testing.inputs import make_metadata


class Counting(Head):
    """Only remembers how many classes it was built for."""

    def __init__(self, input_shape: dict, num_classes: int) -> None:
        super().__init__()
        self.layer = nn.Identity()
        self.num_classes = num_classes


@HEADS.register()
class CountingObjects(Counting):
    task_outputs = ("instances",)


@HEADS.register()
class CountingLabels(Counting):
    task_outputs = ("sem_seg",)


@HEADS.register()
class CountingBoth(Counting):
    task_outputs = ("instances", "sem_seg", "panoptic_seg")


@pytest.fixture
def recipe(tmp_path):
    heads = "a: CountingObjects, b: CountingLabels, c: CountingBoth, d: {name: CountingLabels, num_classes: 19}"
    path = tmp_path / "recipe.yaml"
    path.write_text(f"model: {{backbone: {{name: ResNet, depth: 18}}, heads: {{{heads}}}}}\n")
    return load_recipe(path)


def counts(model):
    return [head.num_classes for head in model.heads.values()]


def test_a_semantic_head_counts_all_labels_and_others_the_objects(recipe):
    metadata = make_metadata(num_things=3)  # and two kinds of stuff
    assert counts(build_model(recipe, metadata=metadata)) == [3, 5, 3, 19]


def test_a_count_that_is_given_goes_to_all_that_leave_it_out(recipe):
    assert counts(build_model(recipe, num_classes=7, metadata=make_metadata())) == [7, 7, 7, 19]
