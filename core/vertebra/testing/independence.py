"""Whether predictions of an image depend on that image alone: not on its neighbors, earlier sizes, or ground truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

from vertebra.structures import pairwise_iou
from vertebra.testing.checks import check_same, require

__all__ = ["check_neighbors", "check_sizes", "without_truth"]

_CLOSE = 1e-3  # of scores, and of maps as a share of their largest value
_IOU = 0.95
_MOST = 0.9  # share of what is predicted that must be the same: rounding may move what lies at a threshold
T = TypeVar("T")


def check_neighbors(first: list[dict[str, Any]], second: list[dict[str, Any]], where: str) -> None:
    """Predictions of the first image of two batches, beside other images of its size, are the same but for rounding."""
    for key in first[0]:
        share = _share_alike(first[0][key], second[0][key])
        require(
            share >= _MOST,
            f"{where}: {key} of an image depends on the other images in the batch ({share:.0%} is the same beside "
            "another one). Look for a mean, maximum, softmax or normalization over the batch's dimension (dim=0)",
        )


def check_sizes(predict: Callable[[Any, int], Any], make: Callable[[], Any], where: str) -> None:
    """An instance that has predicted images of one size predicts another size as a fresh instance does.

    Args:
        predict: (instance, which size: 0 or 1) -> predictions.
        make: a fresh instance.
    """
    used, fresh = make(), make()
    predict(used, 0)
    advice = "nothing may be kept from the first size, such as a grid of cells or anchors"
    try:
        after = predict(used, 1)
    except Exception as err:
        predict(fresh, 1)  # where this fails too, it is not for the first size
        raise AssertionError(f"{where} fails at a second size, not when fresh ({err}): {advice}") from err
    check_same(
        after, predict(fresh, 1), f"{where}: an image after one of another size, and by a fresh instance; {advice}"
    )


def without_truth(bare: Callable[[], T], full: Callable[[], Any], who: str) -> T:
    """What `bare` gives. Where that fails and the same with ground truth does not, the error says so."""
    try:
        return bare()
    except Exception as err:
        try:
            full()
        except Exception:
            raise err from None
        raise AssertionError(
            f"{who} fails on inputs without ground truth, and not on inputs with it ({type(err).__name__}: {err}): "
            "prediction has no ground truth. batch.gt_boxes, gt_classes, gt_valid, sem_seg and instances are None; "
            "use them in losses alone"
        ) from err


def _share_alike(first: Any, second: Any) -> float:
    """From 0 to 1; 1 for what is not compared."""
    if hasattr(first, "pred_boxes") and hasattr(first, "scores"):
        return min(_found_again(first, second), _found_again(second, first))
    if isinstance(first, tuple) and first and isinstance(first[0], Tensor):  # panoptic_seg
        first, second = first[0], second[0]
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        if first.shape != second.shape:
            return 0.0
        near = _CLOSE * max(float(first.abs().max()), 1e-6) if first.numel() else 0.0
        return float(((first.double() - second.double()).abs() <= near).double().mean()) if first.numel() else 1.0
    return 1.0


def _found_again(first: Any, second: Any) -> float:
    """Share of the detections of one that the other has too, with class and score."""
    if not len(first):
        return 1.0
    overlaps = pairwise_iou(first.pred_boxes, second.pred_boxes)
    same = (overlaps > _IOU) & (first.pred_classes[:, None] == second.pred_classes)
    same &= (first.scores[:, None] - second.scores).abs() < _CLOSE
    return float(same.any(dim=1).double().mean())
