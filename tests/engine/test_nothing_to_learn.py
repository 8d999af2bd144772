"""A training that cannot learn anything is refused; classes that it cannot learn are named before its first step."""

import json

import numpy as np
import pytest
from PIL import Image
from stub_parts import stub_parts

from vertebra.config import load_recipe
from vertebra.engine import Trainer
from vertebra.errors import DataError, RecipeError

SEMANTIC = """
model:
  backbone: {name: ResNet, depth: 18, norm: bn, out_features: [res2], weights: null}
  heads: {classes: {name: FCNHead}}
data:
  train: {format: semantic_folder, images: images, masks: masks, classes: [bg, fg]}
  train_transforms: []
  aspect_ratio_grouping: false
  workers: 0
train: {steps: 1, batch_size: 1, device: cpu, amp: "off", log_every: 1}
"""

BOXES = """
model:
  backbone: {name: ResNet, depth: 18, norm: bn, out_features: [res4], weights: null}
  neck: {name: FPN, out_channels: 8}
  heads: {boxes: {name: RetinaNetHead, num_convs: 0}}
data:
  train: {format: coco, annotations: train.json, images: images}
  train_transforms: []
  workers: 0
train: {steps: 1, batch_size: 1, device: cpu, amp: "off", log_every: 1}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number in range(3):
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(f"images/{number}.png")
        mask = np.zeros((64, 64), np.uint8)
        mask[10:30, 10:30] = 255
        Image.fromarray(mask).save(f"masks/{number}.png")
    (tmp_path / "semantic.yaml").write_text(SEMANTIC)
    (tmp_path / "boxes.yaml").write_text(BOXES)
    return tmp_path


def write_objects(project, annotations, categories=("background", "cat", "dog")):
    content = {
        "images": [{"id": n, "file_name": f"{n}.png", "height": 64, "width": 64} for n in range(3)],
        "annotations": [
            {"id": n, "image_id": 0, "bbox": [8, 8, 30, 30], "area": 900, "iscrowd": crowd, "category_id": category}
            for n, (category, crowd) in enumerate(annotations)
        ],
        "categories": [{"id": n, "name": name} for n, name in enumerate(categories)],
    }
    (project / "train.json").write_text(json.dumps(content))


def test_masks_of_0_and_255_stop_before_the_first_step(project):
    with pytest.raises(DataError, match=r"(?s)nothing to learn.*only one class, bg.*label_map: \{0: 0, 255: 1\}"):
        Trainer(load_recipe("semantic.yaml"), "run")
    assert not (project / "run").exists()
    mapped = load_recipe("semantic.yaml", ["data.train.label_map={0: 0, 255: 1}"])
    assert not any("warning" in note for note in Trainer(mapped, "run").parts.notes)


def test_a_class_without_a_pixel_is_a_warning_in_the_log(project):
    overrides = ["data.train.label_map={0: 0, 255: 1}", "data.train.classes=[bg, fg, other]"]
    Trainer(load_recipe("semantic.yaml", overrides), "run").train()
    log = (project / "run/log.txt").read_text()
    assert "warning: dataset" in log and "no pixel has the class other" in log
    assert log.index("warning: dataset") < log.index("step 1/1")


@pytest.mark.parametrize(
    "loss",
    ["CrossEntropy", "{name: CompoundLoss, losses: [PixelBCE, DiceLoss]}", "HardPixelCrossEntropy", "LovaszSoftmax"],
)
def test_one_class_with_a_softmax_stops_before_the_first_step(project, loss):
    one = ["data.train.classes=[fg]", f"model.heads.classes.loss={loss}"]
    with pytest.raises(RecipeError, match=r"loss \w+: \w+ needs at least 2 classes and has 1"):
        Trainer(load_recipe("semantic.yaml", one), "run")
    assert not (project / "run").exists()


def test_one_class_with_a_loss_that_can_learn_it_is_a_warning(project):
    one = ["data.train.classes=[fg]", "model.heads.classes.loss=PixelBCE"]
    trainer = Trainer(load_recipe("semantic.yaml", one), "run")
    assert any("fg is the only class" in note for note in trainer.parts.notes)
    trainer.train()


def test_classes_without_objects_are_one_warning(project):
    write_objects(project, [(1, 0), (2, 1)])
    notes = Trainer(load_recipe("boxes.yaml"), "run").parts.notes
    (warning,) = (note for note in notes if "warning" in note)
    assert "no object has the class background, dog" in warning and "classes: [cat]" in warning


def test_a_detector_does_not_look_at_labels(project):
    """The labels of this set hold one class, which only heads that learn labels care for."""
    write_objects(project, [(0, 0), (1, 0), (2, 0)])
    overrides = ["data.train.sem_seg=masks", "data.train.stuff_classes=[bg, fg]"]
    assert not any("warning" in note for note in Trainer(load_recipe("boxes.yaml", overrides), "run").parts.notes)


def test_a_set_without_any_object_stops(project):
    write_objects(project, [])
    with pytest.raises(DataError, match=r"nothing to learn: .*none of its 3 images has an object"):
        Trainer(load_recipe("boxes.yaml", ["data.filter_empty=false"]), "run")


def weigh_0(losses):
    return {name: 0 * loss for name, loss in losses.items()}


def stub_trainer(forward, steps=25, **arguments):
    parts = stub_parts(steps, evaluate=False)
    whole = parts.model.forward
    parts.model.forward = lambda inputs: forward(whole(inputs))
    return Trainer(parts=parts, **arguments)


def test_losses_that_are_all_weighed_0_end_the_run(tmp_path):
    trainer = stub_trainer(weigh_0)
    with pytest.raises(RecipeError, match=r"(?s)nothing was learned in 20 steps: .*stub/error 0.*not all 0"):
        trainer.train()
    assert trainer.step == 19
    short = stub_trainer(weigh_0, 3, output_dir=tmp_path / "run")
    with pytest.raises(RecipeError, match="nothing was learned in 3 steps"):
        short.train()
    assert not (tmp_path / "run/final.pth").exists()


def test_some_batches_without_a_gradient_are_legal(tmp_path):
    seen = []

    def forward(losses):
        seen.append(None)
        return losses if len(seen) > 15 else weigh_0(losses)

    stub_trainer(forward).train()
    resumed = stub_parts(25, evaluate=False)
    Trainer(parts=stub_parts(24, evaluate=False), output_dir=tmp_path).train()
    whole = resumed.model.forward
    resumed.model.forward = lambda inputs: weigh_0(whole(inputs))
    Trainer(parts=resumed, output_dir=tmp_path, resume=True).train()  # it has learned before


@pytest.mark.parametrize("how", ["frozen", "detached"])
def test_a_loss_without_a_trained_parameter_is_told_at_once(how):
    trainer = stub_trainer(lambda losses: {name: loss.detach() for name, loss in losses.items()})
    if how == "frozen":
        trainer = stub_trainer(lambda losses: losses)
        trainer.model.requires_grad_(False)
    with pytest.raises(RecipeError, match=r"does not depend on any trained parameter.*: stub/error, stub/size"):
        trainer.train()
    assert trainer.step == 0
