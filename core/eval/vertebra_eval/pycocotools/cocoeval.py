"""`COCOeval` of pycocotools on columns: the same arrays, numbers and printed lines, many times faster."""

from __future__ import annotations

import copy
import datetime
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import cocoeval as reference
from pycocotools.cocoeval import Params

from vertebra_eval.coco import CocoResult, evaluate_columns
from vertebra_eval.errors import DataError
from vertebra_eval.pycocotools.coco import collector_paused
from vertebra_eval.pycocotools.columns import EvalColumns, Unusual, category_ids, columns_of
from vertebra_eval.pycocotools.per_image import images_of_result

__all__ = ["COCOeval", "Params"]

_STEPS = {name: getattr(reference.COCOeval, name) for name in ("_prepare", "computeIoU", "computeOks", "evaluateImg")}
_LEFT_TO_PYCOCOTOOLS = (Unusual, DataError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


@dataclass
class _Evaluated:
    """An evaluation and the parameters it was made with (pycocotools' Params)."""

    result: CocoResult
    columns: EvalColumns
    params: Any


class COCOeval(reference.COCOeval):
    """Evaluation of detections, used as pycocotools' COCOeval is: evaluate, accumulate, summarize.

    `cocoGt` and `cocoDt` may be objects of this package or of pycocotools. `evalImgs` and `ious` are made when they are
    first read. pycocotools' own code runs, at its speed, where columns could give another result:

    - in `evaluate`: keypoints with `useCats=0` (pycocotools matches nothing there); NaN scores; boxes and keypoints
      that are NaN, infinite or huge; detection ids below 1, which leave the object free; annotation and detection ids
      that are not integers; no image or category ids; `useCats=0` with repeated category ids; sigmas of 0 and negative
      areas for keypoints; fields of unexpected types; whatever ends in an error; `_prepare`, `computeIoU`,
      `computeOks` or `evaluateImg` overridden.
    - in `accumulate`: other thresholds, area ranges, images or categories than `evaluate` had, or `evalImgs` that the
      caller has read or set, and so may have changed. Some of the limits on detections may be dropped.

    One trace is missing: pycocotools leaves the key `_ignore` in the ground truth's annotations.
    """

    params: Any

    def __init__(self, cocoGt: Any = None, cocoDt: Any = None, iouType: str = "segm") -> None:
        self._evaluated: _Evaluated | None = None
        self._eval_imgs: Any = None  # None: to be made of _evaluated when they are read; likewise _ious
        self._ious: Any = None
        super().__init__(cocoGt, cocoDt, iouType)

    @property
    def evalImgs(self) -> Any:  # noqa: N802
        """Matches by category, area range and image, in this order: a list of dicts, None where there is nothing."""
        if self._eval_imgs is None:
            evaluated = self._evaluated
            assert evaluated is not None
            with collector_paused():
                self._eval_imgs = images_of_result(evaluated.result, evaluated.columns, evaluated.params)
        return self._eval_imgs

    @evalImgs.setter
    def evalImgs(self, images: Any) -> None:  # noqa: N802
        self._eval_imgs = images

    @property
    def ious(self) -> dict:
        """(image id, category id) -> overlaps of the detections by falling score with the objects, or []."""
        if self._ious is None:
            assert self._evaluated is not None
            now, self.params = self.params, self._evaluated.params
            try:
                overlap = self.computeOks if self.params.iouType == "keypoints" else self.computeIoU
                categories = category_ids(self.params)
                self._ious = {(i, k): overlap(i, k) for i in self.params.imgIds for k in categories}
            finally:
                self.params = now
        return self._ious

    @ious.setter
    def ious(self, ious: dict) -> None:
        self._ious = ious

    def evaluate(self) -> None:
        """Match detections and objects of all images."""
        begin = time.time()
        columns = self._columns()
        if columns is None:
            super().evaluate()
            return
        print("Running per image evaluation...")
        if self.params.useSegm is not None:
            print(f"useSegm (deprecated) is not None. Running {self.params.iouType} evaluation")
        print(f"Evaluate annotation type *{self.params.iouType}*")
        result = evaluate_columns(columns.truth, columns.detections, self.params.iouType, columns.params)
        self._paramsEval = copy.deepcopy(self.params)
        self._evaluated = _Evaluated(result, columns, self._paramsEval)
        self._eval_imgs = self._ious = None
        print(f"DONE (t={time.time() - begin:0.2f}s).")

    def accumulate(self, p: Any = None) -> None:
        """Fill `eval` with counts, precision (T, R, K, A, M), recall (T, K, A, M) and scores (T, R, K, A, M).

        Args:
            p: pycocotools' Params. None: `params`.
        """
        begin, own = time.time(), self.params if p is None else p
        evaluated = self._evaluated
        if self._eval_imgs is not None or evaluated is None or not _same_but_limits(own, self._paramsEval, evaluated):
            super().accumulate(p)
            return
        print("Accumulating evaluation results...")
        own.catIds = own.catIds if own.useCats == 1 else [-1]
        result, limits = evaluated.result, evaluated.params.maxDets
        chosen = np.array([limits.index(limit) for limit in own.maxDets], np.int64)
        present = evaluated.columns.present if own.useCats else np.zeros(1, np.int64)
        K = len(own.catIds)
        T, R, _, A, _ = result.precision.shape
        arrays = {}
        for name, array in (("precision", result.precision), ("recall", result.recall), ("scores", result.scores)):
            shape = (T, K, A, len(chosen)) if name == "recall" else (T, R, K, A, len(chosen))
            arrays[name] = np.full(shape, -1.0)
            arrays[name][..., present, :, :] = array[..., chosen]
        self.eval = {
            "params": own,
            "counts": [T, R, K, A, len(chosen)],
            "date": datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
            **arrays,
        }
        print(f"DONE (t={time.time() - begin:0.2f}s).")

    def _columns(self) -> EvalColumns | None:
        """Columns of what is to be evaluated; None where pycocotools' own code has to do it."""
        if any(name in vars(self) or getattr(type(self), name) is not step for name, step in _STEPS.items()):
            return None
        params = self.params
        try:
            if params.useSegm is not None:
                params.iouType = "segm" if params.useSegm == 1 else "bbox"
            params.imgIds = list(np.unique(params.imgIds))
            if params.useCats:
                params.catIds = list(np.unique(params.catIds))
            params.maxDets = sorted(params.maxDets)
            with collector_paused():
                self._prepare()
                return columns_of(params, self._gts, self._dts)
        except _LEFT_TO_PYCOCOTOOLS:
            return None


def _same_but_limits(params: Any, current: Any, evaluated: _Evaluated) -> bool:
    """Whether arrays for `params` are a part of what was evaluated.

    Args:
        current: the parameters that COCOeval takes for those of the evaluation; a caller may have replaced them.
    """
    then = evaluated.params
    pooled = not params.useCats and not then.useCats
    return (
        current is then
        and (pooled or (params.useCats == then.useCats == 1 and list(params.catIds) == list(then.catIds)))
        and all(np.array_equal(getattr(params, name), getattr(then, name)) for name in ("imgIds", "iouThrs", "recThrs"))
        and list(map(tuple, params.areaRng)) == list(map(tuple, then.areaRng))
        and all(limit in then.maxDets for limit in params.maxDets)
    )
