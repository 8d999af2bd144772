"""Which tasks can be compared, and the number of resamples that intervals and comparisons are made of."""

from vertebra_eval.errors import DataError

__all__ = ["COMPARED_TASKS", "RESAMPLES", "check_resamples"]

COMPARED_TASKS = ("bbox", "segm", "keypoints", "boundary", "sem_seg", "panoptic")
RESAMPLES = 400
"""The default: a standard error is then known to 4 %."""
_FEWEST, _MOST = 20, 1_000_000


def check_resamples(resamples: int, *, may_be_none: bool = True) -> int:
    """The number itself.

    Args:
        may_be_none: 0 is allowed, for no intervals.

    Raises:
        DataError: too few to estimate a variance from, or more than ever needed.
    """
    if _FEWEST <= resamples <= _MOST or (may_be_none and resamples == 0):
        return resamples
    none = "0 for no intervals, or " if may_be_none else ""
    raise DataError(f"resamples is {resamples}; expected {none}a number from {_FEWEST} to {_MOST:,}")
