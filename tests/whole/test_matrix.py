"""Backbones under heads by recipe alone: 16 cells of the matrix always, the others in `make test-all`.

`tools/matrix.py` prints the whole table, which docs/recipes.md shows.
"""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load_matrix():
    spec = importlib.util.spec_from_file_location("matrix", ROOT / "tools/matrix.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["matrix"] = module  # its dataclasses look their module up
    spec.loader.exec_module(module)
    return module


matrix = load_matrix()
BACKBONES, HEADS = list(matrix.BACKBONES), list(matrix.HEADS)
DIAGONAL = [(BACKBONES[number % len(BACKBONES)], HEADS[number % len(HEADS)]) for number in range(16)]
"""Every backbone twice, every head once or twice."""
OTHERS = [(backbone, head) for head in HEADS for backbone in BACKBONES if (backbone, head) not in DIAGONAL]


@pytest.mark.parametrize(
    ("backbone", "head"), [*DIAGONAL, *(pytest.param(*cell, marks=pytest.mark.matrix) for cell in OTHERS)]
)
def test_a_backbone_under_a_head_learns_predicts_and_exports(backbone, head):
    cell = matrix.run_cell(backbone, head)
    assert cell.failed == ""
    assert len(cell.losses) == matrix.STEPS


def test_the_documented_table_has_all_of_them():
    text = (ROOT / "docs/recipes.md").read_text()
    assert "| | " + " | ".join(BACKBONES) + " |\n" in text
    for head in HEADS:
        row = next(line for line in text.splitlines() if line.startswith(f"| {head} | 0."))
        shares = [float(share) for share in row.strip("| ").split(" | ")[1:]]
        assert len(shares) == len(BACKBONES) and max(shares) < 1


def test_a_cell_that_fails_says_where_and_ends_with_1(monkeypatch, capsys):
    broken = matrix.Column(lambda strides: {"name": "timm", "model": "resnett18"})
    monkeypatch.setitem(matrix.BACKBONES, "Broken", broken)
    assert matrix.main(["--backbones", "Broken", "--heads", "FCN"]) == 1
    printed = capsys.readouterr()
    assert "| FCN | **build** |" in printed.out and "0 of 1 cells do all" in printed.out
    assert "Nearest: resnet18" in printed.err


def test_a_loss_that_does_not_fall_fails(monkeypatch):
    monkeypatch.setattr(matrix, "_trained", lambda model, inputs: [1.0] * matrix.STEPS)
    assert matrix.run_cell("MobileNet", "FCN").failed == "train: the loss goes from 1.000 to 1.000"
