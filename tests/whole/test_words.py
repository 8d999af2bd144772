"""The word linter finds what its rules describe, and the repository has none of it."""

import importlib.util
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "lint_words.py"
spec = importlib.util.spec_from_file_location("lint_words", TOOL)
lint_words = importlib.util.module_from_spec(spec)
sys.modules["lint_words"] = lint_words  # its dataclass looks itself up there
spec.loader.exec_module(lint_words)


def phrases(text: str) -> list[str]:
    return [phrase for _, phrase, _ in lint_words.find_words(text)]


@pytest.mark.parametrize("rule", lint_words.RULES, ids=lambda rule: rule.example)
def test_a_rule_finds_its_example_and_nothing_in_good_lines(rule):
    assert list(rule.find(rule.example.lower())), f"{rule.pattern} does not match its example"
    assert phrases(rule.example), "the search for any rule misses the example"
    for line in rule.good:
        assert not list(rule.find(line.lower())), line


def test_a_finding_has_its_line_and_the_suggestion_in_american():
    text = "Good.\nBatch Normalisation of unlabelled pixels,\nin a def test_neighbours(): pass\n"
    assert list(lint_words.find_words(text)) == [
        (2, "unlabelled", "unlabeled"),
        (2, "normalisation", "normalization"),
        (3, "neighbour", "neighbor"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "see https://example.org/colour/centre",
        'entry.get("colour")',
        "from vertebra.models.fuse import fold_neighbours",
        "centre = 1  # words: ok, a keyword of the other library",
    ],
)
def test_what_is_not_our_text_is_exempt(line):
    assert phrases(line) == []


def test_what_is_exempt_hides_nothing_else_in_its_line():
    assert phrases('entry.get("colour")  # the colour of a class') == ["colour"]


def test_the_command_prints_places_and_fails(tmp_path, capsys):
    path = tmp_path / "text.md"
    path.write_text("A fine line.\nHow to mend it.\n", encoding="utf-8")
    assert lint_words.main([str(path)]) == 1
    assert capsys.readouterr().out == f"{path}:2: mend -> fix\n"
    path.write_text("How to fix it.\n", encoding="utf-8")
    assert lint_words.main([str(path)]) == 0


def test_the_repository_is_clean(capsys):
    if not (lint_words.ROOT / ".git").exists():
        pytest.skip("the source tree is not under version control, so its files are not known")
    names = {path.relative_to(lint_words.ROOT).as_posix() for path in lint_words.tracked_files()}
    assert {"README.md", "Makefile", "core/vertebra/cli/app.py", "docs/plugins.md"} < names
    assert lint_words.main([]) == 0, capsys.readouterr().out
