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


def frames_of(err: BaseException | None) -> list[tuple[str, str]]:
    """(module, `file:line (function)`) of each frame, outermost first, then those of what caused it."""
    found: list[tuple[str, str]] = []
    seen: set[int] = set()
    while err is not None and id(err) not in seen:  # `raise err from err` is its own cause
        seen.add(id(err))
        found += [
            (str(frame.f_globals.get("__name__", "")), f"{frame.f_code.co_filename}:{line} ({frame.f_code.co_name})")
            for frame, line in traceback.walk_tb(err.__traceback__)
        ]
        found += getattr(err, "frames", [])
        err = err.__cause__
    return found
