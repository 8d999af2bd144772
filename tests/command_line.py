"""The fixture `command_line`: the command `vertebra` in the process of the tests.

A new process needs seconds to import torch; only tests whose point is a process start one.
"""

import contextlib
import importlib
import io
import logging
import os
import runpy
import signal
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from vertebra import plugins
from vertebra.registry import REGISTRIES

LOCAL_PLUGINS = "vertebra.plugins.local_files."  # the modules that local files become


@dataclass(frozen=True)
class Finished:
    """A command that ended: its exit code, what it wrote, and the error that it made a message of."""

    code: int
    stdout: str
    stderr: str
    error: BaseException | None = None

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


@pytest.fixture(scope="session")
def command_line():
    """command_line("train", "tiny.yaml", cwd=folder): what the command `vertebra train tiny.yaml` does and prints.

    It runs in this process, which saves the seconds that a new one needs to import torch, but it finds what it would
    find in a new one, and nothing of it stays (see `like_a_new_process`).

    Args:
        cwd: current directory of the command. Default: that of the test.
        code: the expected exit code.
        stdin: text on standard input.
        site: a folder with further installed distributions, as in PYTHONPATH.
        script: a Python file that is run instead of `vertebra`.
        environment: further variables; None removes one.
    """

    def run(
        *arguments: object,
        cwd: Path | None = None,
        code: int = 0,
        stdin: str = "",
        site: Path | None = None,
        script: Path | None = None,
        **environment: object,
    ) -> Finished:
        from vertebra.cli import main

        words = [str(script or "vertebra"), *map(str, arguments)]
        ended, error = 0, None
        with like_a_new_process(words, cwd, site, environment), streams(stdin) as written:
            try:
                main() if script is None else runpy.run_path(str(script), run_name="__main__")
            except SystemExit as end:
                ended = end.code if isinstance(end.code, int) else int(end.code is not None)
                error = end.__context__
                if isinstance(end.code, str):
                    print(end.code, file=sys.stderr)
        done = Finished(ended, **written, error=error)
        if done.code != code:
            text = f"exit code {done.code}, expected {code}: {words}\n{done.stdout}\n{done.stderr}"
            raise AssertionError(text) from error
        return done

    return run


@contextlib.contextmanager
def streams(stdin: str) -> Iterator[dict[str, str]]:
    """No terminal: standard input is a text, and afterwards the dict has what was written to `stdout` and `stderr`."""
    written: dict[str, str] = {}
    try:
        with replaced(sys, "stdin", io.StringIO(stdin)), captured(1, "stdout", written), captured(2, "stderr", written):
            yield written
    except BaseException:
        print(*written.values(), sep="\n")  # pytest shows it with the error
        raise


@contextlib.contextmanager
def captured(number: int, name: str, written: dict[str, str]) -> Iterator[None]:
    """Gathers what goes to a file descriptor, from processes that are started meanwhile too."""
    getattr(sys, name).flush()
    kept = os.dup(number)
    with TemporaryFile() as file, open(number, "wb", buffering=0, closefd=False) as raw:
        os.dup2(file.fileno(), number)
        try:
            with replaced(sys, name, io.TextIOWrapper(raw, encoding="utf-8", write_through=True)):
                yield
        finally:
            os.dup2(kept, number)
            os.close(kept)
            file.seek(0)
            written[name] = file.read().decode("utf-8", "replace")


@contextlib.contextmanager
def like_a_new_process(words: list[str], cwd: Path | None, site: Path | None, environment: dict) -> Iterator[None]:
    """What runs inside starts as a new process does, apart from the modules that are imported already.

    No component, dataset or local file is registered, no logging is set up, warnings go to standard error. What a
    command leaves to its process is put back: variables for the processes that it starts, seeds, registrations, the
    modules of local files and of `site`. What even a library call must not change is checked: `global_settings`.
    """
    from vertebra.data import DatasetCatalog, MetadataCatalog
    from vertebra.engine.rng import preserved_rng

    variables, folder, path, hook = dict(os.environ), os.getcwd(), list(sys.path), sys.excepthook
    imported = {name: module for name, module in sys.modules.items() if name.startswith(LOCAL_PLUGINS)}
    known = set(sys.modules) - set(imported)
    root, settings = logging.getLogger(), global_settings()
    handlers, level = root.handlers, root.level
    with contextlib.ExitStack() as stack:
        for registry in REGISTRIES.values():
            stack.enter_context(replaced(registry, "_obj_map", {}))
        stack.enter_context(replaced(DatasetCatalog, "_functions", {}))
        stack.enter_context(replaced(MetadataCatalog, "_entries", {}))
        stack.enter_context(replaced(sys, "argv", words))
        stack.enter_context(preserved_rng())
        stack.enter_context(python_warnings())
        try:
            root.handlers = []
            root.setLevel(logging.WARNING)
            for name in imported:
                del sys.modules[name]
            for name in [name for name in os.environ if name.startswith("VERTEBRA_") and name != "VERTEBRA_CACHE"]:
                del os.environ[name]
            for name, value in {"COLUMNS": "200", "TERM": "dumb", **environment}.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = str(value)
            if site is not None:
                sys.path.insert(0, str(site))
                importlib.invalidate_caches()
            os.chdir(folder if cwd is None else cwd)
            plugins.rescan()
            yield
            assert os.getcwd() == str(Path(folder if cwd is None else cwd).resolve())
            changed = {name: value for name, value in global_settings().items() if value != settings[name]}
            assert not changed, f"{words} changed for the whole process: {changed}"
        finally:
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(variables)
            sys.path[:] = path
            sys.excepthook = hook  # typer's
            root.handlers = handlers
            root.setLevel(level)
            for name in set(sys.modules) - known:
                origin = getattr(sys.modules[name], "__file__", None) or ""
                if name.startswith(LOCAL_PLUGINS) or (site is not None and Path(origin).is_relative_to(site)):
                    del sys.modules[name]
            sys.modules.update(imported)
            plugins.rescan()


@contextlib.contextmanager
def replaced(owner: object, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def python_warnings() -> Iterator[None]:
    """Warnings are filtered and printed as Python does it where nobody says otherwise."""
    with warnings.catch_warnings():
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
        warnings.showwarning = lambda message, category, file, line, _=None, text=None: sys.stderr.write(
            warnings.formatwarning(message, category, file, line, text)
        )
        yield


def global_settings() -> dict[str, object]:
    """Settings of the whole process that commands, like any call of the library, leave as they find them."""
    import torch

    ours = logging.getLogger("vertebra")
    return {
        "signal handlers": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "logging": (list(ours.handlers), ours.level, ours.propagate, ours.disabled),
        "threads": torch.get_num_threads(),
        "deterministic": (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic),
        "cudnn.benchmark": torch.backends.cudnn.benchmark,
        "float32 precision": torch.get_float32_matmul_precision(),
        "default dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")),
    }
