"""Learning rate schedules: pure functions of the step, so that a resumed run needs no schedule state.

`factor(step, total_steps)` multiplies the optimizer's learning rates during step `step` (counted from 0).
All warm up first. The numbers are Detectron2's (its `WarmupMultiStepLR`, `WarmupCosineLR`,
`WarmupStepWithFixedGammaLR`, and DeepLab's `WarmupPolyLR`), compared step by step in the tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

__all__ = ["FixedGamma", "Schedule", "WarmupCosine", "WarmupMultiStep", "WarmupPoly"]

Warmup = Literal["linear", "constant", "none"]

DEFAULT_WARMUP_STEPS = 1000
_EPSILON = 1e-6  # of the run: a rescaled position this close below a milestone counts as having reached it


class Schedule:
    """Contract of the schedules."""

    component_kind: ClassVar[str] = "schedule"

    def factor(self, step: int, total_steps: int) -> float:
        """What the learning rates are multiplied with during step `step` in [0, total_steps)."""
        raise NotImplementedError

    def check(self, total_steps: int) -> None:
        """Raises ValueError where the settings make no sense for a run of this length."""


class _Warmed(Schedule):
    """A schedule that begins with a warm-up."""

    warm: _WarmUp

    def check(self, total_steps: int) -> None:
        self.warm.check(total_steps)


class WarmupMultiStep(_Warmed):
    """Constant between milestones; at each it is multiplied with `gamma`. The default is Detectron2's 1x schedule.

    Args:
        milestones: fractions of the run (below 1) or steps (from 1 on), ascending.
        warmup_steps: None: 1000, but at most a tenth of the run.
        warmup_factor: where the warm-up starts, as a fraction of the full rate.
        warmup: `linear` rise, `constant` at the start factor, or `none`.
        rescale: True squeezes the schedule into what the warm-up leaves of the run; False: the warm-up hides its start.
    """

    def __init__(
        self,
        milestones: Sequence[float] = (2 / 3, 8 / 9),
        gamma: float = 0.1,
        warmup_steps: int | None = None,
        warmup_factor: float = 0.001,
        warmup: Warmup = "linear",
        rescale: bool = False,
    ) -> None:
        if list(milestones) != sorted(milestones) or any(m <= 0 for m in milestones):
            raise ValueError(f"milestones must be positive and ascend, got {list(milestones)}")
        self.milestones = tuple(milestones)
        self.gamma = gamma
        self.warm = _WarmUp(warmup_steps, warmup_factor, warmup, rescale)

    def check(self, total_steps: int) -> None:
        super().check(total_steps)
        late = [m for m in self.milestones if m >= 1 and m >= total_steps]
        if late:
            raise ValueError(
                f"milestones {late} are beyond the {total_steps} steps of the run and would never be reached.\n"
                "  Remove them, or write milestones as fractions of the run, such as [0.667, 0.889]"
            )

    def factor(self, step: int, total_steps: int) -> float:
        edges = [round(m * total_steps) if m < 1 else m for m in self.milestones]

        def decay(position: float) -> float:
            reached = position + _EPSILON * total_steps if self.warm.rescale else position
            return self.gamma ** sum(reached >= edge for edge in edges)

        return self.warm(step, total_steps, decay)


class WarmupCosine(_Warmed):
    """Half a cosine from 1 down to `end_factor` at the end of the run. Source: Loshchilov, Hutter, arXiv:1608.03983.

    Args: see `WarmupMultiStep`; `end_factor` is the last rate as a fraction of the full one.
    """

    def __init__(
        self,
        end_factor: float = 0.0,
        warmup_steps: int | None = None,
        warmup_factor: float = 0.001,
        warmup: Warmup = "linear",
        rescale: bool = False,
    ) -> None:
        self.end_factor = end_factor
        self.warm = _WarmUp(warmup_steps, warmup_factor, warmup, rescale)

    def factor(self, step: int, total_steps: int) -> float:
        def decay(position: float) -> float:
            return self.end_factor + (1 - self.end_factor) * 0.5 * (1 + math.cos(math.pi * position / total_steps))

        return self.warm(step, total_steps, decay)


class WarmupPoly(_Warmed):
    """(1 - step / total) ** power; the warm-up multiplies it. As DeepLab trains. Source: arXiv:1606.00915, section 4.1.

    Args:
        power: 0.9 in the paper.
        constant_ending: once warmed up, the factor never falls below this.
        warmup_steps, warmup_factor, warmup: see `WarmupMultiStep`.
    """

    def __init__(
        self,
        power: float = 0.9,
        constant_ending: float = 0.0,
        warmup_steps: int | None = None,
        warmup_factor: float = 0.001,
        warmup: Warmup = "linear",
    ) -> None:
        self.power = power
        self.constant_ending = constant_ending
        self.warm = _WarmUp(warmup_steps, warmup_factor, warmup, rescale=False)

    def factor(self, step: int, total_steps: int) -> float:
        decayed = max(1 - step / total_steps, 0.0) ** self.power
        rise = self.warm.rise(step, total_steps)
        return max(decayed, self.constant_ending) if rise is None else rise * decayed


class FixedGamma(_Warmed):
    """`num_decays` decays by `gamma`, evenly spread over the run.

    Args: see `WarmupMultiStep`.
    """

    def __init__(
        self,
        num_decays: int = 3,
        gamma: float = 0.1,
        warmup_steps: int | None = None,
        warmup_factor: float = 0.001,
        warmup: Warmup = "linear",
        rescale: bool = False,
    ) -> None:
        if num_decays < 0:
            raise ValueError(f"num_decays must not be negative, got {num_decays}")
        self.num_decays = num_decays
        self.gamma = gamma
        self.warm = _WarmUp(warmup_steps, warmup_factor, warmup, rescale)

    def factor(self, step: int, total_steps: int) -> float:
        width = max(total_steps // (self.num_decays + 1), 1)  # steps between decays

        def decay(position: float) -> float:
            reached = position + _EPSILON * total_steps if self.warm.rescale else position
            return self.gamma ** min(int(reached) // width, self.num_decays)

        return self.warm(step, total_steps, decay)


class _WarmUp:
    """Puts a warm-up before a decay: from `start * decay(0)` to what the decay is where the warm-up ends."""

    def __init__(self, steps: int | None, start: float, shape: str, rescale: bool) -> None:
        if shape not in ("linear", "constant", "none"):
            raise ValueError(f"warmup must be linear, constant or none, got {shape!r}")
        if steps is not None and steps < 0:
            raise ValueError(f"warmup_steps must not be negative, got {steps}")
        self.steps = 0 if shape == "none" else steps
        self.start = start
        self.shape = shape
        self.rescale = rescale

    def check(self, total_steps: int) -> None:
        if self.steps is not None and self.steps >= total_steps > 0 and self.steps > 0:
            raise ValueError(
                f"warmup_steps is {self.steps}, but the whole run has {total_steps} steps.\n"
                "  Lower it, or omit it: the default is 1000 steps, but at most a tenth of the run"
            )

    def length(self, total_steps: int) -> int:
        """Steps of the warm-up in a run of `total_steps`."""
        return min(DEFAULT_WARMUP_STEPS, total_steps // 10) if self.steps is None else self.steps

    def rise(self, step: int, total_steps: int) -> float | None:
        """The warm-up's own factor, or None once it is over."""
        length = self.length(total_steps)
        if step >= length:
            return None
        return self.start if self.shape == "constant" else self.start + (1 - self.start) * step / length

    def __call__(self, step: int, total_steps: int, decay: Callable[[float], float]) -> float:
        """The factor; `decay` maps a position in [0, total_steps] to the factor without warm-up."""
        length = self.length(total_steps)
        if step < length:
            first = self.start * decay(0.0)
            if self.shape == "constant":
                return first
            last = decay(0.0 if self.rescale else float(length))
            return first + (last - first) * step / length
        return decay((step - length) / (total_steps - length) * total_steps if self.rescale else float(step))
