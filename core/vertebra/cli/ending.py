"""How a program ends: what a user can cause is one message and exit code 2, in each of several processes.

What nobody foresaw is one message too, with exit code 1 and a file that holds the traceback.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any

from vertebra.errors import VertebraError
from vertebra.printable import PlainStream

__all__ = ["one_message"]

_LONGEST_LINE = 1500
_PLACE = "Choose another location, free some space, or fix its permissions"
_LIMITS = "Use fewer workers, or raise the limit (ulimit)"
_FIXABLE = {
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT), _PLACE),
    errno.ENAMETOOLONG: "Use a shorter name",
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP), _PLACE),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM), _LIMITS),
    errno.EIO: "Is the disk damaged, or a network drive gone?",
}
"""What a system says of a place that cannot be written, or of its own limits: not a mistake in the program."""


@contextlib.contextmanager
def one_message(program: str) -> Iterator[None]:
    """What runs inside ends the process where it fails, with one message that begins with the program's name.

    Meanwhile nothing that is printed can control the terminal, see `PlainStream`. SIGTERM ends it as Ctrl-C does, after
    its clean-up, with exit code 143. VERTEBRA_TRACEBACK=1 adds the traceback.
    """
    with _plain_streams(), _terminating(program) as ending:
        yield from _ending(program, ending)


def _ending(program: str, ending: threading.Event) -> Iterator[None]:
    try:
        yield
        ending.set()
        _end_one_of_several()
    except BaseException as err:
        ending.set()
        broken = err.__context__ if isinstance(err, SystemExit) else None
        if isinstance(broken, OSError) and broken.errno == errno.EPIPE:  # click takes each for that of standard output
            err = broken
        # sys.exit in someone's head ends no training; a signal that comes while it runs does
        left = isinstance(err, SystemExit) and _is_of_local_plugin(err, raised=True)
        if isinstance(err, SystemExit) and not err.code and not left:
            _end_one_of_several()
        message, code = _message(err)
        others = _tell_others(err, message)
        if others is not None:
            message, code = others, 2
        if message is None and not isinstance(err, Exception) and not left:
            raise
        if isinstance(err, Exception) and os.environ.get("VERTEBRA_TRACEBACK", "0") not in ("", "0"):
            traceback.print_exc()
        if message is None:
            message, code = _unforeseen(err)
        if message:
            print(f"{program}: {_shortened(message)}", file=sys.stderr)
        _leave(code)


def _message(err: BaseException) -> tuple[str | None, int]:
    """What to print and the exit code; no message for what goes its own way."""
    if isinstance(err, VertebraError):
        return str(err), 2
    if isinstance(err, KeyboardInterrupt):
        return "interrupted", 130
    if isinstance(err, OSError) and err.errno == errno.EPIPE and _nobody_reads():  # `vertebra components | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return "", 1
    if isinstance(err, OSError) and _is_of_local_plugin(err):
        return None, 1
    if isinstance(err, OSError) and err.errno is not None and (err.errno in _FIXABLE or err.filename is not None):
        place = f"{os.fsdecode(err.filename)}: " if isinstance(err.filename, (str, bytes)) else ""
        return f"{place}{err.strerror}. {_FIXABLE.get(err.errno, 'Check this path')}", 2
    if isinstance(err, Exception):
        from vertebra.cli.unforeseen import is_out_of_memory

        if is_out_of_memory(err):
            cause = (str(err).strip().splitlines() or ["no more is free"])[0]
            fix = "Use a smaller batch size (train.batch_size, evaluate.batch_size), smaller images or fewer workers"
            return f"out of memory: {cause}\n  {fix}", 2
    return None, 1


def _nobody_reads() -> bool:
    """Whether the reader of standard output has gone."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), select.POLLOUT)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # Windows; a stream without a number
        return True


def _is_of_local_plugin(err: BaseException, *, raised: bool = False) -> bool:
    from vertebra.cli.unforeseen import is_of_local_plugin

    return is_of_local_plugin(err, raised=raised)


def _unforeseen(err: BaseException) -> tuple[str, int]:
    from vertebra.cli.unforeseen import describe_unforeseen  # reads the metadata of installed plugins

    return describe_unforeseen(err)


def _tell_others(err: BaseException, message: str | None) -> str | None:
    """In one of several processes: tells the others, or returns what another one failed of first."""
    distributed = _others()
    if distributed is None or (isinstance(err, SystemExit) and not err.code):
        return None
    return distributed.failed(err, message)


def _shortened(message: str) -> str:
    """No line that fills the screen: a value of the user's may be of any length."""
    lines = (line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}..." for line in message.split("\n"))
    return "\n".join(lines)


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
def _plain_streams() -> Iterator[None]:
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w") as nowhere:  # in the place of a stream that is closed
        sys.stdout, sys.stderr = (PlainStream(nowhere if stream is None else stream) for stream in before)
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before


@contextlib.contextmanager
def _terminating(program: str) -> Iterator[threading.Event]:
    """SIGTERM raises SystemExit, until the event is set. Then it waits: torchrun sends it to all processes once one of
    them has failed, and what this one is about to say of that would be lost. A second one ends the process."""

    def stop(number: int, frame: object) -> None:
        if os.getpid() != owner:  # a data worker that was forked with this handler
            return
        if ending.is_set():
            signal.signal(number, signal.SIG_DFL)
            return
        print(f"{program}: terminated", file=sys.stderr)
        sys.exit(128 + number)

    owner = os.getpid()
    ending = threading.Event()
    free = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if free:
        signal.signal(signal.SIGTERM, stop)
    try:
        yield ending
    finally:
        if free:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
