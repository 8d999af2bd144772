"""Step: what a model that owns its training step minimizes its losses with."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vertebra.config.component import where_written
from vertebra.engine.blame import check_all_used
from vertebra.engine.hook import Training
from vertebra.errors import PluginError
from vertebra.models.contracts import check_losses
from vertebra.runtime import distributed
from vertebra_eval.nearest import nearest

__all__ = ["Step"]

_GRAPH_GONE = {
    "modified by an inplace operation": "the loss was computed with weights that an earlier step.minimize of this step "
    "has changed.\n  Compute the outputs that it needs again after that call, or minimize it first",
    "backward through the graph a second time": "an earlier step.minimize has freed the outputs of which the loss is "
    "made.\n  Give that call retain_graph=True, detach the outputs, or compute them again",
}
"""Messages of torch's autograd, and what they mean here."""


class Step:
    """One step of a training, as `training_step(batch, step)` of a model gets it.

    Attributes:
        number: steps done before this one.
        total: steps of the whole training.
        loss: sum of the losses minimized so far, detached; None before the first.
    """

    def __init__(self, trainer: Training) -> None:
        self.number = trainer.step
        self.total = trainer.max_steps
        self.loss: Tensor | None = None
        self._trainer = trainer
        self._optimizers: dict[str, Any] = getattr(trainer.optimizer, "optimizers", {"optimizer": trainer.optimizer})
        self._owner = where_written(trainer.model, type(trainer.model).__name__)
        self._calls = 0

    def minimize(self, name: str, loss: Tensor, *, retain_graph: bool = False) -> None:
        """One step of the optimizer `name` down the gradient of a loss: backward, averaging over the processes,
        unscaling (fp16), the hooks' `after_backward` (clipping among them), the optimizer.

        Only the optimizer's own parameters get a gradient, so that a loss may depend on others. It may be called
        several times in a step, also for one optimizer; all processes have to make the same calls in the same order.

        Args:
            name: of `train.optimizers`; where the recipe has only `train.optimizer`, "optimizer".
            loss: a scalar.
            retain_graph: keep what was computed for a further loss of the same outputs. Its optimizer must not have
                changed parameters that this further loss depends on.
        Raises:
            PluginError: there is no such optimizer, the loss is not a scalar with a gradient, its graph is gone, or
                the processes do not make the same calls.
        """
        if name not in self._optimizers:
            near = ", ".join(nearest(name, self._optimizers)) or ", ".join(self._optimizers)
            raise PluginError(
                f"{self._owner}: step.minimize: no optimizer is named {name!r}.\n  Nearest: {near} (train.optimizers)"
            )
        named = self._own_parameters(name)
        if not isinstance(loss, Tensor) or loss.numel() != 1 or (named and not loss.requires_grad):
            what = f"of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
            raise PluginError(
                f"{self._owner}: step.minimize: the loss of {name!r} is {what}; expected a scalar tensor that has a "
                "gradient. Is it detached (.detach(), .item(), torch.no_grad()), or summed over nothing?"
            )
        self._agree(name)
        with torch.autocast(self._trainer.device.type, enabled=False):
            try:
                self._descend(name, named, loss, retain_graph)
            except RuntimeError as err:
                found = next((hint for text, hint in _GRAPH_GONE.items() if text in str(err)), None)
                if found is None:
                    raise
                raise PluginError(f"{self._owner}: step.minimize({name!r}, ...): {found}") from err
        torch.clear_autocast_cache()  # it has the weights of before, in lower precision
        self.loss = loss.detach() if self.loss is None else self.loss + loss.detach()

    def closed(self, logged: Any) -> tuple[dict[str, Tensor], Tensor]:
        """What `training_step` has returned, checked, and the sum of what it has minimized.

        Raises:
            PluginError: it has minimized nothing, or not the same as in another process.
        """
        self._agree("")
        if self.loss is None:
            raise PluginError(
                f"{self._owner}: training_step has not called step.minimize(name, loss), so nothing is learned.\n"
                f"  Optimizers: {', '.join(self._optimizers)}"
            )
        check_losses(logged, f"{self._owner}: training_step")
        return {name: loss.detach() for name, loss in logged.items()}, self.loss

    def _own_parameters(self, name: str) -> list[tuple[str, nn.Parameter]]:
        """What an optimizer trains in this step, with its names."""
        own = {one for group in self._optimizers[name].param_groups for one in group["params"]}
        parameters = self._trainer.model.named_parameters()
        return [(path, one) for path, one in parameters if one in own and one.requires_grad]

    def _descend(self, name: str, named: list[tuple[str, nn.Parameter]], loss: Tensor, retain_graph: bool) -> None:
        """Hooks see this optimizer and this loss as they see those of a usual step."""
        if not named:  # all of them are frozen until later
            return
        trainer, optimizer = self._trainer, self._optimizers[name]
        every, before = trainer.optimizer, dict(trainer.scalars)
        trainer.optimizer, trainer.loss, trainer.losses = optimizer, loss, {f"{name}/loss": loss}
        try:
            optimizer.zero_grad()
            inputs = [one for _, one in named]
            trainer.scaler.scale(loss).backward(inputs=inputs, retain_graph=retain_graph)
            _average_gradients(named, self.number, find_unused=trainer.plan.find_unused_parameters)
            trainer.update_weights(optimizer)
        finally:
            trainer.optimizer = every
        for one in inputs:  # fused optimizers do not tell autograd, which would take new weights for the old ones
            torch.autograd.graph.increment_version(one)
        if len(self._optimizers) > 1:  # numbers of hooks, such as the gradient's norm, are this optimizer's
            new = {key: one for key, one in trainer.scalars.items() if key not in before or one is not before[key]}
            trainer.scalars = before | {f"{key}/{name}": one for key, one in new.items()}

    def _agree(self, name: str) -> None:
        """All processes are at the same call: one that is not would wait for the others' gradients for ever.

        In several processes on a GPU this waits for what is queued there, once for each loss.
        """
        self._calls += 1
        if distributed.world_size() == 1:
            return
        mine = float(list(self._optimizers).index(name) if name else -1)
        lowest, highest = distributed.highest([-mine, mine], self._trainer.device)
        if -lowest != highest:
            call = repr(name) if name else "missing"
            raise PluginError(
                f"{self._owner}: training_step does not do the same in all processes: call {self._calls} of "
                f"step.minimize in step {self.number + 1} is {call} in process {distributed.rank()} and another one "
                "elsewhere.\n  Minimize the same losses in the same order in each process; where a batch has nothing "
                "for one, use 0 * outputs.sum()"
            )


def _average_gradients(named: list[tuple[str, nn.Parameter]], step: int, *, find_unused: bool) -> None:
    """The mean of the gradients over all processes, as DistributedDataParallel's.

    That one prepares for the backward pass when `forward` returns, so it cannot average gradients of passes inside it.

    Args:
        named: parameters with their names, the same in all processes.
        find_unused: a process may not have used some of them: its gradient counts as 0.
    Raises:
        RecipeError: one did not, and `find_unused` is False.
    """
    if distributed.world_size() == 1:
        return
    if not find_unused:
        check_all_used(named, step)
    trained = [one for _, one in named if one.requires_grad]
    by_kind: dict[torch.dtype, list[nn.Parameter]] = {}
    for one in trained:
        if one.grad is None:
            one.grad = torch.zeros_like(one)
        by_kind.setdefault(one.grad.dtype, []).append(one)
    for parameters in by_kind.values():
        flat = torch.cat([one.grad.reshape(-1) for one in parameters if one.grad is not None])
        dist.all_reduce(flat)
        flat /= distributed.world_size()
        for one, mean in zip(parameters, flat.split([one.numel() for one in parameters]), strict=True):
            assert one.grad is not None
            one.grad.copy_(mean.view_as(one.grad))
