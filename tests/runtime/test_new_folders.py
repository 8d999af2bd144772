"""Folders that commands choose themselves: each process gets its own, and one that stays empty goes again."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from vertebra.engine.run_folder import choose_run_folder, newest_run
from vertebra.errors import RecipeError
from vertebra.runtime.folders import drop_if_empty, make_new, new_folder, numbered

FIVE_AT_ONCE = """
import sys
from vertebra.runtime.folders import make_new
sys.stdin.readline()
for _ in range(40):
    folder = make_new("runs/x")
    (folder / "mine").touch()
    print(folder.name, flush=True)
"""


def test_processes_that_ask_together_get_a_folder_each(tmp_path):
    running = [
        subprocess.Popen(
            [sys.executable, "-c", FIVE_AT_ONCE], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for process in running:
        process.stdin.write("go\n")
        process.stdin.flush()
    with ThreadPoolExecutor() as pool:
        lines = list(pool.map(lambda process: process.communicate(timeout=60)[0].split(), running))
    names = [name for own in lines for name in own]
    assert sorted(names) == sorted({"x", *(f"x-{number}" for number in range(2, 161))})
    assert len(numbered(tmp_path / "runs" / "x")) == 160


def test_numbers_go_on_after_the_highest(tmp_path):
    for name in ("x-2", "x-7", "x-07", "x-a", "y"):
        (tmp_path / name).mkdir()
    assert make_new(tmp_path / "x").name == "x-8"
    assert set(numbered(tmp_path / "x")) == {2, 7, 8}


def test_what_stays_empty_goes_with_the_parents_made_for_it(tmp_path):
    with new_folder(tmp_path / "a" / "b" / "x") as folder:
        assert folder.is_dir()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "kept").mkdir()
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "kept" / "x"):
        _ = 1 / 0
    assert list((tmp_path / "kept").iterdir()) == []
    with new_folder(tmp_path / "kept" / "x") as folder:
        (folder / "result").touch()
    drop_if_empty(folder)
    assert (folder / "result").exists()
    (tmp_path / "foreign").mkdir()
    drop_if_empty(tmp_path / "foreign")
    assert (tmp_path / "foreign").is_dir()


def test_a_process_that_wrote_nothing_leaves_nothing(tmp_path):
    code = "from vertebra.runtime.folders import make_new; make_new('runs/x'); raise SystemExit(3)"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 3
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_made_beforehand_is_taken_once(tmp_path):
    (tmp_path / "x").mkdir()
    with new_folder(tmp_path / "x") as first, new_folder(tmp_path / "x") as second:
        assert (first.name, second.name) == ("x", "x-2")
        (first / "result").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x"]
    assert [path.name for path in first.iterdir()] == ["result"]


def test_a_run_may_go_to_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = SimpleNamespace(run_folder=".")
    assert choose_run_folder(recipe) == Path() and newest_run(recipe) is None
    (tmp_path / "recipe.yaml").touch()
    assert choose_run_folder(recipe, resume=True) == Path()
    with pytest.raises(RecipeError, match="already holds a run"):
        choose_run_folder(recipe)


def test_a_file_in_the_way_is_an_error(tmp_path):
    (tmp_path / "runs").touch()
    with pytest.raises(RecipeError, match="runs is not a folder"):
        make_new(tmp_path / "runs" / "x")
