"""`vertebra export` on the command line."""

import pytest
import torch

from vertebra import build_model, load_recipe
from vertebra.cli.app import app
from vertebra.errors import ExportError, RecipeError


@pytest.fixture
def export(tiny_recipe, tmp_path, monkeypatch, capsys):
    """export("--form", "raw"): runs the command in a folder with tiny.yaml and weights.pth; returns what it prints."""
    monkeypatch.chdir(tmp_path)
    model = build_model(load_recipe("tiny.yaml"))
    torch.save({"model": model.state_dict(), "classes": ["a", "b", "c"]}, "weights.pth")

    def run(*arguments: str) -> str:
        app(["export", "tiny.yaml", "-w", "weights.pth", "-o", "m.onnx", *arguments], standalone_mode=False)
        return capsys.readouterr().out

    return run


def test_it_says_what_the_file_takes_and_gives_and_that_it_agrees(export):
    out = export("--size", "64x96", "--form", "raw").splitlines()
    assert out[0].startswith("m.onnx: raw form, ")
    assert "  input   images (1, 3, 64, 96)" in out
    assert "  output  logits_0 (1, 27, 8, 12)" in out
    assert sum(line.startswith("  ONNX Runtime agrees: ") for line in out) == 6
    with pytest.raises(ExportError, match="already exists"):
        export("--size", "64")


def test_values_of_the_recipe_go_into_the_graph_and_the_letterbox_gives_the_size(export):
    out = export(
        "model.heads.boxes.max_detections=7",
        "data.eval_transforms=[{name: ResizeLetterbox, size: [64, 32], pad: false}]",
    )
    assert "  input   images (1, 3, 64, 32)" in out
    assert "  output  boxes (1, 7, 4)" in out


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (["--size", "64xx"], RecipeError, "--size is '64xx'; expected HEIGHTxWIDTH"),
        (["--batch", "many"], ExportError, "--batch is 'many'"),
        (["--form", "row"], ExportError, "form 'row' is unknown; known are: raw, end-to-end"),
        (["--check-image", "no.jpg"], Exception, r"no\.jpg: no such image file"),
    ],
)
def test_wrong_options_are_told_and_nothing_is_written(export, tmp_path, arguments, error, words):
    with pytest.raises(error, match=words):
        export(*(["--size", "32"] if "--size" not in arguments else []), *arguments)
    assert not (tmp_path / "m.onnx").exists()
