"""Tests stand where their code stands: a folder of tests is named like the package or module that it tests."""

from pathlib import Path

import pytest

REFERENCE = "reference"  # numbers of other programs, for tests in several folders
WHOLE = "whole"  # what is about all of the project, in folders of any name


def names_of(package: Path) -> set[str]:
    """What may be imported out of a package: its packages and its modules."""
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    return folders | {path.stem for path in package.glob("*.py")} - {"__init__", "__main__"}


def wrong_folders(tests: Path, core: Path) -> list[str]:
    """What is wrong with the folders below `tests` that hold test files."""
    wrong = []
    for folder in sorted({path.parent for path in tests.rglob("test_*.py")} - {tests}):
        place = folder.relative_to(tests)
        first, *deeper = place.parts
        if first == WHOLE:
            continue
        if first == REFERENCE:
            wrong.append(f"{place} holds tests; it is for files that tests read")
            continue
        package = core / "vertebra"
        names = [first, *deeper]
        if first == "eval":
            package, names = core / "eval" / "vertebra_eval", deeper
        for name in names:
            if name not in names_of(package):
                wrong.append(f"{place}: {package.relative_to(core)} has no package or module {name}")
                break
            package /= name
    return wrong


def test_every_folder_of_tests_is_named_like_what_it_tests(repository):
    folders = {path.parent for path in (repository / "tests").rglob("test_*.py")}
    assert len(folders) > 20
    wrong = wrong_folders(repository / "tests", repository / "core")
    assert not wrong, "\n".join(wrong)


@pytest.fixture
def tree(tmp_path):
    """tree("tests/data/test_x.py"): what is wrong with an example's folders once it has this file too."""
    for path in ("vertebra/data/__init__.py", "vertebra/data/coco.py", "vertebra/plugins.py", "vertebra/__init__.py"):
        (tmp_path / "core" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "core" / path).touch()
    (tmp_path / "core/eval/vertebra_eval/panoptic").mkdir(parents=True)
    (tmp_path / "core/eval/vertebra_eval/panoptic/__init__.py").touch()

    def add(file: str) -> list[str]:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
        return wrong_folders(tmp_path / "tests", tmp_path / "core")

    return add


@pytest.mark.parametrize("folder", ["data", "data/coco", "plugins", "eval", "eval/panoptic", "whole", "whole/wheels"])
def test_a_package_or_a_module_names_a_folder(tree, folder):
    assert tree(f"tests/{folder}/test_x.py") == []


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("data_more", "data_more: vertebra has no package or module data_more"),
        ("__init__", "__init__: vertebra has no package or module __init__"),
        ("data/more", "data/more: vertebra/data has no package or module more"),
        ("data/coco/more", "data/coco/more: vertebra/data/coco has no package or module more"),
        ("plugins/data", "plugins/data: vertebra/plugins has no package or module data"),
        ("eval/data", "eval/data: eval/vertebra_eval has no package or module data"),
        ("panoptic", "panoptic: vertebra has no package or module panoptic"),
        ("reference", "reference holds tests; it is for files that tests read"),
    ],
)
def test_a_folder_with_another_name_is_found(tree, folder, message):
    assert tree(f"tests/{folder}/test_x.py") == [message]


def test_a_folder_without_test_files_may_have_any_name(tree):
    assert tree("tests/reference/numbers.json") == []
    assert tree("tests/odd/helper.py") == []
