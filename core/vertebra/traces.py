"""Where an exception was raised, also after it has come from another process, which leaves its frames behind."""

from __future__ import annotations

import traceback

__all__ = ["CarriedError", "frames_of"]


class CarriedError(RuntimeError):
    """An error of a data worker, with all that is known of its origin.

    Args:
        frames: of the original, see `frames_of`.
        details: its whole traceback as text.
    """

    def __init__(self, message: str, frames: list[tuple[str, str]], details: str) -> None:
        super().__init__(message, frames, details)  # all three are pickled with it
        self.frames, self.details = frames, details

    def __str__(self) -> str:
        return str(self.args[0])


def frames_of(err: BaseException) -> list[tuple[str, str]]:
    """(module, `file:line (function)`) of each frame, outermost first, then those of what caused it."""
    found = [
        (str(frame.f_globals.get("__name__", "")), f"{frame.f_code.co_filename}:{line} ({frame.f_code.co_name})")
        for frame, line in traceback.walk_tb(err.__traceback__)
    ]
    found += getattr(err, "frames", [])
    return found if err.__cause__ is None else found + frames_of(err.__cause__)
