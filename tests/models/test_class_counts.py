"""Number of classes that each head is built for, where the recipe does not set it."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from vertebra._deprecation import VertebraDeprecationWarning
from vertebra.config import load_recipe
from vertebra.config.injection import labels_of
from vertebra.data import Metadata
from vertebra.errors import VertebraError
from vertebra.models import Head, Loss, build_model
from vertebra.models.follow_classes import follow_classes
from vertebra.registry import HEADS, LOSSES
from vertebra.testing.inputs import make_metadata


class Counting(Head):
    """Only remembers how many classes it was built for."""

    def __init__(self, input_shape: dict, num_classes: int, *, loss: Loss | None = None) -> None:
        super().__init__()
        self.layer = nn.Linear(1, num_classes)
        self.num_classes = num_classes
        self.loss = loss


@HEADS.register()
class CountingObjects(Counting):
    task_outputs = ("instances",)


@HEADS.register()
class CountingLabels(Counting):
    task_outputs = ("sem_seg",)
    labels = "stuff"


@HEADS.register()
class CountingAll(Counting):
    task_outputs = ("panoptic_seg",)
    labels = "all"


@HEADS.register()
class CountingBoth(Counting):
    task_outputs = ("instances", "sem_seg", "panoptic_seg")


@HEADS.register()
class CountingAsBefore(Counting):
    task_outputs = ("sem_seg",)


@HEADS.register()
class CountingInside(Head):
    """A head of heads."""

    def __init__(self, input_shape: dict, *, parts: list[Head]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)


@HEADS.register()
class CountingInsideAndItself(Counting):
    def __init__(self, input_shape: dict, num_classes: int, *, parts: list[Head]) -> None:
        super().__init__(input_shape, num_classes)
        self.parts = nn.ModuleList(parts)


@LOSSES.register()
class LossThatCounts(Loss):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes


@pytest.fixture
def recipe(tmp_path):
    def recipe(heads):
        path = tmp_path / "recipe.yaml"
        path.write_text(f"model: {{backbone: {{name: ResNet, depth: 18}}, heads: {{{heads}}}}}\n")
        return load_recipe(path)

    return recipe


HEADS_OF_EACH_SORT = (
    "a: CountingObjects, b: CountingLabels, c: CountingBoth, d: CountingAll, e: {name: CountingLabels, num_classes: 19}"
)


def counts(model):
    return [head.num_classes for head in model.heads.modules() if isinstance(head, Counting)]


def test_each_head_gets_the_number_of_the_classes_that_it_asks_for(recipe):
    metadata = make_metadata(num_things=3)  # and two kinds of stuff; the labels begin with the things
    assert counts(build_model(recipe(HEADS_OF_EACH_SORT), metadata=metadata)) == [3, 5, 3, 5, 19]
    one_label_for_things = SimpleNamespace(thing_classes=list("abc"), stuff_classes=["things", "sky", "grass"])
    assert counts(build_model(recipe(HEADS_OF_EACH_SORT), metadata=one_label_for_things)) == [3, 3, 3, 5, 19]


@pytest.mark.parametrize("key", ["thing_classes", "stuff_classes"])
def test_where_a_dataset_has_one_sort_of_classes_all_heads_count_those(recipe, key):
    metadata = SimpleNamespace(**{key: list("abcd")})
    assert counts(build_model(recipe(HEADS_OF_EACH_SORT), metadata=metadata)) == [4, 4, 4, 4, 19]


def test_a_count_that_is_given_goes_to_all_that_leave_it_out(recipe):
    model = build_model(recipe(HEADS_OF_EACH_SORT), num_classes=7, metadata=make_metadata())
    assert counts(model) == [7, 7, 7, 7, 19]


INSIDE = "parts: [CountingObjects, CountingLabels, {name: CountingLabels, num_classes: 19}]"


def test_heads_inside_a_head_ask_for_their_own(recipe):
    nested = recipe(f"all: {{name: CountingInside, {INSIDE}}}")
    assert counts(build_model(nested, metadata=make_metadata(3))) == [3, 5, 19]
    assert counts(build_model(nested, num_classes=7, metadata=make_metadata(3))) == [7, 5, 19]
    assert counts(build_model(nested, num_classes=7)) == [7, 7, 19]


def test_a_number_written_at_a_head_of_heads_holds_for_those_inside_that_count_the_same(recipe):
    nested = recipe(f"all: {{name: CountingInsideAndItself, num_classes: 9, {INSIDE}}}")
    assert counts(build_model(nested, metadata=make_metadata(3))) == [9, 9, 5, 19]


def test_a_loss_counts_as_its_head_does(recipe):
    heads = (f"{name}: {{name: {name}, loss: LossThatCounts}}" for name in ("CountingObjects", "CountingLabels"))
    model = build_model(recipe(", ".join(heads)), metadata=make_metadata(3))
    assert [head.loss.num_classes for head in model.heads.values()] == [3, 5]


def test_a_semantic_head_written_before_counts_as_it_did_and_is_asked_to_say_so(recipe):
    with pytest.warns(VertebraDeprecationWarning, match=r'CountingAsBefore .*`labels = "stuff"`.*vertebra 0\.3'):
        model = build_model(recipe("a: CountingAsBefore"), metadata=make_metadata(3))
    assert counts(model) == [5]


@pytest.mark.parametrize("labels", ["thing", ("stuff",), None])
def test_a_head_that_asks_for_something_else_is_refused(recipe, labels):
    cls = type("CountingWrongly", (Counting,), {"labels": labels})
    with pytest.raises(VertebraError, match=r"CountingWrongly: labels is .*'things' or 'stuff' or 'all'"):
        labels_of(cls)


@pytest.mark.parametrize(
    "labels", [["cat", "dog", "sky", "road"], ["things", "sky", "road"]], ids=["things first", "one label for things"]
)
def test_weights_of_a_head_for_all_classes_follow_things_and_stuff_by_name(recipe, labels):
    before = Metadata("before").set(thing_classes=["cat", "dog"], stuff_classes=labels)
    after = Metadata("after").set(thing_classes=["dog", "cow", "cat"], stuff_classes=["things", "road", "grass", "sky"])
    all_heads = recipe("a: CountingAll, b: CountingObjects")
    old, new = (build_model(all_heads, metadata=metadata) for metadata in (before, after))
    with torch.no_grad():
        old.heads["a"].layer.bias.copy_(torch.tensor([1.0, 2, 3, 4]))  # cat, dog, sky, road
        old.heads["b"].layer.bias.copy_(torch.tensor([1.0, 2]))
        for name in "ab":
            new.heads[name].layer.bias.zero_()
    found, anew = follow_classes(new, all_heads, old.state_dict(), before, after)
    assert not anew
    assert found["heads.a.layer.bias"].tolist() == [2, 0, 1, 4, 0, 3]  # dog, cow, cat, road, grass, sky
    assert found["heads.b.layer.bias"].tolist() == [2, 0, 1]
