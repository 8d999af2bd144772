"""Student's t distribution, of any degrees of freedom: numpy has none."""

from __future__ import annotations

import math

import numpy as np

from vertebra_eval.errors import DataError

__all__ = ["check_level", "t_quantile", "t_tails"]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(96)


def check_level(level: float) -> None:
    """Raises DataError unless it is between 0 and 1."""
    if not 0 < level < 1:
        raise DataError(f"level is {level}; expected a share of all cases between 0 and 1, such as 0.95")


def t_tails(t: float, freedom: float) -> float:
    """Probability of a value at least as far from 0 as `t`, on both sides.

    With t = sqrt(freedom) tan(a) the density is cos(a)^(freedom - 1) over a constant, which quadrature integrates.
    """
    low = math.atan(abs(t) / math.sqrt(freedom))
    high = min(math.pi / 2, low + 40 / math.sqrt(freedom))  # beyond that nothing is left
    angles = low + (high - low) / 2 * (_NODES + 1)
    area = (high - low) / 2 * float(_WEIGHTS @ np.cos(angles) ** (freedom - 1))
    constant = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    return min(1.0, 2 * constant * area)


def t_quantile(level: float, freedom: float) -> float:
    """The value that `level` of all lie within, on both sides of 0: 1.96 for 0.95 and endless freedom."""
    low, high = 0.0, 1.0
    while t_tails(high, freedom) > 1 - level:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_tails(middle, freedom) > 1 - level else (low, middle)
    return (low + high) / 2
