"""What is unusual about image files that are read all the same: said once for each kind, wherever they are read."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator
from contextvars import ContextVar

__all__ = ["ODDITIES", "OddImages", "collected_oddities", "tell_oddity"]

ODDITIES = {
    "alpha": "has transparent pixels: its alpha channel is dropped, and the colors beneath it are used",
    "16 bits": "has 16 bits a channel: they are scaled to 8 (65535 becomes 255)",
    "previews": "holds smaller or further pictures besides the first: the first is used",
}
"""What a message tells about an image, by kind."""

_logger = logging.getLogger("vertebra.data.images.read")
_told: set[str] = set()  # in this process
_collector: ContextVar[list[tuple[str, str]] | None] = ContextVar("_collector", default=None)


def tell_oddity(kind: str, path: str) -> None:
    """Says it, unless an image of this kind was named before in this process, or hands it to who collects."""
    found = _collector.get()
    if found is not None:
        found.append((kind, path))
    elif kind not in _told:
        _say(kind, path)


@contextlib.contextmanager
def collected_oddities() -> Iterator[list[tuple[str, str]]]:
    """The (kind, path) of what is read in this block; nothing is logged there."""
    found: list[tuple[str, str]] = []
    token = _collector.set(found)
    try:
        yield found
    finally:
        _collector.reset(token)


class OddImages:
    """Says of each kind the first image that it hears of."""

    def __init__(self) -> None:
        self._kinds: set[str] = set()

    def tell(self, found: Iterable[tuple[str, str]]) -> None:
        for kind, path in found:
            if kind not in self._kinds:
                self._kinds.add(kind)
                _say(kind, path)


def _say(kind: str, path: str) -> None:
    _told.add(kind)
    _logger.warning("%s %s (said once for all such images; `vertebra data info` looks for more)", path, ODDITIES[kind])
