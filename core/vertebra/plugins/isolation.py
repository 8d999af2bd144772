"""Runs a plugin's import so that it harms nothing else: whatever happens ends as one error that names the plugin."""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from vertebra.errors import PluginError, SetupError, VertebraError

__all__ = ["PATIENCE", "PluginImportError", "import_plugin_module", "plugin_code"]

PATIENCE = 15.0  # seconds; an import that takes longer is reported while it runs


class PluginImportError(PluginError):
    """A plugin raised while it was imported.

    Args:
        summary: what failed, and why in one line.
        trace: the plugin's own traceback, which the message ends with; empty where the summary says it all.
    """

    def __init__(self, summary: str, trace: str = "") -> None:
        super().__init__(f"{summary}\n{trace}" if trace else summary)
        self.summary = summary
        self.trace = trace

    def __reduce__(self) -> tuple:
        return type(self), (self.summary, self.trace)  # by its own arguments, so that it crosses processes


def import_plugin_module(module_name: str, owner: str, patience: float | None = PATIENCE) -> ModuleType:
    """Imports a plugin's module.

    Args:
        owner: what an error is to name, as `head X of plugin some-plugin 1.0`.
        patience: seconds after which stderr reports that it is still being imported; None: never.
    Raises:
        SetupError: torch itself does not work here, which is not the fault of a plugin.
        PluginImportError: whatever the module did instead of being imported, exiting included.
    """
    with plugin_code(owner, patience):
        return importlib.import_module(module_name)


@contextlib.contextmanager
def plugin_code(owner: str, patience: float | None = PATIENCE) -> Iterator[None]:
    """Around code of a plugin that runs while it is imported.

    Errors become PluginImportErrors that name `owner`; what it prints goes to stderr, as stdout belongs to the command
    that runs; an import that takes long is named while it does. Ctrl-C and SetupErrors pass through.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr), _watch(owner, patience):
            yield
    except (KeyboardInterrupt, SetupError):
        raise
    except VertebraError as err:  # says itself what is wrong and how to fix it
        if isinstance(err, PluginImportError):  # of another plugin, which this one uses
            raise PluginImportError(f"{owner} cannot be imported: {err.summary}", err.trace) from err
        frames = _own_frames(err)
        file, line = (frames[0].filename, frames[0].lineno) if frames else (owner, 0)
        at = owner.replace(file, f"{file}:{line}") if line else owner  # of a local plugin, whose owner is its path
        place = f"{file}:{line}: " if line and file not in f"{owner} {err}" else ""
        raise PluginImportError(f"{at} cannot be imported: {place}{err}") from err
    except BaseException as err:  # a plugin may even call sys.exit at import
        cause = f"{type(err).__name__}: {err}".strip().rstrip(":")
        raise PluginImportError(f"{owner} cannot be imported: {cause}", _own_traceback(err)) from err


@contextlib.contextmanager
def _watch(owner: str, patience: float | None) -> Iterator[None]:
    if patience is None:
        yield
        return
    timer = threading.Timer(patience, _say_slow, (owner, patience))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _say_slow(owner: str, patience: float) -> None:
    print(f"vertebra: still importing {owner} after {patience:g} s; Ctrl-C stops it", file=sys.stderr, flush=True)


def _own_traceback(err: BaseException) -> str:
    """The traceback from the first line that is neither ours nor the import machinery's."""
    frames = _own_frames(err)
    report = traceback.TracebackException.from_exception(err, compact=True)
    report.stack = traceback.StackSummary.from_list(frames)
    return "  " + "".join(report.format()).rstrip().replace("\n", "\n  ")


def _own_frames(err: BaseException) -> traceback.StackSummary:
    frames = traceback.extract_tb(err.__traceback__)
    ours = str(Path(__file__).parent)
    machinery = (ours, importlib.__file__, contextlib.__file__, "<frozen importlib")
    while frames and frames[0].filename.startswith(machinery):
        frames.pop(0)
    return frames
