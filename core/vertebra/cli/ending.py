"""How a program ends: what a user can cause is one message and exit code 2, in each of several processes."""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any

from vertebra.errors import VertebraError

__all__ = ["one_message"]

_FIXABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG, errno.ENOTDIR)
"""What a system says of a place that cannot be written: not a mistake in the program, so no traceback."""


@contextlib.contextmanager
def one_message(program: str) -> Iterator[None]:
    """What runs inside ends the process where it fails, with one message that begins with the program's name.

    SIGTERM ends it as Ctrl-C does, after its clean-up, with exit code 143. VERTEBRA_TRACEBACK=1 adds the traceback.
    """
    try:
        with _terminating(program):
            yield
        _end_one_of_several()
    except BaseException as err:
        if isinstance(err, SystemExit) and not err.code:
            _end_one_of_several()
        message, code = _message(err)
        others = _tell_others(err, message)
        if others is not None:
            message, code = others, 2
        if message is None and isinstance(err, Exception) and _others() is not None:
            traceback.print_exc()  # and then leave, as the interpreter's own end would wait for collectives
            message = ""
        if message is None or (code == 2 and os.environ.get("VERTEBRA_TRACEBACK", "0") not in ("", "0")):
            raise
        if message:
            print(f"{program}: {message}", file=sys.stderr)
        _leave(code)


def _message(err: BaseException) -> tuple[str | None, int]:
    """What to print and the exit code; no message for what goes its own way."""
    if isinstance(err, VertebraError):
        return str(err), 2
    if isinstance(err, KeyboardInterrupt):
        return "interrupted", 130
    if isinstance(err, OSError) and err.errno == errno.EPIPE:  # `vertebra components | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return "", 1
    if isinstance(err, OSError) and err.errno in _FIXABLE:
        place = f"{err.filename}: " if err.filename else ""
        return f"{place}{err.strerror}. Choose another location, free some space, or fix its permissions", 2
    return None, 1


def _tell_others(err: BaseException, message: str | None) -> str | None:
    """In one of several processes: tells the others, or returns what another one failed of first."""
    distributed = _others()
    if distributed is None or (isinstance(err, SystemExit) and not err.code):
        return None
    return distributed.failed(err, message)


def _leave(code: int) -> None:
    """Ends the process; one of several does not wait for collectives that will never complete."""
    distributed = _others()
    if distributed is not None:
        distributed.end_process(code)
    sys.exit(code)


def _end_one_of_several() -> None:
    """Ends one of several processes, all well, without taking down its interpreter: in about one of ten of them torch
    2.14 aborts there ("terminate called without an active exception"), which torchrun takes for a failure."""
    distributed = _others()
    if distributed is not None:
        atexit._run_exitfuncs()  # leaves the group, removes temporary folders
        distributed.end_process(0)


def _others() -> Any:
    """The module of processes where this is one of several; it is not imported for a command that needs no torch."""
    distributed = sys.modules.get("vertebra.runtime.distributed")
    return distributed if distributed is not None and distributed.has_joined() else None


@contextlib.contextmanager
def _terminating(program: str) -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        if os.getpid() == owner:  # not a data worker that was forked with this handler
            print(f"{program}: terminated", file=sys.stderr)
            sys.exit(128 + number)

    owner = os.getpid()
    free = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if free:
        signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        if free:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
