"""Which tasks can be compared, and the number of resamples that intervals and comparisons are made of."""

from vertebra_eval.errors import DataError

__all__ = ["COMPARED_TASKS", "RESAMPLES", "check_resamples", "check_swaps"]

COMPARED_TASKS = ("bbox", "segm", "keypoints", "boundary", "sem_seg", "panoptic")
RESAMPLES = 400
"""The default: a standard error is then known to 4 %."""
_FEWEST, _FEWEST_SWAPS, _MOST = 20, 100, 1_000_000


def check_resamples(resamples: int) -> int:
    """The number of resamples for intervals, 0 for none.

    Raises:
        DataError: too few to estimate a variance from, or more than ever needed.
    """
    if resamples and not _FEWEST <= resamples <= _MOST:
        raise DataError(
            f"resamples is {resamples}; expected 0 for no intervals, or a number from {_FEWEST} to {_MOST:,}"
        )
    return resamples


def check_swaps(resamples: int) -> int:
    """The same for comparisons, which cannot do without."""
    if not _FEWEST_SWAPS <= resamples <= _MOST:
        raise DataError(f"resamples is {resamples}; expected a number from {_FEWEST_SWAPS} to {_MOST:,}")
    return resamples
