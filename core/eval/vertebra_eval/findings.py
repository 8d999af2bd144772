"""What readers find in the records of a file. A reader refuses only what cannot be parsed; its caller decides."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

__all__ = ["Finding", "Findings", "Severity"]

Severity = Literal["fatal", "error", "note"]
"""fatal: no number can be computed from it. error: training stops, evaluation goes on with a note. note: legal."""


class Finding(NamedTuple):
    """One fault of one record, or one oddity of some.

    Args:
        table: list of the file: images, categories, annotations.
        kind: field of the record, perhaps with a word: `bbox`, `bbox missing`.
        severity: see `Severity`.
        rows: numbers of the records in their list.
        what: what is wrong with the record; for several, what they are.
        remedy: how to fix it; may be empty.
    """

    table: str
    kind: str
    severity: Severity
    rows: Sequence[int]
    what: str
    remedy: str = ""

    @property
    def text(self) -> str:
        """What is wrong, and how to fix it."""
        return f"{self.what}; {self.remedy}" if self.remedy else self.what


class Findings:
    """The findings in one list of records, in the order in which they were made."""

    def __init__(self, table: str) -> None:
        self.table = table
        self._found: list[Finding] = []

    def __iter__(self) -> Iterator[Finding]:
        return iter(self._found)

    def add(self, kind: str, severity: Severity, rows: Iterable[int], text: str) -> None:
        """`text` says what is wrong and, behind the first `; `, how to fix it; without rows nothing is added."""
        rows = tuple(int(row) for row in rows)
        if rows:
            what, _, remedy = text.partition("; ")
            self._found.append(Finding(self.table, kind, severity, rows, what, remedy))

    def of(self, severities: Collection[str], kinds: Collection[str] | None = None) -> list[Finding]:
        """Those of some severities and kinds (None: all), record after record."""
        chosen = (one for one in self if one.severity in severities and (kinds is None or one.kind in kinds))
        return sorted(chosen, key=lambda one: one.rows[0])
