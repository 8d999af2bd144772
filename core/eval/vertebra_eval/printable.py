"""Text from files and datasets as it may be shown: control characters are escaped, not obeyed."""

from __future__ import annotations

__all__ = ["printable"]

_CONTROLS = {*range(0x20), *range(0x7F, 0xA0)} - {ord("\n"), ord("\t")}
_SURROGATES = range(0xD800, 0xE000)  # halves of pairs, which cannot be encoded
_DIRECTIONS = {0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}  # Unicode's Bidi_Control
_SHOWN = {code: f"\\x{code:02x}" for code in _CONTROLS}
_SHOWN |= {code: f"\\u{code:04x}" for code in (*_SURROGATES, *_DIRECTIONS)}


def printable(text: str) -> str:
    """The text with control characters (terminal escapes, carriage returns), and those that change the direction of
    text, written as `\\x1b` and `\\u202e`; line breaks and tabs stay."""
    return text.translate(_SHOWN)
