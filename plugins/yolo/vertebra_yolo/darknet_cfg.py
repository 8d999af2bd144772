"""Darknet's `.cfg` files: sections with `key=value` lines, one section a layer."""

from dataclasses import dataclass, field
from pathlib import Path

from vertebra.errors import RecipeError
from vertebra.files import read_text

__all__ = ["Section", "read_cfg"]

_MOST_SHOWN = 60  # characters of a line that is none, as of a file of weights


@dataclass(frozen=True)
class Section:
    """One layer, or the settings of the whole in `[net]`.

    Args:
        name: `convolutional`, `route`, `yolo`, ...
        where: file and line of its beginning, for messages.
        options: its lines, as text.
        places: file and line of each option.
    """

    name: str
    where: str
    options: dict[str, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    def place(self, key: str) -> str:
        """File and line of an option; those of the section if it does not have it."""
        return self.places.get(key, self.where)

    def number(self, key: str, default: int | None = None) -> int:
        """An option as a whole number; without a default it must be there."""
        text = self.options.get(key)
        if text is None and default is not None:
            return default
        try:
            return int(text or "")
        except ValueError:
            raise RecipeError(f"{self.place(key)}: [{self.name}] needs {key}=NUMBER, it has {text!r}") from None

    def numbers(self, key: str) -> list[float]:
        """An option as numbers between commas; [] where it is missing."""
        try:
            return [float(part) for part in self.options.get(key, "").split(",") if part.strip()]
        except ValueError:
            raise RecipeError(
                f"{self.place(key)}: [{self.name}] {key} is {self.options[key]!r}, expected numbers"
            ) from None

    def whole_numbers(self, key: str) -> list[int]:
        """Like `numbers`, but all must be whole."""
        found = self.numbers(key)
        if not all(number.is_integer() for number in found):
            raise RecipeError(
                f"{self.place(key)}: [{self.name}] {key} is {self.options[key]!r}, expected whole numbers"
            )
        return [int(number) for number in found]


def read_cfg(path: str | Path) -> list[Section]:
    """The sections of a file, in their order.

    Raises:
        RecipeError: no such file, a line that is neither section nor option, or an option with two values.
    """
    try:
        text = read_text(path, errors="replace")
    except OSError as err:
        raise RecipeError(f"{path}: cannot be read ({err.strerror})") from err
    sections: list[Section] = []
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.partition("#")[0].partition(";")[0].strip()
        if not line:
            continue
        where = f"{path}:{number}"
        if line.startswith("[") and line.endswith("]"):
            sections.append(Section(line[1:-1].strip(), where))
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not sections:
            raise RecipeError(
                f"{where}: {line[:_MOST_SHOWN]!r} is neither a [section] nor, within one, a key=value; a Darknet cfg?"
            )
        section = sections[-1]
        if section.options.get(key, value) != value:
            raise RecipeError(
                f"{where}: {key} is {value!r}, but {section.options[key]!r} in line "
                f"{section.places[key].rpartition(':')[2]} of the same [{section.name}]; remove one of them"
            )
        section.options[key], section.places[key] = value, where
    if not sections:
        raise RecipeError(f"{path}: has no [section]; is it a Darknet cfg?")
    return sections
