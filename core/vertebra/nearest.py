"""The names most like a mistyped one, for error messages."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["nearest"]


def nearest(name: str, candidates: Iterable[str], limit: int = 3) -> list[str]:
    """At most `limit` candidates like `name`, best first; upper and lower case count as the same letter."""
    by_lower: dict[str, str] = {}
    for candidate in candidates:
        by_lower.setdefault(candidate.lower(), candidate)
    wanted = name.lower()
    close = get_close_matches(wanted, by_lower, n=limit, cutoff=0.6)
    inside = sorted((other for other in by_lower if len(wanted) >= 3 and wanted in other), key=len)
    return [by_lower[other] for other in dict.fromkeys([*close, *inside])][:limit]
