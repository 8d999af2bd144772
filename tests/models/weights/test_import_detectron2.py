"""import_detectron2: names, class counts, what does not fit, and the file it writes."""

import pickle

import numpy as np
import pytest
import torch

from vertebra.config import load_recipe
from vertebra.errors import CheckpointError, VertebraError
from vertebra.models import build_model, load_weights, read_weights
from vertebra.models.import_detectron2 import import_detectron2
from vertebra.predictor import Predictor

RECIPE = """
model:
  backbone: {name: ResNet, depth: 18, out_features: [res3, res4]}
  neck: {name: FPN, out_channels: 32}
  heads:
    boxes: {name: RetinaNetHead, num_convs: 1}
"""


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "small.yaml").write_text(RECIPE)
    return load_recipe(tmp_path / "small.yaml")


def detectron2_weights(recipe, num_classes=5):
    """A state dict as Detectron2 would name it, with the values of a new model of ours, and that model."""
    model = build_model(recipe, num_classes=num_classes)
    names = {}
    for own, value in model.state_dict().items():
        place, _, name = own.partition(".")
        if place == "backbone":
            names[f"backbone.bottom_up.{name}"] = value
        elif place == "neck":
            kind, level, last = name.split(".")
            names[f"backbone.fpn_{kind}{level[1:]}.{last}"] = value
        elif not own.endswith("loss_normalizer"):
            names[f"head.{name.removeprefix('boxes.')}"] = value
    return names, model


def save(path, weights):
    torch.save({"model": weights}, path)
    return path


def test_the_written_file_holds_the_weights_the_recipe_and_loads(recipe, tmp_path):
    weights, model = detectron2_weights(recipe)
    report = import_detectron2(save(tmp_path / "d2.pth", weights), recipe, tmp_path / "out" / "ours.pth")
    written = torch.load(tmp_path / "out" / "ours.pth", weights_only=True)
    assert written["format"] == 1
    (tmp_path / "again.yaml").write_text(written["recipe"])
    assert load_recipe(tmp_path / "again.yaml").model == recipe.model
    other = build_model(recipe, num_classes=5)
    load_weights(other, read_weights(tmp_path / "out" / "ours.pth"))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    assert str(report) == (
        f"{tmp_path / 'out' / 'ours.pth'}: {len(weights)} entries translated, 5 classes\n"
        "not in the weights, left as new (1): heads.boxes.loss_normalizer"
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["ours.pth"]


def test_imported_weights_predict_where_the_dataset_is_not_at_hand(recipe, tmp_path, caplog):
    weights, _ = detectron2_weights(recipe)
    import_detectron2(save(tmp_path / "d2.pth", weights), recipe, tmp_path / "ours.pth")
    data = "data.val={format: coco, annotations: nowhere.json, images: nowhere}"
    predictor = Predictor(load_recipe(recipe.source, [data]), tmp_path / "ours.pth")
    assert "only numbers: nowhere.json: no such annotation file" in caplog.text
    assert predictor.class_names == []
    assert predictor.model.heads["boxes"].num_classes == 5
    assert predictor(np.zeros((40, 60, 3), np.uint8))["instances"].image_size == (40, 60)

    torch.save(torch.load(tmp_path / "ours.pth", weights_only=True)["model"], tmp_path / "bare.pth")
    with pytest.raises(VertebraError, match="RetinaNetHead needs num_classes"):
        Predictor(recipe, tmp_path / "bare.pth")
    Predictor(load_recipe(recipe.source, ["model.heads.boxes.num_classes=5"]), tmp_path / "bare.pth")


@pytest.mark.parametrize("num_classes", [1, 2, 80])
def test_the_number_of_classes_is_read_off_the_weights(recipe, tmp_path, num_classes):
    weights, _ = detectron2_weights(recipe, num_classes)
    report = import_detectron2(save(tmp_path / "d2.pth", weights), recipe, tmp_path / "ours.pth")
    assert report.num_classes == num_classes


def test_a_recipe_with_another_number_of_classes_is_refused(tmp_path, recipe):
    weights, _ = detectron2_weights(recipe, 5)
    three = load_recipe(tmp_path / "small.yaml", ["model.heads.boxes.num_classes=3"])
    with pytest.raises(
        CheckpointError, match=r"head\.cls_score\.weight is 45x32x3x3, the recipe's heads\.boxes\.cls_s"
    ):
        import_detectron2(save(tmp_path / "d2.pth", weights), three, tmp_path / "ours.pth")
    assert not (tmp_path / "ours.pth").exists()


def test_an_existing_file_is_left_alone_unless_forced(recipe, tmp_path):
    weights, _ = detectron2_weights(recipe)
    source, output = save(tmp_path / "d2.pth", weights), tmp_path / "ours.pth"
    output.write_text("precious")
    with pytest.raises(CheckpointError, match=r"ours\.pth already exists; .*--force"):
        import_detectron2(source, recipe, output)
    assert output.read_text() == "precious"
    import_detectron2(source, recipe, output, force=True)
    assert len(read_weights(output)) > len(weights)


def test_missing_names_are_listed_with_the_nearest(recipe, tmp_path):
    weights, _ = detectron2_weights(recipe)
    weights["head.cls_scores.weight"] = weights.pop("head.cls_score.weight")
    with pytest.raises(CheckpointError) as caught:
        import_detectron2(save(tmp_path / "d2.pth", weights), recipe, tmp_path / "ours.pth", num_classes=5)
    assert "1 entries of the recipe's model are missing" in str(caught.value)
    assert "heads.boxes.cls_score.weight (nearest unused name: head.cls_scores.weight)" in str(caught.value)


def test_weights_of_another_model_are_refused(recipe, tmp_path):
    source = save(tmp_path / "d2.pth", {"encoder.layer.weight": torch.ones(2)})
    with pytest.raises(CheckpointError, match=r"none of its names is one of Detectron2's .*: encoder\.layer\.weight"):
        import_detectron2(source, recipe, tmp_path / "ours.pth", num_classes=5)


def test_entries_without_a_place_are_an_error_unless_partial(recipe, tmp_path, command_line):
    """As the offsets of deformable convolutions: all else fits, and no detection would agree."""
    weights, _ = detectron2_weights(recipe)
    offsets = [
        f"backbone.bottom_up.res4.{block}.conv2_offset.{part}" for block in range(2) for part in ("weight", "bias")
    ]
    weights |= dict.fromkeys(offsets, torch.ones(1))
    source, output = save(tmp_path / "d2.pth", weights), tmp_path / "ours.pth"
    command = ("import-detectron2", "--weights", source, "--recipe", tmp_path / "small.yaml", "--output", output)
    refused = command_line(*command, code=2)
    assert "d2.pth: 4 entries have no place in the recipe's model" in refused.stderr
    assert offsets[0] in refused.stderr and "--partial" in refused.stderr
    assert not output.exists()
    listed = command_line(*command, "--partial")
    assert f"in the weights, unused here (4): {', '.join(offsets)}" in listed.stdout
    assert output.exists()


def test_constants_need_no_place_where_they_are_the_models(recipe, tmp_path):
    weights, model = detectron2_weights(recipe)
    weights |= {"pixel_mean": model.pixel_mean, "pixel_std": model.pixel_std}
    weights["stem.conv1.norm.num_batches_tracked"] = torch.tensor(7)
    for level, anchors in enumerate(model.heads["boxes"].anchor_generator.cell_anchors):
        weights[f"anchor_generator.cell_anchors.{level}"] = anchors
    report = import_detectron2(save(tmp_path / "d2.pth", weights), recipe, tmp_path / "ours.pth")
    assert report.unused == ()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("pixel_mean", torch.zeros(3, 1, 1), r"pixel_mean is \[0.0, 0.0, 0.0\], the recipe's \[123"),
        ("pixel_std", torch.ones(3, 1, 1), r"pixel_std is \[1.0, 1.0, 1.0\], the recipe's \[58.4, 57.12, 57.38\]"),
        ("anchor_generator.cell_anchors.1", torch.zeros(9, 4), r"anchors.1 is \[0.0, .*the recipe's \[-45.25, -22.63,"),
        ("proposal_generator.anchor_generator.cell_anchors.0", torch.zeros(3, 4), "anchors.0 is .*the recipe's"),
        ("anchor_generator.cell_anchors.4", torch.zeros(9, 4), r"cell_anchors\.4: the recipe has anchors of 2 levels"),
    ],
)
def test_constants_that_are_not_the_models_are_refused(recipe, tmp_path, name, value, message):
    weights, _ = detectron2_weights(recipe)
    source = save(tmp_path / "d2.pth", weights | {name: value})
    with pytest.raises(CheckpointError, match=message):
        import_detectron2(source, recipe, tmp_path / "ours.pth")
    report = import_detectron2(source, recipe, tmp_path / "ours.pth", partial=True)
    assert len(report.unused) == 1


def test_statistics_of_norms_are_missing_altogether_or_not_at_all(recipe, tmp_path):
    weights, _ = detectron2_weights(recipe)
    one = "backbone.bottom_up.res3.0.conv1.norm.running_var"
    some = {name: value for name, value in weights.items() if name != one}
    with pytest.raises(CheckpointError, match=r"1 entries .* missing:\n  backbone\.res3\.0\.conv1\.norm\.running_var"):
        import_detectron2(save(tmp_path / "some.pth", some), recipe, tmp_path / "ours.pth")
    none = {name: value for name, value in weights.items() if not name.endswith(("running_mean", "running_var"))}
    report = import_detectron2(save(tmp_path / "none.pth", none), recipe, tmp_path / "ours.pth")
    assert len(report.kept) == len(weights) - len(none) + 1


def test_an_entry_that_comes_twice_is_an_error(recipe, tmp_path):
    weights, _ = detectron2_weights(recipe)
    weights["stem.conv1.weight"] = weights["backbone.bottom_up.stem.conv1.weight"]
    with pytest.raises(CheckpointError, match=r"backbone\.stem\.conv1\.weight twice"):
        import_detectron2(save(tmp_path / "d2.pth", weights), recipe, tmp_path / "ours.pth")


def test_caffe2_names_of_a_backbone_alone_need_partial(tmp_path):
    """As in MSRA's files: no statistics, names of Caffe2, Python's pickle, other blobs beside."""
    (tmp_path / "small.yaml").write_text(RECIPE.replace("depth: 18", "depth: 50"))
    recipe = load_recipe(tmp_path / "small.yaml")
    model = build_model(recipe, num_classes=2)
    blobs = {"fc1000_w": np.ones((3, 3), np.float32), "lr": np.float32(0.1)}
    for own, value in model.backbone.state_dict().items():
        if not own.endswith(("running_mean", "running_var")):
            blobs[caffe2_name(own)] = np.full(value.shape, 0.5, np.float32)
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))
    with pytest.raises(CheckpointError, match=r"\d+ entries of the recipe's model are missing"):
        import_detectron2(tmp_path / "R-50.pkl", recipe, tmp_path / "ours.pth", num_classes=2)
    report = import_detectron2(tmp_path / "R-50.pkl", recipe, tmp_path / "ours.pth", num_classes=2, partial=True)
    assert report.unused == ("fc1000.weight", "lr")
    written = read_weights(tmp_path / "ours.pth")
    assert all((written[f"backbone.{own}"] == 0.5).all() for own in model.backbone.state_dict() if "running" not in own)


def caffe2_name(own):
    """`res2.0.conv1.norm.weight` to `res2_0_branch2a_bn_s`."""
    *layer, last = own.split(".")
    if layer[-1] == "norm":
        layer.pop()
        suffix = "_bn_s" if last == "weight" else "_bn_b"
    else:
        suffix = "_w"
    if layer[0] == "stem":
        return ("res_conv1" if "bn" in suffix else "conv1") + suffix
    branch = {"shortcut": "1", "conv1": "2a", "conv2": "2b", "conv3": "2c"}[layer[2]]
    return f"{layer[0]}_{layer[1]}_branch{branch}{suffix}"


def test_another_suffix_than_pth_is_refused(recipe, tmp_path):
    with pytest.raises(CheckpointError, match=r"ours\.txt: .* name it .*ours\.pth"):
        import_detectron2(tmp_path / "d2.pth", recipe, tmp_path / "ours.txt")


def test_hostile_files_are_refused_and_nothing_is_written(recipe, tmp_path, monkeypatch, shared):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    for path in sorted(shared("data/bad/checkpoints").iterdir()):
        with pytest.raises(CheckpointError, match=path.name):
            import_detectron2(path, recipe, tmp_path / "ours.pth")
    assert sorted(tmp_path.iterdir()) == before
