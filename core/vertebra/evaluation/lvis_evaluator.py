"""LVIS' federated average precision of a model's boxes or masks: `LVISEvaluator`."""

from __future__ import annotations

import logging
from typing import Any, Literal

from vertebra.errors import RecipeError
from vertebra.evaluation.collected import collect, collected
from vertebra.evaluation.detections import Detections
from vertebra.evaluation.evaluate_model import check_masks
from vertebra.evaluation.evaluator import Evaluator
from vertebra.evaluation.ground_truth import GroundTruth
from vertebra.runtime.distributed import gather_to_main, on_main_process
from vertebra_eval.analysis import bootstrap_intervals
from vertebra_eval.lvis import Federation, lvis_numbers
from vertebra_eval.resamples import RESAMPLES, check_resamples

__all__ = ["LVISEvaluator"]

logger = logging.getLogger(__name__)


class LVISEvaluator(Evaluator):
    """Average precision as LVIS defines it: `lvis_<task>/AP`, `APr`, `APc`, `APf` and the others of `lvis_evaluate`.

    What is known of which image (`neg_category_ids`, `not_exhaustive_category_ids`) and how frequent categories are is
    read from the file `metadata.json_file`. Without one the dataset dicts may have both lists, of dataset category ids.

    Args:
        dataset: injected; as for COCOEvaluator.
        tasks: bbox, segm or both.
        max_dets: detections of an image, over all classes.
        resamples: of the images, for the 95 % intervals of AP, AP50 and AP75; 0: no intervals.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        tasks: list[Literal["bbox", "segm"]] | None = None,
        max_dets: int = 300,
        resamples: int = RESAMPLES,
    ) -> None:
        super().__init__()
        self.tasks = ["bbox"] if tasks is None else list(tasks)
        if not self.tasks or set(self.tasks) - {"bbox", "segm"}:
            raise RecipeError(f"LVISEvaluator: tasks is {tasks}; expected some of bbox, segm")
        if max_dets < 1:
            raise RecipeError(f"LVISEvaluator: max_dets is {max_dets}; expected a count of at least 1, such as 300")
        self.dataset = dataset
        self.max_dets = max_dets
        self.resamples = check_resamples(resamples)
        self.reset()

    def check(self) -> None:
        truth = GroundTruth.of_dataset(self.dataset)
        Federation.of(truth.data, truth.image_ids, truth.category_ids)
        for task in self.tasks:
            truth.columns(task, ("ignore",))

    def reset(self) -> None:
        self.detections = Detections()
        self.reasons, self.notes, self.intervals = {}, [], {}

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        collect(self.detections, inputs, outputs)

    def evaluate(self) -> dict[str, float | None]:
        """The metrics of the images processed so far, over all processes."""
        shards = gather_to_main(self.detections)
        metrics, self.reasons, self.notes, self.intervals = on_main_process(lambda: self._numbers(shards or []))
        return metrics

    def _numbers(self, shards: list[Detections]) -> tuple[dict[str, float | None], dict[str, str], list[str], dict]:
        found = collected(self.dataset, shards)
        federation = Federation.of(found.truth.data, found.truth.image_ids, found.truth.category_ids)
        metrics: dict[str, float | None] = {}
        reasons: dict[str, str] = {}
        notes = found.notes
        intervals: dict[str, tuple[float, float]] = {}
        for task in self.tasks:
            objects = found.truth.columns(task, ("ignore",))
            if task == "segm" and found.table.masks is not None:
                check_masks(found.table, objects)
            numbers = lvis_numbers(objects, found.table, federation, task, max_dets=self.max_dets)
            metrics |= {f"lvis_{name}": value for name, value in numbers.items()}
            reasons |= {f"lvis_{name}": sentence for name, sentence in numbers.reasons.items()}
            notes += [f"{task}: {note}" for note in (*objects.notes, *numbers.notes)]
            part = bootstrap_intervals(numbers.result.matches, resamples=self.resamples).of_task(f"lvis_{task}")
            intervals |= part
            notes += part.notes
        for note in notes:
            logger.warning("evaluation: %s", note)
        return metrics, reasons, notes, intervals
