"""EvaluatorConformance: what every evaluator promises."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from vertebra.data import Dataset, Mapper
from vertebra.evaluation import Evaluator
from vertebra.models.batch import IGNORED_LABEL
from vertebra.structures import BitMasks, Boxes, Instances, PolygonMasks
from vertebra.testing.checks import build_from_defaults, checked_spec, require
from vertebra.testing.training import check_trains_by_recipe
from vertebra_eval.panoptic.runs import read_id_runs

__all__ = ["EvaluatorConformance"]


class EvaluatorConformance:
    """Subclass it with `component`. The dataset is 6 generated pictures with boxes, masks and all labels.

    Attributes:
        component: the evaluator's name, as a recipe writes it.
        arguments: for its constructor, besides dataset, metadata, num_classes and output_dir.
        recipe: a path or `plugin:recipe` that uses it; two steps are trained and evaluated where it is given.
        higher_is_better: metrics, by the part after the last "/", that right predictions must raise; None: all that
            are not the same for right and for no predictions. Empty: not checked.
    """

    component: ClassVar[str] = ""
    arguments: ClassVar[Mapping[str, Any]] = {}
    recipe: ClassVar[str] = ""
    higher_is_better: ClassVar[tuple[str, ...] | None] = None

    def test_metrics_follow_the_contract(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for what, outputs in self.make_outputs().items():
                self._check_metrics(*self.run(outputs, Path(folder)), what)

    def test_right_predictions_score_higher_than_none(self) -> None:
        outputs = self.make_outputs()
        right, none = self.metrics_of(outputs["right"]), self.metrics_of(outputs["none"])
        names = set(right) & set(none)
        if self.higher_is_better is not None:
            names = {name for name in names if name.rpartition("/")[2] in self.higher_is_better}
        pairs = {name: (a, b) for name in names if (a := right[name]) is not None and (b := none[name]) is not None}
        differing = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        require(bool(differing) or self.higher_is_better == (), "right predictions and none give the same numbers")
        if self.higher_is_better is None or self.higher_is_better:
            worse = [name for name, (a, b) in differing.items() if a < b]
            require(not worse, f"no predictions at all score higher than right ones in {', '.join(sorted(worse)[:5])}")

    def test_reset_forgets(self) -> None:
        outputs = self.make_outputs()
        evaluator = self.make()
        self.feed(evaluator, outputs["none"])
        evaluator.evaluate()
        evaluator.reset()
        self.feed(evaluator, outputs["right"])
        self._check_equal(evaluator.evaluate(), self.metrics_of(outputs["right"]), "after reset and when new")

    def test_neither_batches_nor_their_order_count(self) -> None:
        outputs = self.make_outputs()["shifted"]
        backwards = self.make()
        self.feed(backwards, outputs, step=1, backwards=True)
        self._check_equal(backwards.evaluate(), self.metrics_of(outputs), "one by one backwards and in one batch")

    def test_evaluating_twice_gives_the_same(self) -> None:
        evaluator = self.make()
        self.feed(evaluator, self.make_outputs()["shifted"])
        first = dict(evaluator.evaluate())
        self._check_equal(first, evaluator.evaluate(), "the first and the second evaluate()")

    def test_without_output_dir_nothing_is_written(self) -> None:
        evaluator = self.make()
        self.feed(evaluator, self.make_outputs()["right"])
        evaluator.evaluate()
        require(not evaluator.files, f"without output_dir it claims to have written {list(evaluator.files)}")

    def test_report_sections_are_made(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            evaluator = self.make(Path(folder))
            self.feed(evaluator, self.make_outputs()["shifted"])
            evaluator.evaluate()
            sections = evaluator.sections(Path(folder), 2)
            require(isinstance(sections, list), f"sections() must be a list, it is a {type(sections).__name__}")

    def test_trains_by_its_recipe(self) -> None:
        if self.recipe:
            check_trains_by_recipe(self.recipe, "evaluator", self.component)

    # What the checks are made of; a subclass may replace these.

    def make(self, output_dir: Path | None = None) -> Evaluator:
        """A new evaluator on the generated dataset, ready for its first `process`."""
        dataset = self.make_dataset()
        evaluator = build_from_defaults(
            "evaluator",
            self.component,
            self.arguments,
            dataset=dataset,
            metadata=dataset.metadata,
            num_classes=len(dataset.metadata.thing_classes),
            output_dir=output_dir,
        )
        evaluator.reset()
        return evaluator

    def make_dataset(self) -> Dataset:
        """6 generated pictures, made once."""
        arguments = {"images": 6, "val_images": 1, "size": [64, 96], "crowds": 0.0}
        arguments["labels"] = ["semantic", "panoptic"]
        return checked_spec("format", "shapes", arguments).build().load(None)

    def make_inputs(self) -> list[dict[str, Any]]:
        """What a model would get of each picture, with the ground truth."""
        dataset = self.make_dataset()
        mapper = Mapper([], training=True, metadata=dataset.metadata, fields=dataset.fields)
        return [mapper(record, index=i) for i, record in enumerate(dataset.dicts)]

    def make_outputs(self) -> dict[str, list[dict[str, Any]]]:
        """Predictions for all pictures: right ones, shifted ones, none at all."""
        inputs = self.make_inputs()
        labels = len(self.make_dataset().metadata.stuff_classes)
        return {
            "right": [_right(one, labels) for one in inputs],
            "shifted": [_right(one, labels, shift=5) for one in inputs],
            "none": [_none(one, labels) for one in inputs],
        }

    def run(
        self, outputs: list[dict[str, Any]], output_dir: Path | None = None
    ) -> tuple[Evaluator, dict[str, float | None]]:
        """An evaluator that has seen these outputs, and its numbers."""
        evaluator = self.make(output_dir)
        self.feed(evaluator, outputs)
        return evaluator, evaluator.evaluate()

    def metrics_of(self, outputs: list[dict[str, Any]]) -> dict[str, float | None]:
        """The numbers for these outputs."""
        return self.run(outputs)[1]

    def feed(self, evaluator: Evaluator, outputs: list[dict[str, Any]], step: int = 0, backwards: bool = False) -> None:
        """Outputs of all pictures in batches of `step` (0: one batch), as the evaluation loop gives them."""
        inputs = [{k: v for k, v in one.items() if k not in ("instances", "sem_seg")} for one in self.make_inputs()]
        pairs = list(zip(inputs, outputs, strict=True))
        step = step or len(pairs)
        for start in range(0, len(pairs), step):
            batch = pairs[::-1][start : start + step] if backwards else pairs[start : start + step]
            evaluator.process([sample for sample, _ in batch], [output for _, output in batch])

    def _check_metrics(self, evaluator: Evaluator, found: dict[str, float | None], what: str) -> None:
        require(isinstance(found, dict) and bool(found), f"{what}: evaluate() gives a dict of numbers, got {found!r}")
        for name, value in found.items():
            require("/" in name, f"{what}: metric {name!r} must be named `<task>/<name>`")
            if value is None:
                require(bool(evaluator.reasons.get(name)), f"{what}: {name} is None, but `reasons` does not say why")
            else:
                require(isinstance(value, (int, float)), f"{what}: {name} is a {type(value).__name__}, not a number")
                require(math.isfinite(value), f"{what}: {name} is {value}; write None, and the reason in `reasons`")
        json.dumps(found, allow_nan=False)
        missing = [str(path) for path in evaluator.files.values() if not Path(path).exists()]
        require(not missing, f"{what}: `files` names {', '.join(missing)}, which are not there")

    def _check_equal(self, first: dict[str, float | None], second: dict[str, float | None], what: str) -> None:
        differing = [name for name in {*first, *second} if not _same(first.get(name), second.get(name))]
        require(not differing, f"{what}: {', '.join(sorted(differing)[:5])} differ")


def _same(first: float | None, second: float | None) -> bool:
    return first is second if first is None or second is None else math.isclose(first, second, abs_tol=1e-9)


def _right(sample: dict[str, Any], num_labels: int, shift: int = 0) -> dict[str, Any]:
    """The ground truth as predictions, moved by `shift` pixels to the right, with scores that all differ."""
    truth, size = sample["instances"], (sample["height"], sample["width"])
    boxes = Boxes(truth.gt_boxes.tensor + torch.tensor([shift, 0, shift, 0]))
    boxes.clip(size)
    count = len(truth)
    instances = Instances(
        size,
        pred_boxes=boxes,
        scores=0.99 - 0.01 * torch.arange(count, dtype=torch.float32) - 0.001 * (sample["image_id"] % 7),
        pred_classes=truth.gt_classes.clone(),
        pred_masks=_moved(_bits(truth.gt_masks, size), shift),
    )
    labels = _moved(sample["sem_seg"].long(), shift)
    known = labels.where(labels != IGNORED_LABEL, 0)
    scores = torch.nn.functional.one_hot(known, num_labels).movedim(-1, 0).float()  # (K, H, W)
    segments = torch.from_numpy(read_id_runs(sample["pan_seg_file_name"]).pixels())
    infos = [{key: info[key] for key in ("id", "category_id", "isthing")} for info in sample["segments_info"]]
    return {"instances": instances, "sem_seg": scores, "panoptic_seg": (_moved(segments, shift), infos)}


def _none(sample: dict[str, Any], num_labels: int) -> dict[str, Any]:
    """No instance, no segment, and the last class on every pixel."""
    size = (sample["height"], sample["width"])
    instances = Instances(
        size,
        pred_boxes=Boxes(torch.zeros(0, 4)),
        scores=torch.zeros(0),
        pred_classes=torch.zeros(0, dtype=torch.int64),
        pred_masks=torch.zeros((0, *size), dtype=torch.bool),
    )
    scores = torch.zeros(num_labels, *size)
    scores[-1] = 1
    return {"instances": instances, "sem_seg": scores, "panoptic_seg": (torch.zeros(size, dtype=torch.int64), [])}


def _bits(masks: PolygonMasks | BitMasks, size: tuple[int, int]) -> Tensor:
    """(n, H, W) bool."""
    return (masks if isinstance(masks, BitMasks) else BitMasks.from_polygon_masks(masks, *size)).tensor


def _moved(maps: Tensor, shift: int) -> Tensor:
    """Maps (..., H, W) with their last axis rolled by `shift` pixels."""
    return maps.roll(shift, dims=-1)
