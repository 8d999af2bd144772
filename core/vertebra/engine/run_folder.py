"""The folder of a run: where each file lies, whether a run may write there, what changed since it was written.

recipe.yaml  plugins/  log.txt  metrics.jsonl  checkpoints/step_0000100.pth, last  final.pth  evaluation/
"""

from __future__ import annotations

import contextlib
import errno
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import yaml

from vertebra.engine.plugin_files import PluginFile, save_plugin_files
from vertebra.errors import RecipeError
from vertebra.printable import PlainFormatter
from vertebra.runtime.distributed import on_main_process
from vertebra.runtime.folders import check_can_be_written, make_new, numbered, settle
from vertebra_eval.files import read_text, write_text

if sys.platform != "win32":
    import fcntl

__all__ = ["RunFolder", "choose_run_folder", "first_folder", "logging_to", "newest_run", "recipe_changes"]

TO_FILE_ONLY = {"file_only": True}
"""As `extra` of a log call: the line goes to log.txt and not to the console."""


class RunFolder:
    """Paths inside a run's folder; creates nothing until `claim`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.recipe = self.path / "recipe.yaml"
        self.log = self.path / "log.txt"
        self.metrics = self.path / "metrics.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.final = self.path / "final.pth"
        self.evaluation = self.path / "evaluation"
        self.tensorboard = self.path / "tensorboard"
        self._locked: TextIO | None = None

    def holds_a_run(self) -> bool:
        """Whether something of a training lies here already."""
        return any(path.exists() for path in (self.recipe, self.metrics, self.checkpoints, self.final))

    def check_free(self, resume: bool) -> None:
        """Raises RecipeError where a new run would mix with one that is here, or cannot write."""
        files = tuple(path.name for path in (self.recipe, self.log, self.metrics, self.final))
        folders = tuple(path.name for path in (self.checkpoints, self.evaluation, self.tensorboard))
        check_can_be_written(self.path, files, folders)
        if self.holds_a_run() and not resume:
            raise RecipeError(
                f"{self.path} already holds a run.\n"
                "  To continue it: --resume (in Python: Trainer(..., resume=True)).\n"
                "  To start another: --output with a new folder, or remove this one"
            )

    def claim(self, recipe_text: str, step: int, plugin_files: Sequence[PluginFile] = ()) -> None:
        """Makes the folder and saves the recipe and its local plugins.

        A recipe that differs from it is kept as recipe.until_step_N.yaml, a plugin in the same way.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock()
        for leftover in self.path.glob(".*.tmp"):  # of a run that was killed while it wrote
            leftover.unlink(missing_ok=True)
        save_plugin_files(self.path, plugin_files, step)
        if self.recipe.exists():
            old = read_text(self.recipe)
            if old == recipe_text:
                return
            write_text(self.path / f"recipe.until_step_{step}.yaml", old, durable=True)
        write_text(self.recipe, recipe_text, durable=True)
        settle(self.path)

    def release(self) -> None:
        """Lets other processes train here; the end of this process does it too."""
        if self._locked is not None:
            (self.path / ".lock").unlink(missing_ok=True)
            self._locked.close()
            self._locked = None

    def _lock(self) -> None:
        """Raises RecipeError where another process trains into this folder at this moment."""
        if sys.platform == "win32" or self._locked is not None:
            return
        file = (self.path / ".lock").open("a")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # of this process alone: data workers do not inherit it
        except OSError as err:
            file.close()
            if err.errno not in (errno.EACCES, errno.EAGAIN):
                return  # a file system without locks
            raise RecipeError(
                f"{self.path}: another process is training in this folder.\n"
                "  Wait for it or stop it, or choose another folder with --output"
            ) from err
        self._locked = file


def choose_run_folder(recipe: Any, output: str | Path | None = None, *, resume: bool = False) -> Path:
    """The folder for a run of `recipe`.

    `output` where it is given. With `resume`, the newest that holds a run of the recipe's own `output`. Otherwise a new
    one: `output` with `{name}` filled in, or if that is taken the same with -2, -3, ...; it is made at once, so that
    runs that start together get one each. The main process chooses for all.
    """
    if output is not None:
        return Path(output)
    return (newest_run(recipe) if resume else None) or on_main_process(lambda: _new(first_folder(recipe)))


def _new(first: Path) -> Path:
    if first.name:
        return make_new(first)
    RunFolder(first).check_free(resume=False)  # `.`, which has no numbers
    return first


def first_folder(recipe: Any) -> Path:
    """What the recipe's `output` says, checked before the work whose results go there; makes nothing.

    Raises:
        RecipeError: it cannot be written.
    """
    return check_can_be_written(recipe.run_folder)


def newest_run(recipe: Any) -> Path | None:
    """The folder of the recipe's latest run, None where there is none; the main process looks for all."""

    def look() -> Path | None:
        first = first_folder(recipe)
        if not first.name:
            return first if RunFolder(first).holds_a_run() else None
        runs = {n: path for n, path in numbered(first).items() if RunFolder(path).holds_a_run()}
        return runs[max(runs)] if runs else None

    return on_main_process(look)


def recipe_changes(old: str, new: str) -> list[str]:
    """`key: old -> new` for each value in which two recipes (YAML texts) differ."""
    before, after = (dict(_flatten(yaml.safe_load(text) or {})) for text in (old, new))
    keys = [*after, *(key for key in before if key not in after)]
    return [
        f"{key}: {before.get(key, '(absent)')!r} -> {after.get(key, '(absent)')!r}"
        for key in keys
        if before.get(key, "(absent)") != after.get(key, "(absent)")
    ]


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list) and any(isinstance(inner, (dict, list)) for inner in value):
        for index, inner in enumerate(value):
            yield from _flatten(inner, f"{prefix}.{index}")
    else:
        yield prefix, value


@contextlib.contextmanager
def logging_to(path: Path | None, console: bool) -> Iterator[None]:
    """Sends what `vertebra` logs to a file (appending) and, unless the program set up logging, to the console."""
    root = logging.getLogger("vertebra")
    handlers: list[logging.Handler] = []
    if path is not None:
        to_file = logging.FileHandler(path, encoding="utf-8")
        to_file.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handlers.append(to_file)
    if console and not root.handlers and not logging.getLogger().handlers:
        to_console = _Console()
        to_console.setFormatter(PlainFormatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
        to_console.addFilter(lambda record: not getattr(record, "file_only", False))
        handlers.append(to_console)
    level = root.level
    if handlers and root.getEffectiveLevel() > logging.INFO:
        root.setLevel(logging.INFO)
    for handler in handlers:
        root.addHandler(handler)
    try:
        yield
    finally:
        root.setLevel(level)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()


class _Console(logging.StreamHandler):
    """Writes to whatever sys.stdout is at that moment, so that lines stand above a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stdout
        super().emit(record)
