"""How commands end: one message whatever happens, with a file for what nobody foresaw."""

import ast
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

RECIPE = """
plugins: [mine.py]
model:
  backbone: {name: ResNet, depth: 18, norm: frozen_bn, out_features: [res2]}
  heads: {pixels: {name: Mine}}
data:
  train: {format: shapes, images: 2, split: train, size: 64}
  train_transforms: []
  workers: 0
train: {steps: 1, batch_size: 2, device: cpu, amp: "off"}
"""
PLUGIN = """
from vertebra.models import Head
from vertebra.registry import HEADS

@HEADS.register()
class Mine(Head):
    def __init__(self, input_shape) -> None:
        super().__init__()
    def forward(self, features):
        return {"{0}".format(1): 1 / 0}
    def losses(self, raw, batch):
        return raw
"""
_OWN_TEMPLATES = {
    "tools/benchmark_start.py",
    "tools/dump_numbers.py",
}  # texts of the code itself
_OWN_TEMPLATES |= {"core/vertebra/plugins/isolation.py", "core/vertebra/printable.py"}  # a traceback, a log record
HUGE = "9" * 400


@pytest.fixture
def run(command_line, tmp_path, monkeypatch):
    """run("train", code=2): standard error of the command; `run.reports` has the files with tracebacks."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "reports").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "reports"))

    def run(*arguments, code, **settings):
        done = command_line(*arguments, cwd=tmp_path, code=code, VERTEBRA_CACHE=tmp_path / "cache", **settings)
        run.reports = sorted((tmp_path / "reports").glob("vertebra-traceback-*.txt"))
        assert settings or "Traceback" not in done.output
        return done.stderr

    return run


def test_an_error_of_a_local_plugin_names_its_line_and_a_file_with_the_traceback(run, tmp_path):
    err = run("train", "recipe.yaml", "--output", "run", code=2)
    (report,) = run.reports
    assert f"vertebra: local plugin {tmp_path / 'mine.py'} failed: ZeroDivisionError: division by zero\n" in err
    assert f"in {tmp_path / 'mine.py'}:10 (forward), in model.heads.pixels (recipe.yaml:5: head Mine)" in err
    assert f"The traceback is in {report}" in err
    assert "Traceback (most recent call last)" in report.read_text()
    assert 'return {"{0}".format(1): 1 / 0}' in report.read_text()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_transform_of_a_local_plugin_is_named_with_its_image(run, tmp_path, workers):
    boom = (
        "@TRANSFORMS.register()\nclass Boom(Transform):\n    def __call__(self, record, rng):\n        return 1 / 0\n"
    )
    imports = "from vertebra.data.transforms import Transform\nfrom vertebra.registry import TRANSFORMS\n"
    text = PLUGIN + imports + boom
    (tmp_path / "mine.py").write_text(text)
    line = text.splitlines().index("        return 1 / 0") + 1
    words = ("data.train_transforms=[Boom]", f"data.workers={workers}", "--output", "run")
    err = run("train", "recipe.yaml", *words, code=2)
    assert f"local plugin {tmp_path / 'mine.py'} failed: " in err
    assert ".jpg: a transform or the mapper failed on this image: ZeroDivisionError: division by zero\n" in err
    assert f"in {tmp_path / 'mine.py'}:{line} (__call__)" in err
    assert "return 1 / 0" in run.reports[0].read_text()


def test_a_method_that_takes_other_arguments_is_its_plugins_error(run, tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN.replace("def losses(self, raw, batch)", "def losses(self, raw)"))
    text = (tmp_path / "mine.py").read_text()
    (tmp_path / "mine.py").write_text(text.replace('{"{0}".format(1): 1 / 0}', "features"))
    err = run("train", "recipe.yaml", "--output", "run", code=2)
    assert f"{tmp_path / 'mine.py'}:11: head Mine: losses is called as losses(raw, batch), but takes (self, raw)" in err


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("err = ValueError('odd'); raise err from err", "ValueError: odd"),
        ("open('no/such/file')", "FileNotFoundError: "),
        ("raise BrokenPipeError(32, 'Broken pipe')", "BrokenPipeError: "),
        ("raise RuntimeError('my table is out of memory slots')", "RuntimeError: my table is out of memory"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("raise SystemExit('enough')", "SystemExit: enough"),
        ("{}['temperature']", "KeyError: 'temperature'"),
    ],
)
def test_whatever_a_local_plugin_raises_names_its_line(run, tmp_path, code, words):
    (tmp_path / "mine.py").write_text(PLUGIN.replace('return {"{0}".format(1): 1 / 0}', code))
    err = run("train", "recipe.yaml", "--output", "run", code=2)
    assert f"failed: {words}" in err and f"in {tmp_path / 'mine.py'}:10 (forward)" in err and run.reports


@pytest.mark.parametrize("stream", ["1>&-", "2>&-", "1>&- 2>&-"])
def test_a_stream_may_be_closed(tmp_path, stream):
    words = f"{sys.executable} -m vertebra"
    assert subprocess.call(f"{words} components {stream}", shell=True, cwd=tmp_path) == 0
    assert subprocess.call(f"{words} config none.yaml {stream}", shell=True, cwd=tmp_path) == 2


def test_a_transform_that_returns_nothing_is_named(run, tmp_path):
    transform = (
        "@TRANSFORMS.register()\nclass Lost(Transform):\n    def __call__(self, sample, rng):\n        sample.image\n"
    )
    imports = "from vertebra.data.transforms import Transform\nfrom vertebra.registry import TRANSFORMS\n"
    (tmp_path / "mine.py").write_text(PLUGIN + imports + transform)
    err = run("train", "recipe.yaml", "data.train_transforms=[Lost]", "--output", "run", code=2)
    assert "transform Lost returned a NoneType, expected the Sample: return sample" in err


def test_what_nobody_foresaw_in_the_core_is_called_a_bug(run, monkeypatch):
    monkeypatch.setattr("vertebra.config.load.read_with_bases", lambda file: [][1])
    err = run("config", "recipe.yaml", code=1)
    assert "vertebra: this is a bug in vertebra: IndexError: list index out of range\n" in err
    assert re.search(r"in \S*test_ending\.py:\d+|in \S*load\.py:\d+ \(load_recipe\)", err)
    assert f"The traceback is in {run.reports[0]}; please report it with that file" in err


def test_an_installed_plugin_is_named(run, monkeypatch):
    monkeypatch.setattr("vertebra_retinanet.head.RetinaNetHead.forward", _loses_itself)
    err = run(
        *("train", "recipe.yaml", "model.heads.pixels={name: RetinaNetHead, num_convs: 0}", "--output", "run"), code=1
    )
    assert "this is a bug in vertebra" in err and "LookupError: lost" in err


def _loses_itself(*_):
    raise LookupError("lost")


def test_a_traceback_is_printed_on_request(run):
    err = run("train", "recipe.yaml", "--output", "run", code=2, VERTEBRA_TRACEBACK="1")
    assert "Traceback (most recent call last)" in err and "ZeroDivisionError: division by zero\n  in " in err


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "out of memory: no more is free"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out of memory: .*can't allocate"),
        (OSError(24, "Too many open files"), r"Too many open files\. Use fewer workers"),
        (FileExistsError(17, "File exists", "taken.txt"), r"taken\.txt: File exists\. Choose another location"),
        (FileNotFoundError(2, "No such file or directory", "x.png"), r"x\.png: No such file or directory\."),
    ],
)
def test_what_a_user_can_fix_is_exit_code_2(run, monkeypatch, error, words):
    def fail(file):
        raise error

    monkeypatch.setattr("vertebra.config.load.read_with_bases", fail)
    assert re.search(words, run("config", "recipe.yaml", code=2))
    assert not run.reports


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.device=mps", "device 'mps' cannot be used here"),
        ("train.device=meta", "device 'meta' cannot be used here"),
        ("train.device=xla", "device 'xla' cannot be used here"),
        ("train.device=banana", "device 'banana' is not known to torch"),
        (f"seed={HUGE}", "does not fit into 64 bits"),
        (f"seed=-{HUGE}", "does not fit into 64 bits"),
        (f"seed=0x{HUGE}", "does not fit into 64 bits"),
        (f"train.batch_size={HUGE}", "does not fit into 64 bits"),
        ("train.batch_size=1000000000", "train.batch_size is 1000000000, expected at most 131072"),
        ("data.workers=1000000", "data.workers is 1000000, expected at most 1024"),
        ("train={steps: null, epochs: .inf}", "train.epochs is inf, expected a number above 0 and below"),
        ("train={steps: null, epochs: .nan}", "train.epochs is nan, expected a number above 0 and below"),
        (f'train.checkpoint_every="{HUGE} epochs"', "expected a number of steps, or text like"),
        ("model.pixel_mean=[.nan, 1, 1]", "model.pixel_mean is [nan, 1.0, 1.0], expected numbers"),
        (f"data.train_transforms.{'1' * 5000}.prob=1", "is not one of its positions"),
        ("output={0.__class__}", "output"),
        (r'output="a\0b"', "holds a zero byte"),
        ("train.steps=9223372036854775807", "train.steps is 9223372036854775807, expected at most"),
    ],
)
def test_absurd_values_are_one_message(run, override, words):
    err = run("train", "recipe.yaml", override, *(() if "output" in override else ("--output", "run")), code=2)
    if "output={0" not in override:
        assert words in err
    assert max(map(len, err.splitlines())) < 600


def test_no_text_of_a_user_is_a_format():
    """`{0.__class__}` in a recipe means itself: nothing calls str.format but on a text that stands in the code."""
    root = Path(__file__).parents[2]
    found = []
    for path in [
        *root.glob("core/vertebra/**/*.py"),
        *root.glob("plugins/*/vertebra_*/**/*.py"),
        *root.glob("tools/*.py"),
    ]:
        for node in ast.walk(ast.parse(path.read_text())):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if called and node.func.attr in ("format", "format_map") and not isinstance(node.func.value, ast.Constant):
                found.append(f"{path.relative_to(root)}:{node.lineno}")
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod) and isinstance(node.left, ast.JoinedStr):
                found.append(f"{path.relative_to(root)}:{node.lineno}")
    assert {place.partition(":")[0] for place in found} == _OWN_TEMPLATES, found


ENDING = """
import os, signal
from vertebra.cli import ending
from vertebra.errors import VertebraError
message = ending._message
def interrupted(err):
    for _ in range({signals}):
        os.kill(os.getpid(), signal.SIGTERM)
    return message(err)
ending._message = interrupted
with ending.one_message("program"):
    raise VertebraError("the reason")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
@pytest.mark.parametrize(("signals", "code", "printed"), [(1, 2, "program: the reason\n"), (2, -15, "")])
def test_a_signal_does_not_cut_off_the_message_that_ends_a_program(signals, code, printed):
    script = ENDING.replace("{signals}", str(signals))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (code, printed)
