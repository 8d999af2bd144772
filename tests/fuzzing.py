"""Documents and files with a few random changes, for tests that a reader refuses them with a documented error.

`FUZZ_EXAMPLES=3000 pytest --hypothesis-profile explore tests/*/test_fuzzed_*.py` draws other and more examples.
"""

import copy
import json
import os
from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

__all__ = ["bounded", "changed", "changed_bytes", "changed_json", "changed_text"]

bounded = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "100")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
NUMBERS = [
    0,
    -1,
    1,
    2,
    3,
    255,
    256,
    65536,
    2**31,
    2**53 + 1,
    2**63,
    -(2**63) - 1,
    10**30,
    10**400,
    0.5,
    1.0,
    -0.0,
    1e308,
]
NUMBERS += [float("nan"), float("inf"), float("-inf"), 5e-324]
TEXTS = [
    "",
    " ",
    "1",
    "1.0",
    "a",
    "..",
    "../../etc/passwd",
    "/etc/passwd",
    "a\0b",
    "\x1b[31m",
    "é",
    "\ud800",
    "x" * 3000,
]
TEXTS += ["{0}", "{0.__class__}", "%s", "null", "nan", "\u202e", "con", "a/b.png", "-", "1" * 5000]
SCALARS = (
    st.sampled_from([None, True, False, *NUMBERS, *TEXTS]) | st.integers(-5, 300) | st.floats() | st.text(max_size=5)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(TEXTS), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(["id", "name", "", "a", "bbox", "\0", "x" * 300])


def _places(value: object, found: list) -> list:
    """(container, key) of every value inside a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found.append((value, key))
        _places(inner, found)
    return found


@st.composite
def changed(draw, document: object, values: st.SearchStrategy = VALUES) -> object:
    """A copy of a document of dicts and lists in which up to three values are others, gone, doubled or exchanged."""
    root = [copy.deepcopy(document)]
    for _ in range(draw(st.integers(1, 3))):
        places = _places(root, [])
        container, key = draw(st.sampled_from(places))
        kind = draw(st.sampled_from(["replace", "replace", "remove", "repeat", "exchange", "add", "nest"]))
        if kind == "replace" or container is root:
            container[key] = draw(values)
        elif kind == "remove":
            del container[key]
        elif kind == "repeat" and isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
        elif kind == "exchange":
            other, at = draw(st.sampled_from(places))
            container[key], other[at] = copy.deepcopy(other[at]), copy.deepcopy(container[key])
        elif kind == "add" and isinstance(container, dict):
            container[draw(KEYS)] = draw(values)
        else:
            container[key] = [container[key]]
    return root[0]


@st.composite
def changed_bytes(draw, content: bytes, changes: int = 4) -> bytes:
    """Content with up to four bytes changed, parts cut out, doubled or added, or an end missing."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, changes))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        kind = draw(st.sampled_from(["flip", "flip", "byte", "word", "cut", "drop", "double", "insert"]))
        length = draw(st.integers(1, 64))
        if kind == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "byte" and data:
            data[at] = draw(st.sampled_from([0, 1, 127, 128, 255, 10, 32]))
        elif kind == "word":
            data[at : at + 4] = draw(
                st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"])
            )
        elif kind == "cut":
            del data[at:]
        elif kind == "drop":
            del data[at : at + length]
        elif kind == "double":
            data[at:at] = data[at : at + length]
        else:
            data[at:at] = draw(st.binary(min_size=1, max_size=8))
    return bytes(data)


def changed_text(content: str) -> st.SearchStrategy[bytes]:
    """The bytes of a text, changed."""
    return changed_bytes(content.encode())


def changed_json(document: object) -> st.SearchStrategy[bytes]:
    """A document as JSON, most often with changed values, sometimes with changed bytes."""
    dumped: Callable[[object], bytes] = lambda value: json.dumps(value).encode()  # noqa: E731
    values = changed(document).map(dumped)
    return values | values | values | changed_bytes(dumped(document))
