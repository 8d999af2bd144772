"""Every fenced block of docs/plugins.md is run, in the order of the page.

A block whose first line is a comment with a file name becomes that file; other Python is executed; in a `console` block
each `$` line is run, and the lines below it must stand in its output. Trainings are cut to two steps.
"""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from vertebra import plugins
from vertebra.plugins.local_files import load_local_plugin
from vertebra.registry import REGISTRIES

pytestmark = pytest.mark.usefixtures("clean_slate_per_file")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "plugins.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"# (\S+\.\w+)\n")
SHORT = (
    "train.steps=2 train.epochs=null train.batch_size=2 data.workers=0 evaluate.pictures=0 evaluate.report=false "
    "data.train.images=4 data.val.images=4"
)
QUICK_CHECKS = ("test_images_without_objects", "test_odd_sizes", "test_every_parameter_gets_a_gradient")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder as the current directory, and in it one where `pip install` puts things."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    kept = {kind: dict(registry._obj_map) for kind, registry in REGISTRIES.items()}
    yield tmp_path
    forget(kept)


def forget(registered: dict[str, dict]) -> None:
    """As in a new process: nothing of the page's own is imported or registered."""
    for kind, registry in REGISTRIES.items():
        registry._obj_map = dict(registered[kind])
    for name in [
        name for name in sys.modules if name.startswith(("vertebra.plugins.local_files.", "point_head", "my_format"))
    ]:
        del sys.modules[name]
    plugins.rescan()
    importlib.invalidate_caches()


def test_every_kind_has_a_chapter_with_an_example():
    page = PAGE.read_text(encoding="utf-8")
    chapters = {
        re.sub(r"^an? (whole )?", "", title.lower()): text
        for title, text in re.findall(r"^## ([^\n]+)\n(.*?)(?=^## )", page, re.MULTILINE | re.DOTALL)
    }
    for kind in plugins.KINDS:
        assert f"@{kind.upper()}".replace("LOSS", "LOSSE") + "S.register()" in chapters[kind], kind
        assert f"| [{kind}](#a" in page


@pytest.mark.e2e
def test_the_page_works_from_top_to_bottom(command_line, place, monkeypatch):
    registered = {kind: dict(registry._obj_map) for kind, registry in REGISTRIES.items()}
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert len(blocks) >= 10 and PAGE.read_text(encoding="utf-8").count("\n```") == 2 * len(blocks)
    for language, text in blocks:
        if named := FILE_NAME.match(text):
            Path(named[1]).write_text(text[named.end() :], encoding="utf-8")
            if Path(named[1]).name.startswith("test_"):
                run_quick_checks(Path(named[1]))
        elif language == "python":
            with monkeypatch.context() as patch:
                patch.syspath_prepend(str(place))  # as in a Python that is started there
                exec(compile(text, str(PAGE), "exec"), {})
        elif language == "console":
            for command, shown in commands(text):
                words = shlex.split(command)
                if words[0] == "vertebra":
                    extra = SHORT.split() if words[1] == "train" else []
                    code = 2 if shown and shown[0].startswith("vertebra: ") else 0
                    output = command_line(*words[1:], *extra, code=code, site=place / "installed").output
                else:
                    output = run(command)
                missing = [line for line in shown if line.strip() not in output]
                assert not missing, f"{command} does not say {missing}, but:\n{output}"
                if command.startswith("pip install"):
                    monkeypatch.delenv("VERTEBRA_LOCAL_PLUGINS", raising=False)
                    forget(registered)
        else:
            pytest.fail(f"nothing runs a block of {language}")
    assert Path("runs/point/plugins/my_head.py").is_file()
    assert not Path("runs/installed/plugins").exists()
    assert Path("my-head/pyproject.toml").is_file() and Path("ideas/my-idea/my_idea/neck.py").is_file()
    assert list(Path("runs/tiny/plugins").glob("my_*.py"))


def commands(text: str):
    """(command, lines below it) of a console block."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *shown = part.rstrip().splitlines()
        yield command, shown


def run(command: str) -> str:
    """What another program than `vertebra` writes, in a process of its own."""
    words = shlex.split(command)
    if command.startswith("python -m build"):
        command = f"{sys.executable} -m build --wheel --no-isolation {words[-1]}"
    elif words[0] == "pip":
        command = f"{sys.executable} -m pip install --no-deps --no-index --target installed {words[-1]}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def run_quick_checks(file: Path) -> None:
    """The quickest checks of the page's conformance test; all of them run where a plugin is tested for good."""
    names: dict = {}
    exec(compile(file.read_text(encoding="utf-8"), str(file), "exec"), names)
    checks = names["TestPointHead"]()
    load_local_plugin("my_head.py")
    for name in QUICK_CHECKS:
        getattr(checks, name)()
