"""The picture of the architecture is what the imports give, and its page names what there is."""

import importlib.util
import re
import shutil

import pytest

FORMS = ("`Instances`", "`DetectionColumns`", "`Matches`", "metrics")


@pytest.fixture(scope="module")
def tool(repository):
    spec = importlib.util.spec_from_file_location("draw_architecture", repository / "tools" / "draw_architecture.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page(repository):
    return (repository / "docs" / "architecture.md").read_text(encoding="utf-8")


@pytest.fixture
def copied(repository, tmp_path, tool, monkeypatch):
    """A copy of the sources, which the tool is pointed at."""
    for folder in ("core", "docs/images"):
        shutil.copytree(repository / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for package in repository.glob("plugins/*/vertebra_*"):
        to = tmp_path / package.relative_to(repository)
        shutil.copytree(package, to, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    return tmp_path


def test_the_picture_is_what_the_imports_give(tool):
    assert tool.main(["--check"]) == 0


def test_another_import_makes_the_picture_old_until_it_is_drawn(tool, copied, capsys):
    assert tool.main(["--check"]) == 0
    path = copied / "core" / "vertebra" / "runtime" / "folders.py"
    text = path.read_text(encoding="utf-8")
    path.write_text(f"{text}\n\ndef later():\n    import vertebra.structures\n", encoding="utf-8")
    assert tool.main(["--check"]) == 1
    assert "run `python tools/draw_architecture.py`" in capsys.readouterr().out
    assert tool.main([]) == 0
    assert tool.main(["--check"]) == 0


def test_a_change_that_adds_no_arrow_keeps_the_picture(tool, copied):
    path = copied / "core" / "vertebra" / "cli" / "app.py"
    path.write_text(f"{path.read_text(encoding='utf-8')}\nimport vertebra.structures\n", encoding="utf-8")
    assert tool.main(["--check"]) == 0  # a chain of arrows leads there already


def test_boxes_do_not_overlap_and_lie_inside(repository, tool):
    text = (repository / tool.PICTURE).read_text(encoding="utf-8")
    found = re.findall(r'<rect class="(?:box|eval)" x="(\d+)" y="(\d+)" width="(\d+)" height="(\d+)"', text)
    boxes = [tuple(map(int, box)) for box in found]
    assert len(boxes) > 10
    for number, (x, y, width, height) in enumerate(boxes):
        assert x >= tool.LEFT and x + width <= tool.RIGHT
        for x1, y1, width1, height1 in boxes[:number]:
            assert x + width <= x1 or x1 + width1 <= x or y + height <= y1 or y1 + height1 <= y


def test_the_page_names_every_part_and_the_four_forms(repository, tool, page):
    names = tool.top_levels(repository / "core" / "vertebra")
    missing = sorted(name for name in names if f"`{name}`" not in page)
    assert not missing, f"docs/architecture.md does not name {missing}"
    numbered = re.findall(r"^(\d)\. (`?\w+`?)", page, flags=re.MULTILINE)
    assert numbered == [(str(number), form) for number, form in enumerate(FORMS, 1)]


def test_paths_on_the_page_are_there(repository, page):
    paths = re.findall(r"`((?:core|plugins|tests|tools|configs)/[\w/.]+)`", page)
    paths += [f"core/{path}" for path in re.findall(r"`(vertebra/[\w/]+\.py)`", page)]
    paths += [f"core/eval/{path}" for path in re.findall(r"`(vertebra_eval/[\w/]+\.py)`", page)]
    missing = [path for path in paths if not (repository / path).exists()]
    assert len(paths) > 15 and not missing, missing
