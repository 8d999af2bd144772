"""COCO evaluation of boxes, masks and keypoints: `COCOEvaluator`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vertebra.data.extra_fields import picture_reader
from vertebra.errors import DataError, RecipeError
from vertebra.evaluation.coco_results import write_results
from vertebra.evaluation.collected import check_classes, notes_on_predictions
from vertebra.evaluation.detections import Detections, ImageKey, columns_of_output
from vertebra.evaluation.evaluate_model import evaluate_by_pycocotools, evaluate_model
from vertebra.evaluation.evaluator import Evaluator
from vertebra.evaluation.ground_truth import GroundTruth
from vertebra.evaluation.report.coco_section import coco_sections
from vertebra.evaluation.result_stream import ResultStream
from vertebra.runtime.distributed import gather_to_main, on_main_process, rank
from vertebra.visualize import skeleton_of
from vertebra_eval.analysis.intervals import bootstrap_intervals
from vertebra_eval.coco import CocoResult, DetectionColumns
from vertebra_eval.coco.metrics import all_undefined, coco_metrics
from vertebra_eval.coco.params import COCO_TASKS, TASKS, CocoParams, sigmas_for
from vertebra_eval.coco.reasons import classes_without_detections
from vertebra_eval.report.blocks import Section
from vertebra_eval.resamples import RESAMPLES, check_resamples

__all__ = ["COCOEvaluator"]

logger = logging.getLogger(__name__)

_FIELD_OF = {"bbox": "pred_boxes", "segm": "pred_masks", "boundary": "pred_masks", "keypoints": "pred_keypoints"}
_TRUTH_OF = {"segm": "segmentation", "keypoints": "keypoints"}
_ENGINES = {"vertebra": evaluate_model, "pycocotools": evaluate_by_pycocotools}


class COCOEvaluator(Evaluator):
    """Average precision and recall as COCO defines them, of boxes, masks and keypoints: pycocotools' own numbers.

    Metrics: `<task>/AP`, `AP50`, `AP75`, `APs`, `APm`, `APl`, `AR1`, `AR10`, `AR100`, `ARs`, `ARm`, `ARl` (keypoints:
    `AP`, `AP50`, `AP75`, `APm`, `APl`, `AR`, `AR50`, `AR75`, `ARm`, `ARl`), and for each class `AP-<class>`,
    `AP50-<class>`, `AP75-<class>` and `AR-<class>`.

    Ground truth is the file `metadata.json_file` where there is one, else the dataset dicts; it covers the dataset's
    images, predicted or not. Predictions with a NaN score, or a box or keypoint that is not finite, are
    dropped, counted in `notes`; infinite scores rank first and last.

    Args:
        dataset: injected; has `.dicts` and `.metadata` (`thing_classes`, and where there are any `json_file`,
            `thing_dataset_id_to_contiguous_id`, `keypoint_names`, `keypoint_oks_sigmas`).
        output_dir: injected; the COCO result files are written there. None: nothing is written.
        tasks: any of bbox, segm, keypoints and boundary (masks by the smaller of mask IoU and boundary IoU). None:
            bbox, and segm and keypoints as far as the model predicts them.
        iou_thresholds: of box IoU, mask IoU or OKS. None: 0.50 to 0.95 in steps of 0.05.
        max_dets: limits on detections per image and class; each gives an AR number, the largest is AP's.
            None: 1, 10, 100; for keypoints 20.
        keypoint_sigmas: OKS standard deviation of each keypoint, as a part of the object's scale. None: the dataset's
            `keypoint_oks_sigmas`; else COCO's for 17 keypoints, their mean for any other number.
        resamples: of the images, for the 95 % intervals of AP, AP50 and AP75; 0: no intervals.
        engine: what counts. vertebra: columns, many times faster. pycocotools: the reference itself; the same numbers.
    """

    def __init__(
        self,
        dataset: Any,
        output_dir: str | Path | None = None,
        *,
        tasks: list[Literal["bbox", "segm", "boundary", "keypoints"]] | None = None,
        iou_thresholds: list[float] | None = None,
        max_dets: list[int] | None = None,
        keypoint_sigmas: list[float] | None = None,
        resamples: int = RESAMPLES,
        engine: Literal["vertebra", "pycocotools"] = "vertebra",
    ) -> None:
        super().__init__()
        unknown = [task for task in tasks or () if task not in TASKS]
        if unknown or tasks == []:
            raise RecipeError(f"COCOEvaluator: tasks is {tasks}; expected some of {', '.join(TASKS)}")
        if max_dets is not None and (not max_dets or min(max_dets) < 1):
            raise RecipeError(
                f"COCOEvaluator: max_dets is {max_dets}; expected counts of at least 1, such as [1, 10, 100]"
            )
        if iou_thresholds is not None and not (iou_thresholds and all(0 < iou <= 1 for iou in iou_thresholds)):
            raise RecipeError(f"COCOEvaluator: iou_thresholds is {iou_thresholds}; expected numbers above 0 up to 1")
        self.dataset = dataset
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.tasks = tasks
        self.iou_thresholds = iou_thresholds
        self.max_dets = sorted(set(max_dets)) if max_dets else None
        self.keypoint_sigmas = keypoint_sigmas
        self.resamples = check_resamples(resamples)
        if engine not in _ENGINES:
            raise RecipeError(f"COCOEvaluator: engine is {engine!r}; expected one of {', '.join(_ENGINES)}")
        if engine == "pycocotools" and "boundary" in (tasks or ()):
            raise RecipeError("COCOEvaluator: pycocotools has no task boundary; remove engine or the task")
        self.engine = engine
        self.truth: GroundTruth | None = None
        """Read at the first `evaluate`, in the main process."""
        self.reset()

    def check(self) -> None:
        truth, fields = GroundTruth.of_dataset(self.dataset), getattr(self.dataset, "fields", ())
        tasks = ["bbox", *(task for task, field in _TRUTH_OF.items() if field in fields)]
        for task in self.tasks or tasks:
            truth.columns(task)

    def reset(self) -> None:
        self.detections = Detections()
        self.fields: set[str] = set()  # prediction fields seen so far
        self.table: DetectionColumns | None = None
        self.stream: ResultStream | None = None  # from the first detections on, where results are written
        self.arrays: dict[str, CocoResult] = {}
        self.reasons, self.notes, self.intervals, self.files = {}, [], {}, {}

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for record, output in zip(inputs, outputs, strict=True):
            found, dropped = columns_of_output(record, output)
            for task in self.tasks or ():
                if not output["instances"].has(_FIELD_OF[task]):
                    raise RecipeError(
                        f"COCOEvaluator: task {task} needs {_FIELD_OF[task]}, which the model does not predict.\n"
                        f"  Remove {task} from the evaluator's tasks, or add a head that predicts it"
                    )
            self.fields |= set(output["instances"].get_fields())
            self._write(ImageKey.of(record), found)
            self.detections.add(ImageKey.of(record), found, dropped)

    def evaluate(self) -> dict[str, float | None]:
        """The metrics of the images processed so far, over all processes.

        Raises:
            DataError: ground truth that cannot be read, images that are not in it, classes outside the dataset's.
        """
        shards = gather_to_main((self.detections, self.fields))
        metrics, self.reasons, self.notes, self.intervals, self.files = on_main_process(
            lambda: self._evaluate_all(shards or [])
        )
        if self.stream is not None:
            self.stream.discard()
            self.stream = None
        return metrics

    def sections(self, folder: Path, pictures: int) -> list[Section]:
        if self.truth is None or self.table is None:
            return []
        metadata = self.dataset.metadata
        drawn = pictures, skeleton_of(metadata), picture_reader(metadata)
        return coco_sections(self.truth, self.table, self.arrays, folder, *drawn)

    def _write(self, key: ImageKey, found: DetectionColumns) -> None:
        """An image's detections go to the result files, unless they are there."""
        if self.output_dir is None or key in self.detections.images:
            return
        if self.stream is None:
            tasks = self.tasks or self._tasks_of(self.fields)
            self.stream = ResultStream(self.output_dir, self.dataset, tasks, rank())
        self.stream.add(key, found)

    def _written(
        self, truth: GroundTruth, table: DetectionColumns, tasks: Sequence[str], processes: int
    ) -> dict[str, Path]:
        """The result files, complete. Those of several processes, where images may be double, are written anew."""
        if self.output_dir is None:
            return {}
        streamed = False
        if processes == 1 and self.stream is not None and self.stream.fits(truth, tasks):
            streamed = self.stream.num_images == len(self.detections.images)  # none from before the stream
            if streamed:
                self.stream.finish()
        return write_results(self.output_dir, truth, table, tasks, written=streamed)

    def _evaluate_all(self, shards: list[tuple[Detections, set[str]]]) -> tuple[dict, dict, list, dict, dict]:
        """Metrics, reasons, notes, intervals and files, from the detections of all processes."""
        if self.truth is None:
            self.truth = GroundTruth.of_dataset(self.dataset)
        truth, notes = self.truth, list(self.truth.notes)
        detections = Detections.merged([shard for shard, _ in shards])
        self.table = table = detections.columns(truth.rows(detections.images))
        check_classes(table, truth)
        tasks = self.tasks or self._tasks_of(set().union(*(fields for _, fields in shards)))
        notes += notes_on_predictions(detections, table, truth)
        metrics: dict[str, float | None] = {}
        reasons: dict[str, str] = {}
        for task in tasks:
            part, why, more = self._evaluate_task(task, truth, table)
            metrics |= part
            reasons |= why
            notes += [note for note in more if note not in notes]
        files = self._written(truth, table, tasks, len(shards))
        intervals: dict[str, tuple[float, float]] = {}
        for task, result in self.arrays.items():
            found = bootstrap_intervals(result.matches, resamples=self.resamples).of_task(task)
            intervals |= found
            notes += found.notes
        for note in notes:
            logger.warning("evaluation: %s", note)
        return metrics, reasons, notes, intervals, files

    def _evaluate_task(
        self, task: str, truth: GroundTruth, table: DetectionColumns
    ) -> tuple[dict[str, float | None], dict[str, str], list[str]]:
        notes: list[str] = []
        max_dets = self.max_dets or list(CocoParams.for_task(task).max_dets)
        missing = _no_ground_truth(truth, task)
        if missing:
            return *all_undefined(task, max_dets, truth.class_names, missing), notes
        notes += truth.odd_objects(max_dets[-1], must_have_keypoints=task == "keypoints")
        sigmas = self._sigmas(notes, truth, table) if task == "keypoints" else None
        if task in ("segm", "boundary"):
            notes += [f"{task}: {note}" for note in truth.columns(task).notes if note not in truth.notes]
        changes = {"iou_thresholds": self.iou_thresholds and sorted(self.iou_thresholds), "sigmas": sigmas}
        changes = {name: value for name, value in changes.items() if value is not None}
        result = _ENGINES[self.engine](truth, table, task, max_dets=max_dets, **changes)
        self.arrays[task] = result
        lacking = classes_without_detections(result.num_truth[:, 0], result.num_detections, truth.class_names)
        return *coco_metrics(result, truth.class_names), [*notes, *([f"{task}: {lacking}"] if lacking else [])]

    def _tasks_of(self, fields: set[str]) -> list[str]:
        return ["bbox", *(task for task in COCO_TASKS[1:] if _FIELD_OF[task] in fields)]

    def _sigmas(self, notes: list[str], truth: GroundTruth, table: DetectionColumns) -> np.ndarray:
        """(K,) OKS standard deviations for the keypoints of the ground truth."""
        count = truth.data.annotations.keypoints.shape[1]
        if table.keypoints is not None and table.keypoints.shape[1] != count:
            raise DataError(
                f"the model predicts {table.keypoints.shape[1]} keypoints per object, the ground truth has {count}"
            )
        given = self.keypoint_sigmas or getattr(self.dataset.metadata, "keypoint_oks_sigmas", None)
        if given:
            if len(given) != count:
                raise RecipeError(
                    f"COCOEvaluator: {len(given)} keypoint sigmas for {count} keypoints; give one for each"
                )
            return np.asarray(given, dtype=np.float64)
        sigmas, guessed = sigmas_for(count)
        notes += [f"keypoints: {guessed}"] if guessed else []
        return sigmas


def _no_ground_truth(truth: GroundTruth, task: str) -> str | None:
    """Why a task cannot be evaluated at all, or None."""
    if not truth.keys:
        return "the dataset has no images"
    if not truth.annotated:
        return "the dataset has no ground truth annotations; only the predictions were written"
    rows, found = truth.objects.rows, truth.data.annotations
    if task in ("segm", "boundary") and len(rows) and not len(truth.columns(task)):
        return "the ground truth has boxes but no masks"
    if task == "keypoints" and not found.has_keypoints[rows].any():
        return "the ground truth has no keypoints"
    return None
