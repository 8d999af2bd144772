"""Every mistake is reported with file and line, what was expected, and the nearest right name."""

import pytest

from vertebra.config import load_recipe
from vertebra.errors import PluginError, RecipeError


def mistakes_of(write, text: str, overrides=()) -> str:
    write("r.yaml", text)
    with pytest.raises(RecipeError) as caught:
        load_recipe("r.yaml", overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modle: 1", "r.yaml:2: modle: a recipe has no such key.\n  Nearest: model"),
        ("train: {batchsize: 4}", "r.yaml:2: train.batchsize: section train has no such key.\n  Nearest: batch_size"),
        ("train: 3", "r.yaml:2: section train is 3, expected a block of `key: value` lines"),
        ("train: {batch_size: four}", 'r.yaml:2: train.batch_size is "four", expected int'),
        ("train: {batch_size: 2.0}", "r.yaml:2: train.batch_size is 2.0, expected int.\n  Write 2"),
        ("train: {batch_size: true}", "r.yaml:2: train.batch_size is true, expected int"),
        ("train: {batch_size: 0}", "r.yaml:2: train.batch_size is 0, expected at least 1"),
        ("train: {steps: 90_000}", 'r.yaml:2: train.steps is "90_000", expected int or null.\n  Write 90000'),
        ("train: {amp: fp15}", 'r.yaml:2: train.amp is "fp15", expected "auto" or "bf16" or "fp16" or "off".\n'
         "  Nearest: fp16"),
        ("train: {compile: yes}", 'r.yaml:2: train.compile is "yes", expected true or false.\n  Write true'),
        ("train: {device: 0}", "r.yaml:2: train.device is 0, expected text.\n  Put it in quotes"),
        ("train: {checkpoint_every: 2 weeks}",
         'r.yaml:2: train.checkpoint_every is "2 weeks", expected a number of steps, or text like "1 epoch"'),
        ("train:\n  steps: 5\n  epochs: 2", "r.yaml:4: train.epochs is 2, but steps is 5 too; expected one of the two"),
        ("train: {epochs: 0}", "r.yaml:2: train.epochs is 0, expected a number above 0"),
        ("model: {pixel_mean: [1, 2]}",
         "r.yaml:2: model.pixel_std has 3 values, but pixel_mean has 2"),
        ("model: {pixel_mean: [1, 2, x]}", 'r.yaml:2: model.pixel_mean.2 is "x", expected float'),
        ("model: {pixel_std: [1, 0, 1]}", "r.yaml:2: model.pixel_std is [1.0, 0.0, 1.0], expected numbers above 0"),
        ("model: {heads: {boxes: null}}", "r.yaml:2: model.heads is empty, expected at least one head"),
        ("model: {heads: {my-head: {name: DummyHead, cls_loss: DummyLoss}}}",
         "r.yaml:2: model.heads has a head called 'my-head', expected letters, digits and _"),
        ("model: {backbone: null}", "r.yaml:2: model.backbone is null, expected a name, or a block {name: ..., ...}"),
        ("model: {neck: 5}", "r.yaml:2: model.neck is 5, expected a neck or null"),
        ("model:\n  backbone: {dpeth: 18}",
         "r.yaml:3: model.backbone.dpeth: DummyBackbone has no such argument.\n  Nearest: depth"),
        ("model: {backbone: {depth: 19}}", "r.yaml:2: model.backbone.depth is 19, expected 18 or 50"),
        ("model: {backbone: {name: DummyBackbon}}",
         "r.yaml:2: model.backbone: no backbone has the name 'DummyBackbon'.\n  Nearest: DummyBackbone"),
        ("model: {backbone: DummyHead}", "r.yaml:2: model.backbone: DummyHead is a head; you asked for a backbone"),
        ("model: {backbone: {width: 4}}",
         "r.yaml:2: model.backbone.width is 4: input should be greater than or equal to 8"),
        ("model: {backbone: {norm: 5}}", "r.yaml:2: model.backbone.norm is 5, expected text or null"),
        ("model: {backbone: {out_features: res3}}",
         'r.yaml:2: model.backbone.out_features is "res3", expected a list of text'),
        ("model: {backbone: {opaque: 1}}",
         "r.yaml:2: model.backbone.opaque cannot be written in a recipe: it must be Opaque or null"),
        ("model: {backbone: {table: {a: x}}}", 'r.yaml:2: model.backbone.table.a is "x", expected int'),
        ("model: {backbone: {color: blue}}", 'r.yaml:2: model.backbone.color is "blue", expected "red"'),
        ("model: {backbone: {size: [1, x]}}", 'r.yaml:2: model.backbone.size.1 is "x", expected int'),
        ("model: {backbone: {size: big}}", 'r.yaml:2: model.backbone.size is "big", expected int or a list of int'),
        ("model: {heads: {boxes: {input_shape: 1}}}",
         "r.yaml:2: model.heads.boxes.input_shape is set by the framework; remove it from the recipe"),
        ("model: {heads: {boxes: {cls_loss: {wieght: 1}}}}",
         "r.yaml:2: model.heads.boxes.cls_loss.wieght: DummyLoss has no such argument.\n  Nearest: weight"),
        ("model: {heads: {boxes: {cls_loss: {name: DummyPart}}}}",
         "r.yaml:2: model.heads.boxes.cls_loss: DummyPart is a part; you asked for a loss"),
        ("model: {heads: {boxes: {anchors: OtherPart}}}",
         "r.yaml:2: model.heads.boxes.anchors: OtherPart is a part, but not a DummyPart, which is expected here"),
        ("model: {heads: {boxes: {box_loss: {name: SumLoss, parts: [DummyLoss, {weight: 1}]}}}}",
         "r.yaml:2: model.heads.boxes.box_loss.parts.1: the loss's `name` is missing (written: weight)"),
        ("model: {heads: {two: {name: DummyHead}}}",
         "r.yaml:2: model.heads.two.cls_loss is missing; DummyHead needs it: a loss (DummyLoss)"),
        ("data: {train: {format: DummyFormat, annotations: a, imagse: i}}",
         "r.yaml:2: data.train.imagse: DummyFormat has no such argument.\n  Nearest: images"),
        ("data: {val: {annotations: a}}",
         "r.yaml:2: data.val: the format's `format` is missing (written: annotations)"),
        ("data: {val: [x, 3]}", "r.yaml:2: data.val.1 is 3, expected text or a format"),
        ("data: {train_transforms: DummyFlip}", 'r.yaml:2: data.train_transforms is "DummyFlip", expected a list of'),
        ("evaluate: {evaluators: [{name: DummyEvaluator, tasks: [bbx]}]}",
         'r.yaml:2: evaluate.evaluators.0.tasks.0 is "bbx", expected "bbox" or "segm".\n  Nearest: bbox'),
        ("evaluate: {evaluators: [{name: DummyEvaluator, dataset: x}]}",
         "r.yaml:2: evaluate.evaluators.0.dataset is set by the framework"),
        ("seed: -1", "r.yaml:2: seed is -1, expected at least 0"),
    ],
)  # fmt: skip
def test_one_mistake_is_told_in_words(write, text, message):
    assert mistakes_of(write, f"_base_: base.yaml\n{text}\n").startswith(message)


def test_all_mistakes_of_a_recipe_come_in_one_error(write):
    text = """\
_base_: base.yaml
modle: {}
model:
  backbone: {depth: x, nrom: bn}
  heads:
    boxes: {cls_loss: {name: Focal}}
train: {batch_size: 0, amp: on}
data:
  workers: -1
"""
    message = mistakes_of(write, text, ["evaluate.splt=val"])
    lines = [line for line in message.splitlines() if not line.startswith("  ")]
    assert lines[0] == "8 mistakes in r.yaml:"
    starts = ["r.yaml:2", "override", "r.yaml:4", "r.yaml:6", "r.yaml:7", "r.yaml:9"]
    assert {start: sum(line.startswith(start) for line in lines) for start in starts} == {
        "r.yaml:2": 1, "override": 1, "r.yaml:4": 2, "r.yaml:6": 1, "r.yaml:7": 2, "r.yaml:9": 1
    }  # fmt: skip


def test_a_mistake_in_a_base_names_the_base(write):
    write("lib/bad.yaml", "_base_: ../base.yaml\n\ntrain:\n  batch_size: x\n")
    assert mistakes_of(write, "_base_: lib/bad.yaml\ntrain: {log_every: 5}").startswith(
        "lib/bad.yaml:4: train.batch_size"
    )


def test_a_mistake_in_an_override_quotes_it(write):
    message = mistakes_of(write, "_base_: base.yaml", ["train.batch_size=x"])
    assert message == "override 'train.batch_size=x': train.batch_size is \"x\", expected int"


def test_a_recipe_without_a_model_says_so(write):
    assert "r.yaml:1: model is missing; a recipe needs it" in mistakes_of(write, "seed: 1")


def test_annotations_for_type_checkers_only_are_the_plugins_fault(write):
    write("r.yaml", "_base_: base.yaml\nmodel: {heads: {boxes: {name: BrokenHead}}}")
    with pytest.raises(PluginError, match=r"annotations of .*BrokenHead.__init__ cannot be resolved: name 'NotIm"):
        load_recipe("r.yaml")


def test_a_local_plugin_that_fails_is_told_with_its_line_and_its_own_traceback_last(write):
    write("bad.py", "1 / 0\n")
    write("r.yaml", "_base_: base.yaml\nplugins: [bad.py, gone.py]\n")
    with pytest.raises(PluginError) as caught:
        load_recipe("r.yaml")
    lines = str(caught.value).splitlines()
    assert lines[0] == "2 mistakes in r.yaml:"
    assert lines[1].startswith("r.yaml:2: plugins: local plugin ") and "ZeroDivisionError: division by zero" in lines[1]
    assert "gone.py: no such file" in lines[2]
    assert lines[-1].strip() == "ZeroDivisionError: division by zero"


def test_an_installed_plugins_name_in_plugins_is_explained(write):
    write("r.yaml", "_base_: base.yaml\nplugins: [vertebra-retinanet]\n")
    with pytest.raises(PluginError, match="An installed plugin needs no line in `plugins`"):
        load_recipe("r.yaml")


def test_open_constructors_accept_further_keys_but_their_own_arguments_are_checked(write):
    write("r.yaml", "_base_: base.yaml\nmodel: {backbone: {name: OpenBackbone, model: x, drop_rate: 0.1}}")
    assert load_recipe("r.yaml").model.backbone.arguments == {"model": "x", "drop_rate": 0.1}
    message = mistakes_of(write, "_base_: base.yaml\nmodel: {backbone: {name: OpenBackbone, model: 1}}")
    assert message.startswith("r.yaml:2: model.backbone.model is 1, expected text")


def test_a_protocol_accepts_any_part(write):
    write("r.yaml", "_base_: base.yaml\nmodel: {heads: {boxes: {coder: OtherPart}}}")
    assert load_recipe("r.yaml").model.heads["boxes"].arguments["coder"].name == "OtherPart"
