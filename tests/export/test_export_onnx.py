"""ONNX files: what they take and give, what they say of themselves, and what is refused."""

import json
import sys

import numpy as np
import pytest
import torch

from vertebra import Head, load_recipe
from vertebra.errors import ExportError, SetupError
from vertebra.export import OnnxModel, export_onnx


def test_raw_form_gives_each_tensor_under_its_name(make_model, cell_head, tmp_path):
    model = make_model(boxes=cell_head)
    report = export_onnx(model, tmp_path / "m.onnx", form="raw", size=(32, 40))
    assert report.inputs == {"images": [1, 3, 32, 40]}
    assert report.outputs == {"scores": [1, 3, 8, 10], "reach": [1, 4, 8, 10]}
    images = torch.rand(1, 3, 32, 40)
    found = OnnxModel(tmp_path / "m.onnx")(images)
    normalized = (images * 255 - model.pixel_mean) / model.pixel_std
    expected = model.compute(normalized)["boxes"]
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pixel_order", ["rgb", "bgr"])
def test_pixels_may_run_to_255_and_channels_are_turned_inside(make_model, cell_head, tmp_path, pixel_order):
    model = make_model(boxes=cell_head, pixel_order=pixel_order)
    export_onnx(model, tmp_path / "m.onnx", form="raw", size=(32, 32), pixel_range=255)
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        expected = model.compute(model.make_batch([{"image": image}]).images)["boxes"]
    found = OnnxModel(tmp_path / "m.onnx")(image[None].float())
    torch.testing.assert_close(found["scores"], expected["scores"], rtol=1e-4, atol=1e-4)


def test_end_to_end_suppresses_inside_at_any_size_and_number(make_model, cell_head, tmp_path):
    model = make_model(boxes=cell_head)
    report = export_onnx(model, tmp_path / "m.onnx", size=(48, 56), dynamic=True, batch="dynamic")
    assert report.inputs == {"images": ["batch", 3, "height", "width"]}
    assert report.outputs == {"boxes": ["batch", 40, 4], "scores": ["batch", 40], "classes": ["batch", 40]}
    tried = {comparison.shape for comparison in report.comparisons}
    assert len(tried) == 3 and len({shape[0] for shape in tried}) == 3
    assert not any(comparison.detail.startswith("0 ") for comparison in report.comparisons)
    exported = OnnxModel(tmp_path / "m.onnx")
    for size in ((9, 11), (8, 8), (100, 61)):  # smaller than it was made with, not a multiple of anything
        found = exported(torch.rand(1, 3, *size))
        there = found["scores"][0] > 0
        boxes = found["boxes"][0][there]
        assert len(boxes) and (boxes >= 0).all()
        assert (boxes[:, [0, 2]] <= size[1]).all() and (boxes[:, [1, 3]] <= size[0]).all()


@pytest.mark.slow
def test_labels_and_scores_of_any_size(make_model, map_head, tmp_path):
    model = make_model(map=map_head)
    labels = export_onnx(model, tmp_path / "labels.onnx", size=(40, 56), dynamic=True)
    assert labels.outputs == {"sem_seg": [1, "height", "width"]}
    scores = export_onnx(model, tmp_path / "scores.onnx", form="raw", size=(40, 56), dynamic=True)
    assert scores.outputs == {"sem_seg_scores": [1, 4, "height", "width"]}
    images = torch.rand(1, 3, 21, 30)
    best = OnnxModel(tmp_path / "scores.onnx")(images)["sem_seg_scores"].argmax(dim=1)
    assert torch.equal(OnnxModel(tmp_path / "labels.onnx")(images)["sem_seg"], best)
    assert len(best.unique()) > 1


def test_several_heads_share_a_file(make_model, cell_head, map_head, tmp_path):
    report = export_onnx(make_model(boxes=cell_head, map=map_head), tmp_path / "m.onnx", size=(32, 32))
    assert list(report.outputs) == ["boxes", "scores", "classes", "sem_seg"]


def test_a_head_for_the_training_alone_is_left_out(make_model, cell_head, map_head, tmp_path):
    map_head.training_only = True
    report = export_onnx(make_model(boxes=cell_head, map=map_head), tmp_path / "m.onnx", size=(32, 32))
    assert list(report.outputs) == ["boxes", "scores", "classes"]


def test_the_file_says_what_it_is(make_model, cell_head, tmp_path):
    import onnx

    model = make_model(boxes=cell_head)
    export_onnx(model, tmp_path / "m.onnx", size=(32, 32), class_names=["red", "white", "platelet"])
    proto = onnx.load(tmp_path / "m.onnx")
    assert proto.producer_name == "vertebra"
    texts = {entry.key: entry.value for entry in proto.metadata_props}
    assert json.loads(texts["class_names"]) == ["red", "white", "platelet"]
    taken = json.loads(texts["input"])
    assert (taken["channels"], taken["range"], taken["layout"]) == ("RGB", [0, 1], "NCHW")
    outputs = json.loads(texts["outputs"])
    assert "xyxy" in outputs["boxes"]["meaning"]
    assert outputs["boxes"]["nms_threshold"] == 0.4 and outputs["boxes"]["head"] == "boxes: CellHead"


def test_the_model_stays_as_it_was(make_model, cell_head, tmp_path):
    model = make_model(boxes=cell_head).train()
    model.channels_last = True
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export_onnx(model, tmp_path / "m.onnx", size=(32, 32))
    assert model.training and model.channels_last
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_a_graph_that_gives_something_else_is_not_written(make_model, tmp_path):
    class Forgetful(Head):
        """Remembers the first image's mean, which a tracer takes for a constant."""

        def forward(self, features):
            mean = float(features["fine"].mean()) if not torch.compiler.is_compiling() else 0.0
            return {"scores": features["fine"] + mean + 1}

    with pytest.raises(ExportError, match=r"outputs differ from the model's, so nothing was written:\n  scores at"):
        export_onnx(make_model(odd=Forgetful()), tmp_path / "m.onnx", form="raw", size=(32, 32))
    assert list(tmp_path.iterdir()) == []


def test_a_head_that_cannot_be_traced_is_explained(make_model, tmp_path):
    class Deciding(Head):
        def forward(self, features):
            return features["fine"] if features["fine"].mean() > 0 else features["coarse"]

    with pytest.raises(ExportError, match="cannot be traced for the raw form"):
        export_onnx(make_model(odd=Deciding()), tmp_path / "m.onnx", form="raw", size=(32, 32))


def test_a_head_without_an_end_to_end_form_names_the_raw_one(make_model, tmp_path):
    class Plain(Head):
        def forward(self, features):
            return features["fine"]

    model = make_model(odd=Plain())
    with pytest.raises(ExportError, match=r"Plain has no end-to-end export.*--form raw"):
        export_onnx(model, tmp_path / "m.onnx", size=(32, 32))
    assert export_onnx(model, tmp_path / "m.onnx", form="raw", size=(32, 32)).outputs == {"raw": [1, 8, 8, 8]}


def test_no_file_is_overwritten_unless_asked(make_model, map_head, tmp_path):
    (tmp_path / "m.onnx").write_text("mine")
    model = make_model(map=map_head)
    with pytest.raises(ExportError, match="already exists; choose another file, or replace it with --force"):
        export_onnx(model, tmp_path / "m.onnx", size=(32, 32))
    assert (tmp_path / "m.onnx").read_text() == "mine"
    export_onnx(model, tmp_path / "m.onnx", size=(32, 32), force=True)
    assert (tmp_path / "m.onnx").read_bytes() != b"mine"
    with pytest.raises(ExportError, match=r"must end in \.onnx"):
        export_onnx(model, tmp_path / "recipe.yaml", size=(32, 32))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"form": "finished"}, "the form 'finished' is unknown"),
        ({"pixel_range": 2}, "the pixel range is 2"),
        ({"size": (0, 32)}, "each must be at least 1"),
        ({"size": (8, 8), "dynamic": True}, "at least 9x9 pixels"),
        ({"weights": "some.pth"}, "weights can be given with a recipe only"),
    ],
)
def test_wrong_settings_are_told(make_model, map_head, tmp_path, arguments, words):
    with pytest.raises(ExportError, match=words):
        export_onnx(make_model(map=map_head), tmp_path / "m.onnx", **{"size": (32, 32), **arguments})


def test_missing_packages_are_named_with_the_command_that_installs_them(make_model, map_head, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(SetupError, match=r"onnxscript.*\n.*pip install 'vertebra\[onnx\]'"):
        export_onnx(make_model(map=map_head), tmp_path / "m.onnx", size=(32, 32))


@pytest.mark.e2e
def test_a_recipes_model_is_exported_with_its_weights_and_recipe(tiny_recipe, tmp_path):
    import onnx

    from vertebra import build_model

    recipe = load_recipe(str(tiny_recipe))
    torch.manual_seed(1)
    model = build_model(recipe)
    for parameter in model.heads["boxes"].cls_score.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    torch.save({"model": model.state_dict(), "classes": ["circle", "square", "star"]}, tmp_path / "w.pth")
    report = export_onnx(recipe, tmp_path / "m.onnx", weights=tmp_path / "w.pth", size=(64, 64))
    assert report.outputs["boxes"] == [1, 100, 4]
    texts = {entry.key: entry.value for entry in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert json.loads(texts["class_names"]) == ["circle", "square", "star"]
    (tmp_path / "again.yaml").write_text(texts["recipe"])
    assert load_recipe(str(tmp_path / "again.yaml")).to_yaml() == texts["recipe"]
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    found = OnnxModel(tmp_path / "m.onnx")(image[None] / 255)
    with torch.no_grad():
        expected = model.eval()([{"image": image}])[0]["instances"]
    count = int((found["scores"] > 0).sum())
    assert count == len(expected) > 0
    np.testing.assert_allclose(found["scores"][0, :count], expected.scores, rtol=1e-3)
