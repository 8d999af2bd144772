"""What COCO's records need to become JSON."""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["json_segmentation", "json_text"]

_CONSTANTS = {"Infinity": "1e999", "NaN": "null"}
_TEXT_OR_CONSTANT = re.compile(r'"(?:[^"\\]|\\.)*"|Infinity|NaN')


def json_text(value: Any) -> str:
    """JSON that every parser accepts, on one line. JSON has neither infinity nor NaN.

    An infinite score has a rank, which has to come back: it is written 1e999, a number by JSON's grammar, which readers
    with 64 bit floats (Python's json, pycocotools, JavaScript) read as infinity. NaN becomes null.
    """
    text = json.dumps(value)
    if "Infinity" in text or "NaN" in text:
        text = _TEXT_OR_CONSTANT.sub(lambda found: _CONSTANTS.get(found[0], found[0]), text)
    return text


def json_segmentation(segmentation: Any) -> Any:
    """A segmentation whose run lengths are text."""
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], bytes):
        return {"size": list(segmentation["size"]), "counts": segmentation["counts"].decode("ascii")}
    return segmentation
