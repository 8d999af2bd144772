"""`vertebra export` on the command line."""

import re
from functools import partial

import pytest
import torch

from vertebra import build_model, load_recipe
from vertebra.errors import DataError, ExportError, RecipeError


@pytest.fixture
def export(command_line, tiny_recipe, tmp_path, monkeypatch):
    """export("--form", "raw"): runs the command in a folder with tiny.yaml and weights.pth; how it ended."""
    monkeypatch.chdir(tmp_path)
    model = build_model(load_recipe("tiny.yaml"))
    torch.save({"model": model.state_dict(), "classes": ["a", "b", "c"]}, "weights.pth")

    return partial(command_line, "export", "tiny.yaml", "-w", "weights.pth", "-o", "m.onnx")


def test_it_says_what_the_file_takes_and_gives_and_that_it_agrees(export):
    out = export("--size", "64x96", "--form", "raw").stdout.splitlines()
    assert out[0].startswith("m.onnx: raw form, ")
    assert "  input   images (1, 3, 64, 96)" in out
    assert "  output  logits_0 (1, 27, 8, 12)" in out
    assert sum(line.startswith("  ONNX Runtime agrees: ") for line in out) == 6
    refused = export("--size", "64", code=2)
    assert isinstance(refused.error, ExportError) and "already exists" in refused.stderr


@pytest.mark.slow
def test_values_of_the_recipe_go_into_the_graph_and_the_letterbox_gives_the_size(export):
    out = export(
        "model.heads.boxes.max_detections=7",
        "data.eval_transforms=[{name: ResizeLetterbox, size: [64, 32], pad: false}]",
    ).stdout
    assert "  input   images (1, 3, 64, 32)" in out
    assert "  output  boxes (1, 7, 4)" in out


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (["--size", "64xx"], RecipeError, "--size is '64xx'; expected HEIGHTxWIDTH"),
        (["--batch", "many"], ExportError, "--batch is 'many'"),
        (["--form", "row"], ExportError, "form 'row' is unknown; known are: raw, end-to-end"),
        (["--check-image", "no.jpg"], DataError, r"no\.jpg: no such image file"),
    ],
)
def test_wrong_options_are_told_and_nothing_is_written(export, tmp_path, arguments, error, words):
    failed = export(*(["--size", "32"] if "--size" not in arguments else []), *arguments, code=2)
    assert isinstance(failed.error, error)
    assert failed.stderr.startswith("vertebra: ") and re.search(words, failed.stderr)
    assert not (tmp_path / "m.onnx").exists()
