"""The contract of evaluators: what judges a model's outputs, and what it has to show for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from vertebra.config.component import described, where_written
from vertebra.config.extra_fields import Geometry
from vertebra.errors import PluginError

if TYPE_CHECKING:
    from vertebra_eval.report.blocks import Section

__all__ = ["Evaluator", "check_methods", "metrics_of"]


class Evaluator:
    """Takes a model's outputs image by image and gives numbers at the end.

    A constructor gets `dataset` (`.dicts`, `.metadata`), `metadata` and `output_dir` (a folder, or None: write
    nothing) injected where it has parameters of these names; all else is written in the recipe.

    In a run of several processes each has its evaluator and processes its share of the images; `evaluate` is then
    called in all of them and returns the same numbers everywhere.
    """

    component_kind: ClassVar[str] = "evaluator"
    needs_fields: ClassVar[Mapping[str, Geometry]] = {}
    """Declared fields that the dataset must have, as {name: geometry}; the values are in its dicts."""

    # Made on first use, so that a subclass need not call `super().__init__()`.
    @cached_property
    def reasons(self) -> dict[str, str]:
        """Metric key -> one sentence, for every metric that is None."""
        return {}

    @cached_property
    def notes(self) -> list[str]:
        """Sentences about what a reader of the numbers should know (dropped predictions, odd ground truth)."""
        return []

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """Metric key -> (low, high), 95 % intervals; see `analysis.intervals` for how far that holds."""
        return {}

    @cached_property
    def files(self) -> dict[str, Path]:
        """What `evaluate` wrote: name -> path."""
        return {}

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
        """Flat metrics `<task>/<name>`: fractions in [0, 1], None where undefined (see `reasons`). A tensor or
        array of one value is a number."""
        raise NotImplementedError

    def sections(self, folder: Path, pictures: int) -> list[Section]:
        """What the report shows of the last `evaluate`, in the main process only.

        Args:
            folder: plots go to `folder/plots`, pictures to `folder/pictures`, as PNG.
            pictures: draw at most this many images.
        """
        return []


def check_methods(evaluator: Evaluator) -> None:
    """Raises PluginError where it does not have a method that an evaluation calls."""
    for call in ("reset()", "process(inputs, outputs)", "evaluate()"):
        name = call.partition("(")[0]
        if getattr(type(evaluator), name, None) in (None, getattr(Evaluator, name)):
            raise PluginError(f"{_called(evaluator)} has no method {call}, which an evaluation needs")


def metrics_of(evaluator: Evaluator) -> dict[str, float | None]:
    """What its `evaluate` returns, checked: {"<task>/<name>": number or None}.

    Raises:
        PluginError: it is something else; names the evaluator and the metric.
    """
    found, owner = evaluator.evaluate(), _called(evaluator)
    if not isinstance(found, Mapping):
        raise PluginError(
            f"{owner}: evaluate must return a dict of named numbers, got {described(found)}.\n"
            "  Return {'coverage/background': 0.5, ...}, in every process"
        )
    for name in found:
        if not isinstance(name, str) or not all(name.partition("/")):
            raise PluginError(
                f"{owner}: evaluate returned a metric called {name!r:.80}, expected task/name.\n"
                "  Name it by the task and by what is measured: 'coverage/background'"
            )
    return {name: _number(value, f"{owner}: its metric {name!r}") for name, value in found.items()}


def _number(value: Any, what: str) -> float | None:
    if value is None:
        return None
    if getattr(value, "shape", None) is not None and math.prod(value.shape) == 1:
        value = value.item()
    if not isinstance(value, Real):
        raise PluginError(
            f"{what} is {described(value)}, expected a number, or None with a sentence in self.reasons.\n"
            "  Return one metric for each number: {'iou/sky': 0.5, 'iou/road': 0.7}"
        )
    if not math.isfinite(value):
        raise PluginError(f"{what} is {value}.\n  Where it is undefined, return None and say why in self.reasons")
    return value if isinstance(value, int) else float(value)


def _called(evaluator: Evaluator) -> str:
    return where_written(evaluator, f"evaluator {type(evaluator).__name__}")
