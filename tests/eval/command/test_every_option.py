"""Bad values of any option or argument of `vertebra-eval` end as one message with exit code 2, never as a traceback."""

import argparse
import json

import pytest
from PIL import Image

from vertebra_eval.command.arguments import parser
from vertebra_eval.command.main import main

BAD = ["", " ", ".", "/", "nothere", "nothere/a", "empty", "words", "-1", "0", "1e999", "nan", "99999999999999999999"]
BAD += ["0.5,", ",", "a:b", "1:2:3", "null.json", "list.json", "\x1b[2J", "\u202e", "x" * 300]
(COMMANDS,) = (action.choices for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
PLACES = [
    (command, action.option_strings[-1] if action.option_strings else action.dest)
    for command, sub in COMMANDS.items()
    for action in sub._actions
    if action.nargs != 0
]


@pytest.fixture
def work(tmp_path, monkeypatch):
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "area": 25, "iscrowd": 0}
    image = {"id": 1, "height": 20, "width": 20, "file_name": "a.jpg"}
    truth = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    (tmp_path / "dt.json").write_text(json.dumps([{**box, "score": 0.5}]))
    for folder in ("gt", "pred"):
        (tmp_path / folder).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / folder / "a.png")
    for name, text in (("empty", ""), ("words", "some words"), ("null.json", "null"), ("list.json", "[1]")):
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("command", "place"), PLACES)
@pytest.mark.parametrize("bad", BAD)
def test_bad_values_are_one_message(work, capsys, command, place, bad):
    needed = [action for action in COMMANDS[command]._actions if not action.option_strings]
    good = ["gt", "pred"] if command == "semantic" else ["gt.json", "dt.json", "dt.json"][: len(needed)]
    words = [bad if action.dest == place else word for action, word in zip(needed, good, strict=True)]
    if place.startswith("-"):
        words += [f"{place}={bad}"]
    if command == "semantic" and place != "--classes":
        words += ["--classes", "1"]
    try:
        code = main([command, *words])
    except SystemExit as end:  # argparse's own
        code = end.code
    err = capsys.readouterr().err
    assert code in (0, 2), err
    if code == 2:
        assert "vertebra-eval" in err and "Traceback" not in err
        assert "\x1b" not in err and "\u202e" not in err


def test_the_places_are_all_options_of_all_commands():
    assert {command for command, _ in PLACES} == {"coco", "crowdpose", "lvis", "voc", "panoptic", "semantic", "compare"}
    assert len(PLACES) > 30
