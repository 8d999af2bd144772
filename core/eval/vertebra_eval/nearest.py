"""Names in messages: those most like a mistyped one, and lists that are not too long."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["listed", "nearest"]


def nearest(name: str, candidates: Iterable[str], limit: int = 3) -> list[str]:
    """At most `limit` candidates like `name`, best first; upper and lower case count as the same letter."""
    by_lower: dict[str, str] = {}
    for candidate in candidates:
        by_lower.setdefault(candidate.lower(), candidate)
    wanted = name.lower()
    close = get_close_matches(wanted, by_lower, n=limit, cutoff=0.6)
    inside = sorted((other for other in by_lower if len(wanted) >= 3 and wanted in other), key=len)
    return [by_lower[other] for other in dict.fromkeys([*close, *inside])][:limit]


def listed(names: Iterable[object], most: int = 10) -> str:
    """At most `most` names with commas, and how many more there are."""
    texts = [str(name) for name in names]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")
