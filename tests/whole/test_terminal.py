"""Names of classes and files cannot control the terminal, nor run as formulas in a spreadsheet."""

import csv
import io
import json
import logging
import os
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from PIL import Image

from vertebra.engine.run_folder import logging_to
from vertebra.predictor.writers import CsvWriter
from vertebra.printable import PlainFormatter, PlainStream
from vertebra_eval.printable import printable

EVIL = "\x1b]0;owned\x07\x1b[31mcat\x9b2J\r"
DIRECTIONS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}  # of Unicode's bidirectional classes
SHOWN = r"\x1b]0;owned\x07\x1b[31mcat\x9b2J\x0d"


@pytest.fixture
def dataset(tmp_path):
    """A COCO file with an evil class name, and an image whose name is evil too where the system allows it."""
    name = f"{EVIL.strip()}.png"
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / name)
    content = {
        "images": [{"id": 1, "file_name": name, "width": 30, "height": 20}],
        "categories": [{"id": 1, "name": EVIL}, {"id": 2, "name": f"{EVIL}2"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    return tmp_path


def controls(text: str) -> set[str]:
    return {letter for letter in text if (ord(letter) < 32 and letter not in "\n\t") or 127 <= ord(letter) < 160}


def test_printable_shows_every_control_character_and_changes_nothing_else():
    assert printable(EVIL) == SHOWN
    assert controls(printable("".join(map(chr, range(0x300))))) == set()
    kept = "a\tb\nc é 漢字 🙂 {0} %s \\x1b"
    assert printable(kept) == kept
    assert printable("cod\u202egpj.exe \u2066") == r"cod\u202egpj.exe \u2066"
    assert printable("a\udcff") == r"a\udcff"
    marks = {chr(code) for code in range(0x110000) if unicodedata.bidirectional(chr(code)) in DIRECTIONS}
    assert printable("".join(marks | {"\u200e", "\u200f", "\u061c"})).isascii()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such file names")
def test_commands_show_names_escaped(dataset, command_line):
    for words in (["data", "info", "coco.json"], ["data", "info", "coco.json", "--images", EVIL]):
        done = command_line(*words, cwd=dataset, code=2 if EVIL in words else 0)
        assert controls(done.output) == set()
        assert r"\x1b]0;owned\x07\x1b[31mcat\x9b2J" in done.output


def test_evaluation_shows_names_escaped(dataset, command_line):
    (dataset / "results.json").write_text(
        json.dumps([{"image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "score": 1}])
    )
    words = ["evaluate-results", "--annotations", "coco.json", "--results", "results.json", "--task", "bbox"]
    done = command_line(*words, cwd=dataset)
    assert controls(done.output) == set() and f"AP-{SHOWN}2" in done.output


def test_messages_show_names_escaped_and_lines_are_cut(command_line, tmp_path):
    done = command_line("config", f"{EVIL}.yaml", cwd=tmp_path, code=2)
    assert controls(done.output) == set() and SHOWN in done.stderr
    done = command_line("evaluate-results", "--annotations", "x" * 3000, "--results", "y", "--task", "z", code=2)
    assert max(map(len, done.stderr.splitlines())) < 1600


def test_log_lines_show_names_escaped(tmp_path):
    with logging_to(tmp_path / "log.txt", console=False):
        logging.getLogger("vertebra.test").warning("class %s", EVIL)
    text = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert controls(text) == set() and f"class {SHOWN}" in text
    record = logging.LogRecord("x", logging.INFO, "x.py", 1, EVIL, None, None)
    assert PlainFormatter("%(message)s").format(record) == SHOWN


def test_a_stream_escapes_what_its_encoding_does_not_have():
    raw = io.BytesIO()
    stream = PlainStream(io.TextIOWrapper(raw, encoding="ascii"))
    print("é", EVIL, "\udcff", "漢", file=stream, flush=True)
    stream.writelines(["a\r", "b\n"])
    stream.flush()
    assert raw.getvalue().decode() == rf"\xe9 {SHOWN} \udcff \u6f22" + "\na\\x0db\n"
    assert stream.encoding == "ascii" and not stream.isatty() and stream.rich_proxied_file is not stream


def test_help_on_a_terminal_stays_colored(tmp_path):
    """Rich writes its colors to the stream itself."""
    pty = pytest.importorskip("pty")
    leader, follower = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"}
    with subprocess.Popen(
        [sys.executable, "-m", "vertebra", "--help"], stdout=follower, stdin=follower, stderr=follower, env=environment
    ) as process:
        os.close(follower)
        shown = b""
        while True:
            try:
                part = os.read(leader, 65536)
            except OSError:  # Linux: the other end is closed
                break
            if not part:
                break
            shown += part
    os.close(leader)
    assert process.returncode == 0 and b"\x1b[" in shown and b"\\x1b" not in shown


@pytest.mark.parametrize("name", ["=1+1", "+1", "-cat", "@sum", "\tx"])
def test_cells_that_would_be_formulas_are_quoted(tmp_path, monkeypatch, name):
    records = [
        {"file_name": f"{name}.png", "category": name, "category_id": 1, "score": 0.5, "bbox": [-3.0, -1.5, 10, 10]},
        {"file_name": "a-b.png", "category": "a=b", "category_id": 1, "score": 0.5, "bbox": [0, 0, 1, 1]},
    ]
    monkeypatch.setattr("vertebra.predictor.writers.records_of", lambda prediction, labels: records)
    monkeypatch.setattr("vertebra.predictor.writers.ClassLabels.of", lambda metadata: None)
    writer = CsvWriter(tmp_path, None)
    writer.add(None)
    writer.close()
    with open(tmp_path / "predictions.csv", newline="") as file:
        first, second = list(csv.DictReader(file))
    assert (first["file_name"], first["category"]) == (f"'{name}.png", f"'{name}")
    assert float(first["x0"]) == -3.0  # numbers stay numbers
    assert (second["file_name"], second["category"]) == ("a-b.png", "a=b")
