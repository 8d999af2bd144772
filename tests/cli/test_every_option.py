"""Every option and argument of every command with values that make no sense: exit code 0 or 2, and never a traceback.

The commands work on the small run in `tests/whole/before`. A new command has to be added to `COMMANDS`.
"""

import json
import shutil
import tempfile
from pathlib import Path

import pytest
import typer

from vertebra.cli.app import app

BEFORE = Path(__file__).parents[1] / "whole" / "before"
NUMBERS = ["-1", "0", "99999999999999999999", "nan", "inf", "-0.5", "1e3", "x", ""]
TEXTS = [
    "",
    " ",
    "x",
    "{0}",
    "..",
    "/",
    "/dev/null",
    "/proc/version",
    "data",
    "tiny.yaml",
    "a" * 300,
    "\x1b[31m",
    "é\udcff",
    "-",
]
WEIGHTS = ["--weights", "run/final.pth"]
RESULTS = ["--annotations", "data/train.json", "--results", "results.json", "--task", "bbox"]
COMMANDS = {  # a call that works, in the order: arguments, options
    "train": [
        "tiny.yaml",
        "train.steps=1",
        "train.schedule={name: WarmupMultiStep, warmup_steps: 0}",
        "--output",
        "NEW",
    ],
    "evaluate": ["tiny.yaml", *WEIGHTS, "--output", "NEW"],
    "evaluate-results": RESULTS,
    "compare": [
        "results.json",
        "results.json",
        "--annotations",
        "data/train.json",
        "--task",
        "bbox",
        "--resamples",
        "5",
    ],
    "predict": ["tiny.yaml", "data/train_1.png", *WEIGHTS, "--output", "NEW"],
    "export": ["tiny.yaml", *WEIGHTS, "--output", "NEW.onnx", "--size", "64x64"],
    "import-detectron2": ["--recipe", "tiny.yaml", *WEIGHTS, "--output", "NEW.pth", "--partial"],
    "import-torchvision": ["--recipe", "tiny.yaml", *WEIGHTS, "--output", "NEW.pth", "--partial"],
    "components": ["head"],
    "config": ["tiny.yaml"],
    "doctor": [],
    "data make-shapes": ["NEW", "--images", "2", "--size", "64"],
    "data info": ["tiny.yaml"],
    "data show": ["tiny.yaml", "--number", "1", "--output", "NEW.png"],
    "plugins new": ["my-plugin", "--kind", "hook", "--output", "NEW"],
    "plugins check": ["tiny-detector"],
}


def parameters(command, path: str = "") -> dict[str, list]:
    """{command: its parameters} below a group."""
    inside = getattr(command, "commands", None)
    if inside is None:
        return {path: [one for one in command.params if one.name != "help"]}
    return {
        key: value for name, one in inside.items() for key, value in parameters(one, f"{path} {name}".strip()).items()
    }


ALL = parameters(typer.main.get_command(app))


@pytest.fixture
def work(tmp_path, monkeypatch):
    for name in ("data", "run"):
        shutil.copytree(BEFORE / name, tmp_path / name)
    shutil.copy(BEFORE / "tiny.yaml", tmp_path)
    found = [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 20, 20], "score": 0.5}]
    (tmp_path / "results.json").write_text(json.dumps(found))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def calls(command: str, option: str | None) -> list[list[str]]:
    """The working call with one more or another value."""
    base = COMMANDS[command]
    if option is None:
        places = [
            i
            for i, word in enumerate(base)
            if not word.startswith("--") and (i == 0 or not base[i - 1].startswith("--"))
        ]
        return [[*base[:i], value, *base[i + 1 :]] for i in places for value in TEXTS]
    return [[*base, option, value] for value in dict.fromkeys((*NUMBERS, *TEXTS))]


def test_every_command_is_here():
    assert ALL.keys() - {name for name in ALL if name.split()[0] in ("yolo", "rcnn")} == COMMANDS.keys()


OPTIONS = [
    (command, None if not one.opts[0].startswith("--") else one.opts[0])
    for command, found in ALL.items()
    if command in COMMANDS
    for one in found
    if not getattr(one, "is_flag", False)
]


@pytest.mark.slow
@pytest.mark.parametrize(("command", "option"), list(dict.fromkeys(OPTIONS)))
def test_bad_values_are_one_message(command_line, work, command, option):
    for number, words in enumerate(calls(command, option)):
        words = [word.replace("NEW", f"new{number}") for word in words]
        try:
            command_line(*command.split(), *words, cwd=work, site=BEFORE / "site")
        except AssertionError as err:
            text = str(err)
            assert text.startswith("exit code 2,"), text
            assert "Traceback" not in text and "is a bug" not in text, text
    assert sorted(path.name for path in work.glob("vertebra-traceback*")) == []
