"""The hooks that every training has, in their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vertebra.engine.hooks.bad_loss import StopOnBadLoss
from vertebra.engine.hooks.checkpoint import Checkpoint
from vertebra.engine.hooks.clip import ClipGradients
from vertebra.engine.hooks.evaluate import Evaluate
from vertebra.engine.hooks.freeze import Freeze
from vertebra.engine.hooks.interrupt import SaveOnInterrupt
from vertebra.engine.hooks.metrics import Metrics
from vertebra.engine.hooks.metrics_file import MetricsFile
from vertebra.engine.hooks.no_gradient import StopWithoutGradient
from vertebra.engine.hooks.progress import LogLines, ProgressBar
from vertebra.engine.hooks.schedule import ApplySchedule

if TYPE_CHECKING:
    from vertebra.engine.hook import Hook
    from vertebra.engine.parts import Parts

__all__ = ["default_hooks"]


def default_hooks(parts: Parts, own: Sequence[Hook] = ()) -> list[Hook]:
    """The default hooks around those of the recipe and the caller (`own`).

    The order matters: a bad loss stops a step before anything is written; the numbers of a step are written before
    its checkpoint, so that a resumed run knows them; the evaluation comes last, so that it cannot cost a checkpoint.
    """
    plan = parts.plan
    hooks: list[Hook] = []
    if parts.schedule is not None:
        hooks.append(ApplySchedule(parts.schedule))
    if parts.frozen:
        hooks.append(Freeze(parts.frozen))
    hooks += [StopOnBadLoss(plan.log_every), StopWithoutGradient()]
    if plan.clip_gradients is not None:
        hooks.append(ClipGradients(plan.clip_gradients))
    hooks += own
    hooks += [Metrics(plan.log_every, plan.batch_size), MetricsFile(), LogLines(), ProgressBar()]
    hooks += [Checkpoint(plan.checkpoint_every), SaveOnInterrupt(plan.log_every)]
    if parts.evaluate is not None:
        hooks.append(Evaluate(parts.evaluate, plan.evaluate_every))
    return hooks
