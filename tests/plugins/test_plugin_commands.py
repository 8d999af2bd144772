"""Commands that plugins add: listed from metadata, imported when used, harmless when broken."""

import re
from pathlib import Path

import pytest

GOOD = """
import typer

app = typer.Typer(help="What the plugin says of it.")

@app.command()
def anchors(data: str, number: int = 9):
    from vertebra.errors import DataError
    if number < 1:
        raise DataError(f"{number} anchors are too few")
    print(f"{number} anchors of {data}")
"""


@pytest.fixture
def site(tmp_path) -> Path:
    return tmp_path / "site-packages"


@pytest.fixture
def install(site):
    """install("name", {"command": "module:app"}, source): a distribution, as pip leaves it."""

    def make(name: str, commands: dict, source: str = "", requires: str = "vertebra>=0.1") -> None:
        info = site / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        header = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nSummary: Sum of {name}.\n"
        (info / "METADATA").write_text(f"{header}Requires-Dist: {requires}\n")
        lines = "\n".join(f"{command} = {value}" for command, value in commands.items())
        (info / "entry_points.txt").write_text(f"[vertebra.commands]\n{lines}\n")
        (site / f"fake_{name.replace('-', '_')}.py").write_text(source)

    return make


def words(text: str) -> str:
    """Without the box that the help is drawn in."""
    return re.sub(r"[\s│]+", " ", text)


def test_help_and_plugins_list_it_without_importing_it(install, site, vertebra):
    install("bomb", {"boom": "fake_bomb:app"}, "raise SystemExit('imported')")
    out = words(vertebra("--help", site=site).stdout)
    assert "boom Sum of bomb. (bomb)" in out
    assert "train" in out
    assert "commands vertebra boom" in words(vertebra("plugins", site=site).stdout)


def test_it_runs_with_its_own_help_arguments_and_errors(install, site, vertebra):
    install("good", {"fine": "fake_good:app"}, GOOD)
    assert vertebra("fine", "anchors", "cells", "--number", "5", site=site).stdout == "5 anchors of cells\n"
    assert "What the plugin says of it." in vertebra("fine", "--help", site=site).stdout
    failed = vertebra("fine", "anchors", "cells", "--number", "0", site=site, code=2)
    assert failed.stderr == "vertebra: 0 anchors are too few\n"


@pytest.mark.parametrize(
    ("source", "value", "told"),
    [
        ("raise OSError('no license')", "app", "cannot be imported: OSError: no license"),
        ("app = 3", "app", "fake_bad:app is a int, expected a typer.Typer"),
        ("apps = 3", "app", "has no 'app'.\n  Nearest: apps"),
        (GOOD.replace("data: str", "data: 'Data'"), "app", "cannot be imported: NameError"),
    ],
)
def test_a_broken_one_is_explained_when_used_and_harms_nothing_else(install, site, vertebra, source, value, told):
    install("bad", {"broken": f"fake_bad:{value}"}, source)
    assert "broken" in vertebra("--help", site=site).stdout
    assert "Usage" in vertebra("train", "--help", site=site).stdout
    failed = vertebra("broken", "anchors", site=site, code=2)
    assert failed.stderr.startswith("vertebra: command broken of plugin bad 1.0")
    assert told in failed.stderr
    checked = vertebra("plugins", "check", "bad", site=site, code=1).stdout
    assert "bad 1.0: BROKEN\n  command broken" in checked
    assert "expected a class" not in checked


def test_a_plugin_for_another_core_or_switched_off_is_not_imported(install, site, vertebra):
    install("future", {"later": "fake_future:app"}, "raise SystemExit('imported')", requires="vertebra>=99")
    assert "it needs vertebra>=99" in vertebra("later", site=site, code=2).stderr
    failed = vertebra("--no-plugin", "future", "later", site=site, code=2)
    assert "it is switched off" in failed.stderr
    off = {"VERTEBRA_PLUGINS_DISABLE": "future"}
    assert "later" not in vertebra("--help", site=site, **off).stdout


def test_a_name_of_the_core_is_the_cores_and_of_two_plugins_needs_a_choice(install, site, vertebra):
    install("one", {"train": "fake_one:app", "both": "fake_one:app"}, GOOD)
    install("two", {"both": "fake_two:app"}, GOOD)
    assert "Train from a recipe" in vertebra("train", "--help", site=site).stdout
    assert "note: command train: the core has a command of this name" in vertebra("plugins", site=site).stdout
    assert vertebra("one:train", "anchors", "cells", site=site).stdout == "9 anchors of cells\n"
    failed = vertebra("both", "anchors", "cells", site=site, code=2).stderr
    assert "offered by one 1.0 and two 1.0; say which: `vertebra one:both` or `vertebra two:both`" in failed
    assert vertebra("two:both", "anchors", "cells", site=site).stdout == "9 anchors of cells\n"
    only = vertebra("--no-plugin", "one", "both", "anchors", "cells", site=site).stdout
    assert only == "9 anchors of cells\n"
