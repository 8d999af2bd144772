"""Pascal VOC's average precision of a model's boxes: `VOCEvaluator`."""

from __future__ import annotations

import logging
from typing import Any

from vertebra.errors import RecipeError
from vertebra.evaluation.collected import collect, collected
from vertebra.evaluation.detections import Detections
from vertebra.evaluation.evaluator import Evaluator
from vertebra.evaluation.ground_truth import GroundTruth
from vertebra.runtime.distributed import gather_to_main, on_main_process
from vertebra_eval.voc import DIFFICULT, VOCNumbers, voc_numbers

__all__ = ["VOCEvaluator"]

logger = logging.getLogger(__name__)


class VOCEvaluator(Evaluator):
    """Average precision as Pascal VOC defines it, of 2010 and later (`voc/AP`) and of 2007 (`voc/AP07`).

    Each also with `-<class>`. Objects whose annotation has `difficult` (or `ignore`, `iscrowd`) set count neither way.

    Args:
        dataset: injected; as for COCOEvaluator.
        iou: from which on a box matches an object.
    """

    def __init__(self, dataset: Any, *, iou: float = 0.5) -> None:
        super().__init__()
        if not 0 < iou <= 1:
            raise RecipeError(f"VOCEvaluator: iou is {iou}; expected a number above 0 up to 1")
        self.dataset = dataset
        self.iou = iou
        self.reset()

    def check(self) -> None:
        GroundTruth.of_dataset(self.dataset).columns("bbox", DIFFICULT)

    def reset(self) -> None:
        self.detections = Detections()
        self.reasons, self.notes = {}, []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        collect(self.detections, inputs, outputs)

    def evaluate(self) -> dict[str, float | None]:
        """The metrics of the images processed so far, over all processes."""
        shards = gather_to_main(self.detections)
        numbers = on_main_process(lambda: self._numbers(shards or []))
        self.reasons, self.notes = numbers.reasons, numbers.notes
        return dict(numbers)

    def _numbers(self, shards: list[Detections]) -> VOCNumbers:
        found = collected(self.dataset, shards)
        objects = found.truth.columns("bbox", DIFFICULT)
        numbers = voc_numbers(objects, found.table, iou=self.iou)
        numbers.notes += found.notes
        for note in numbers.notes:
            logger.warning("evaluation: %s", note)
        return numbers
