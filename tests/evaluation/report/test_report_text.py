"""Text in the report: everything is escaped, nothing turns or hides the text around it, and no code builds tags."""

import ast
import re
from html import unescape

import pytest
from PIL import Image

from vertebra.evaluation.report import Facts, Figure, Gallery, Picture, Section, Table, Text, write_report
from vertebra_eval.report.metric_tables import summary_rows

OWN = ["css|safe", "script|safe"]  # our own files
TRUSTING = re.compile(r"Markup\(|__html__|forceescape|xmlattr|autoescape(?!=True,)")
TAG = re.compile(r"</?[a-z]\w*[ >]")


@pytest.fixture(scope="module")
def folder(repository):
    return repository / "core" / "eval" / "vertebra_eval" / "report"


def test_templates_trust_nothing_but_our_own_style_and_script(folder):
    templates = sorted(folder.rglob("*.html"))
    assert len(templates) >= 2
    text = "\n".join(path.read_text(encoding="utf-8") for path in templates)
    assert sorted(re.findall(r"\w+\W+safe\b", text)) == OWN and not TRUSTING.search(text)


def test_python_of_the_report_trusts_nothing_and_builds_no_tags(folder, repository):
    files = [*folder.rglob("*.py"), *(repository / "core" / "vertebra" / "evaluation").rglob("*.py")]
    assert len(files) > 30
    found = []
    for path in files:
        text = path.read_text(encoding="utf-8")
        found += [f"{path.name}: {match}" for match in TRUSTING.findall(text)]
        tree = ast.parse(text)
        documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and id(node) not in documentation and TAG.search(str(node.value)):
                found.append(f"{path.name}:{node.lineno}: {node.value}")
    assert found == []


def page_of(word, folder, file=None):
    """A report with `word` in every place where a text may stand."""
    Image.new("RGB", (20, 10)).save(folder / "a.png")
    blocks = [
        *(Text(word), Table([word, word], [[word, word], [word, 1]]), Figure(folder / "a.png", word)),
        *(Facts({word: word}), Gallery([Picture(folder / "a.png", word)], word)),
    ]
    path = write_report(
        folder / "r.html",
        title=word,
        subtitle=word,
        metrics={f"{word}/AP": 0.5, f"bbox/AP-{word}": None, f"bbox/AP-{word}2": 0.5, "bbox/AP": None},
        reasons={"bbox/AP": word, f"bbox/AP-{word}": word},
        notes=[word],
        intervals={"bbox/AP": (0.1, 0.2)},
        sections=[Section(word, blocks), Section(word, [Facts({word: word})])],
        facts={word: {word: word}},
        recipe_yaml=word,
    )
    return path.read_text(encoding="utf-8")


PLAIN = "plain"


@pytest.mark.parametrize("code", [0x200E, 0x200F, 0x061C, 0x202E, 0x2067, 0x1B, 0x9B, 0xDCFF])
def test_what_turns_text_or_cannot_be_written_is_shown_escaped(code, tmp_path):
    shown = f"\\u{code:04x}" if code > 0xFF else f"\\x{code:02x}"
    page = page_of(f"cod{chr(code)}gpj", tmp_path)
    assert chr(code) not in page
    assert page.count(f"cod{shown}gpj") == page_of(PLAIN, tmp_path).count(PLAIN)


def test_names_of_any_script_stay_as_they_are(tmp_path):
    for name in ("שלום", "قطة", "猫", "naïve 🙂", "a & b < c > d \"e\" 'f'", "{{ title }} {% raw %}"):
        assert unescape(page_of(name, tmp_path)).count(name) == page_of(PLAIN, tmp_path).count(PLAIN) > 25


@pytest.mark.parametrize(
    ("task", "meaning"),
    [
        *((task, "classes of intersection over union") for task in ("sem_seg", "some_plugin")),
        *((task, "matched detections") for task in ("bbox", "segm", "boundary", "keypoints", "lvis_segm")),
    ],
)
def test_one_name_means_what_it_means_in_its_task(task, meaning):
    ((name, value, text),) = summary_rows({f"{task}/mIoU": 0.5})[task]
    assert (name, value) == ("mIoU", 0.5) and meaning in text
