"""Small versions of the tables of `tools/simulate_intervals.py`: intervals hold, comparisons raise few false alarms."""

import importlib.util
import sys

import pytest


@pytest.fixture(scope="module")
def tool(repository):
    """The tool as a module, with its neighbor."""
    folder = str(repository / "tools")
    sys.path.insert(0, folder)
    try:
        spec = importlib.util.spec_from_file_location("simulate_intervals", f"{folder}/simulate_intervals.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(folder)


def rows(tool, capsys, monkeypatch, *words):
    """The cells of the table that the tool prints."""
    monkeypatch.setattr(sys, "argv", ["simulate_intervals.py", *words, "--processes", "1"])
    tool.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def share(cell):
    return float(cell.split()[0])


def test_intervals_of_ap_hold_where_basic_ones_do_not(tool, capsys, monkeypatch):
    """20 classes on 100 images: of 40 intervals of 95 % fewer than 34 would hold once in 200 times."""
    monkeypatch.setattr(tool, "TRUTH_IMAGES", 20_000)
    words = ["coverage", "--task", "bbox", "--cells", "20x100", "--samples", "40", "--methods"]
    held = {row[4]: share(row[7]) for row in rows(tool, capsys, monkeypatch, *words)}
    assert held["AP"] >= 87.5 and held["AP50"] >= 85 and held["AP75"] >= 85
    assert held["basic"] < held["AP"]


@pytest.mark.parametrize("task", ["sem_seg", "panoptic"])
def test_intervals_of_segmentation_hold(tool, capsys, monkeypatch, task):
    words = ["coverage", "--task", task, "--cells", "20x100", "--samples", "60"]
    held = {row[4]: share(row[7]) for row in rows(tool, capsys, monkeypatch, *words)}
    assert held["mIoU" if task == "sem_seg" else "PQ"] >= 86


def test_false_alarms_are_few_and_differences_are_found(tool, capsys, monkeypatch):
    """Of 60 pairs that are the same more than 9 called different has a chance of 1 in 1000."""
    words = ["compare", "--task", "sem_seg", "--cells", "20x200", "--pairs", "60", "--points", "0", "5"]
    found = rows(tool, capsys, monkeypatch, *words)
    assert [(row[3], row[4]) for row in found] == [("1", "0"), ("1", "5"), ("3", "0"), ("3", "5")]
    none, real, none_of_three, real_of_three = (share(row[6]) for row in found)
    assert max(none, none_of_three) <= 15
    assert min(real, real_of_three) >= 60
