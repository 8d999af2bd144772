"""Log lines and terminal output without control characters: they are escaped, not obeyed."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from vertebra_eval.printable import printable

__all__ = ["PlainFormatter", "PlainStream"]


class PlainFormatter(logging.Formatter):
    """Log lines without control characters, for the console and for files that are shown in one."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class PlainStream:
    """Stands for standard output or error: what is written to it is `printable`, and escaped where its encoding
    does not have a character.

    Rich, which colors help texts and draws the progress bar, finds the stream itself in `rich_proxied_file`.
    """

    def __init__(self, stream: Any) -> None:
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        plain = printable(text)
        try:
            self.rich_proxied_file.write(plain)
        except UnicodeEncodeError:
            encoding = self.rich_proxied_file.encoding
            self.rich_proxied_file.write(plain.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        getattr(self.rich_proxied_file, "flush", lambda: None)()

    def isatty(self) -> bool:
        return bool(getattr(self.rich_proxied_file, "isatty", lambda: False)())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)
