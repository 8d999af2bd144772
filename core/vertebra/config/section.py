"""The base of a recipe's sections: typed fields, checked beyond their types, and written back as plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from vertebra.config.component import USUAL_MODEL, to_plain
from vertebra.errors import RecipeError

__all__ = ["Section", "within"]


@dataclass(frozen=True)
class Section:
    """Base of the sections: checks that go beyond one value's type.

    A section may be a component with a few fields beside: its field `component` holds it, and takes the keys of the
    block that are not fields of the section.
    """

    component: ClassVar[str | None] = None
    brief: ClassVar[bool] = False
    """Whether only what differs from the defaults is written."""

    def __post_init__(self) -> None:
        found = [f"{name} {text}" for name, text in self.problems(vars(self))]
        if found:
            raise RecipeError(f"{type(self).__name__}: " + "; ".join(found))

    @classmethod
    def problems(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """(field, "is ..., expected ...") for each invalid value; fields that `values` does not have are skipped."""
        yield from ()

    def to_dict(self) -> dict[str, Any]:
        """Its fields in plain data, as a recipe would write them."""
        shown = [item for item in fields(self) if item.compare]
        values = {item.name: getattr(self, item.name) for item in shown}
        if self.brief:
            values = {item.name: one for item in shown if (one := values[item.name]) != item.default}
        plain: dict[str, Any] = {}
        for name, value in values.items():
            if name == self.component:
                plain |= {key: one for key, one in value.to_dict().items() if (key, one) != ("name", USUAL_MODEL)}
            else:
                plain[name] = to_plain(value)
        return plain


def within(values: Mapping[str, Any], **bounds: tuple[int, float]) -> Iterator[tuple[str, str]]:
    """What is wrong with values that have a least and a largest number."""
    for name, (least, largest) in bounds.items():
        value = values.get(name)
        if value is not None and not least <= value <= largest:
            yield name, f"is {value}, expected at {f'least {least}' if value < least else f'most {largest}'}"
