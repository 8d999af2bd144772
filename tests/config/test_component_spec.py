import pytest

from vertebra.config import ComponentSpec, load_recipe
from vertebra.errors import DataError, RecipeError
from vertebra.registry import HEADS


def test_building_constructs_nested_components_and_injects_what_is_asked_for(write):
    write(
        "r.yaml",
        """
        _base_: base.yaml
        model:
          heads:
            boxes:
              box_loss: {name: SumLoss, parts: [DummyLoss, {name: DummyLoss, weight: 3}], named: {a: DummyLoss}}
              anchors: {name: DummyPart, sizes: [[1, 2], [3]]}
        """,
    )
    head = load_recipe("r.yaml").model.heads["boxes"].build(input_shape="shapes", num_classes=5, metadata="unused")
    assert head.input_shape == "shapes" and head.num_classes == 5
    assert head.cls_loss.weight == 2.0
    assert [part.weight for part in head.box_loss.parts] == [1.0, 3.0] and head.box_loss.named["a"].weight == 1.0
    assert head.anchors.sizes == [[1.0, 2.0], [3.0]]
    assert head.anchors.num_classes == 5  # nested parts are given what they ask for, too


def test_what_a_recipe_writes_goes_before_what_is_injected():
    loss = ComponentSpec("loss", "DummyLoss")
    head = ComponentSpec("head", "DummyHead", {"num_classes": 3, "cls_loss": loss})
    assert head.build(input_shape={}, num_classes=80).num_classes == 3


def test_open_constructors_are_not_given_what_they_do_not_name():
    built = ComponentSpec("backbone", "OpenBackbone", {"model": "x", "deep": 1}).build(num_classes=3)
    assert built.options == {"deep": 1}


def test_two_specs_that_differ_only_in_place_are_equal():
    assert ComponentSpec("loss", "X", {"a": 1}, "here:1") == ComponentSpec("loss", "X", {"a": 1}, "there:2")


def test_to_dict_is_what_a_recipe_would_write():
    nested = ComponentSpec("loss", "SumLoss", {"parts": [ComponentSpec("loss", "DummyLoss", {"weight": 2.0})]})
    assert nested.to_dict() == {"name": "SumLoss", "parts": [{"name": "DummyLoss", "weight": 2.0}]}
    dataset = ComponentSpec("format", "DummyFormat", {"annotations": "a", "images": "i", "name": "n"})
    assert dataset.to_dict() == {"format": "DummyFormat", "annotations": "a", "images": "i", "name": "n"}
    assert [spec.name for spec in nested.nested()] == ["DummyLoss"]


def test_an_error_in_a_constructor_names_the_recipes_line_and_the_codes(write):
    write("r.yaml", "_base_: base.yaml\nmodel:\n  heads:\n    boxes:\n      cls_loss: {weight: -1}\n")
    recipe = load_recipe("r.yaml")
    with pytest.raises(RecipeError) as caught:
        recipe.model.heads["boxes"].build(input_shape={}, num_classes=1)
    lines = str(caught.value).splitlines()
    assert lines[0] == "r.yaml:5: loss DummyLoss cannot be built: weight is -1.0, expected at least 0"
    assert lines[1].startswith("  Raised in ") and lines[1].endswith("(__init__)")
    assert isinstance(caught.value.__cause__, ValueError)


def test_other_errors_of_ours_keep_their_class():
    @HEADS.register()
    class NeedsData:
        component_kind = "head"

        def __init__(self) -> None:
            raise DataError("x.json: no record 3")

    with pytest.raises(DataError, match=r"r.yaml:7: head NeedsData: x.json: no record 3"):
        ComponentSpec("head", "NeedsData", where="r.yaml:7").build()


def test_a_missing_injection_is_named_with_where_it_is_known():
    loss = ComponentSpec("loss", "DummyLoss")
    with pytest.raises(
        RecipeError, match=r"(?s)head DummyHead takes `num_classes`.* not known here.*or write num_classes"
    ):
        ComponentSpec("head", "DummyHead", {"cls_loss": loss}).build(input_shape={})
