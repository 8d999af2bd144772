"""The contract of evaluators: what judges a model's outputs, and what it has to show for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from vertebra.config.extra_fields import Geometry

if TYPE_CHECKING:
    from vertebra_eval.report.blocks import Section

__all__ = ["Evaluator"]


class Evaluator:
    """Takes a model's outputs image by image and gives numbers at the end.

    A constructor gets `dataset` (`.dicts`, `.metadata`), `metadata` and `output_dir` (a folder, or None: write
    nothing) injected where it has parameters of these names; all else is written in the recipe.

    In a run of several processes each has its evaluator and processes its share of the images; `evaluate` is then
    called in all of them and returns the same numbers everywhere.

    Attributes:
        reasons: metric key -> one sentence, for every metric that is None.
        notes: sentences about what a reader of the numbers should know (dropped predictions, odd ground truth).
        intervals: metric key -> (low, high), 95 % intervals by name; see `analysis.intervals` for how far that holds.
        files: what `evaluate` wrote: name -> path.
    """

    component_kind: ClassVar[str] = "evaluator"
    needs_fields: ClassVar[Mapping[str, Geometry]] = {}
    """Declared fields that the dataset must have, as {name: geometry}; the values are in its dicts."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}
        self.notes: list[str] = []
        self.intervals: dict[str, tuple[float, float]] = {}
        self.files: dict[str, Path] = {}

    def check(self) -> None:
        """Before a training, in the main process: read what `evaluate` will need of the dataset, so that what cannot be
        used is found now and not after the last step. By default nothing is checked.

        Raises:
            DataError: names file and record.
        """

    def reset(self) -> None:
        """Forget all outputs; called before the first `process`."""
        raise NotImplementedError

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Take the model's inputs and outputs of one batch, one dict per image in both."""
        raise NotImplementedError

    def evaluate(self) -> dict[str, float | None]:
        """Flat metrics `<task>/<name>`: fractions in [0, 1], None where undefined (see `reasons`)."""
        raise NotImplementedError

    def sections(self, folder: Path, pictures: int) -> list[Section]:
        """What the report shows of the last `evaluate`, in the main process only.

        Args:
            folder: plots go to `folder/plots`, pictures to `folder/pictures`, as PNG.
            pictures: draw at most this many images.
        """
        return []
