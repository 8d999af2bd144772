"""Trainer: the training loop. Everything optional is a hook (`engine/hooks`)."""

from __future__ import annotations

import contextlib
import logging
import operator
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from vertebra.engine.blame import check_all_used, explained, owns_step
from vertebra.engine.checkpoint import CheckpointStore, write_checkpoint
from vertebra.engine.environment import describe_run, version
from vertebra.engine.hook import Hook, check_scalars
from vertebra.engine.hooks.bad_loss import check_finite, not_finite
from vertebra.engine.hooks.defaults import default_hooks
from vertebra.engine.hooks.interrupt import SaveOnInterrupt
from vertebra.engine.parts import Parts, build_parts
from vertebra.engine.rng import preserved_rng, seed_everything, set_rng_state
from vertebra.engine.run_folder import TO_FILE_ONLY, RunFolder, choose_run_folder, first_folder, logging_to, newest_run
from vertebra.engine.signals import Signals, StopNow
from vertebra.engine.state import checkpoint_of, hook_states, resume_newest, weights_of
from vertebra.engine.step import Step
from vertebra.errors import RecipeError
from vertebra.models.contracts import check_losses
from vertebra.runtime import autocast, distributed, make_grad_scaler
from vertebra.runtime.process import check_ranks_agree, open_process, text_checksum, weights_checksum

if TYPE_CHECKING:
    from vertebra.config import Recipe

__all__ = ["Trainer"]

logger = logging.getLogger(__name__)


class Trainer:
    """Trains what a recipe describes, in a folder of its own.

    Args:
        recipe: a validated recipe; None where `parts` are given.
        output_dir: the run's folder; None: chosen from the recipe (without a recipe: nothing is written).
        resume: go on exactly where the run in the folder stopped; where it holds no checkpoint, at the beginning.
        hooks: run after those of the recipe and before the logs.
        parts: takes the place of what the recipe would build.
    Attributes that hooks use:
        model, optimizer, scaler, device, plan, folder (None: nothing is written).
        evaluated_model: what evaluation and final.pth take; the model, unless a hook keeps a better one.
        step, max_steps: steps done and to do.
        signals: Ctrl-C and SIGTERM, as far as they came.
        batch, losses, loss: of the current step; loss is the sum of losses.
        scalars: further numbers of this step to average and log.
        data_seconds: time spent waiting for batches so far.
        metrics: the latest value of every number that was written.
        results: of those the loss and what evaluations gave.
    Raises:
        RecipeError: the folder already holds a run and `resume` is False, or the recipe does not fit the machine.
        CheckpointError: the run in the folder cannot be resumed with this recipe.
    """

    def __init__(
        self,
        recipe: Recipe | None = None,
        output_dir: str | Path | None = None,
        resume: bool = False,
        hooks: Sequence[Hook] = (),
        *,
        parts: Parts | None = None,
    ) -> None:
        if (recipe is None) == (parts is None):
            raise TypeError("Trainer needs either a recipe or parts")
        if recipe is not None:
            open_process(recipe.train.device)
            if output_dir is None:
                output_dir = newest_run(recipe) if resume else None
                distributed.on_main_process(partial(first_folder, recipe))
        self.folder: RunFolder | None = None
        self.checkpoints: CheckpointStore | None = None
        found = None
        if output_dir is not None:
            distributed.on_main_process(partial(RunFolder(output_dir).check_free, resume))
            checkpoints = self._write_to(output_dir)
            found = checkpoints.newest() if resume else None

        if parts is None:
            assert recipe is not None  # exactly one of the two is given, as checked above
            parts = build_parts(recipe, starting_weights=found is None)
        self.parts = parts
        self.plan = self.parts.plan
        self.model, self.device = self.parts.model, self.parts.device
        self.optimizer: Any = self.parts.optimizer
        self.evaluated_model = self.model
        self.scaler = make_grad_scaler(self.device, self.plan.amp)
        self.hooks = default_hooks(self.parts, [*self.parts.hooks, *hooks])
        self.step, self.max_steps = 0, self.plan.steps
        self.batch: Any = None
        self.losses: dict[str, Tensor] = {}
        self.loss: Tensor | None = None
        self.scalars: dict[str, Tensor | float] = {}
        self.metrics: dict[str, float | None] = {}
        self.results: dict[str, float | None] = {}
        self.data_seconds = 0.0
        self.stop_reason: str | None = None
        self.signals = Signals()
        self._batches: Iterator[Any] | None = None
        self.resumed_rng: dict[str, Any] | None = None
        self._saved_step = -1
        self._not_finite_at_start = not_finite(self.model)
        self._notes = list(self.parts.notes)
        if found is not None:
            assert self.checkpoints is not None
            self._notes += resume_newest(self, found, self.checkpoints)
            self._saved_step = self.step
        elif resume:
            where = output_dir or (recipe.run_folder if recipe else "")
            self._notes.append(f"nothing to resume in {where}: starting at step 0")
        self._check_ranks_agree()
        if recipe is not None and self.folder is None:  # made last: what fails until here leaves no folder behind
            self._write_to(choose_run_folder(recipe))
        if self.checkpoints is not None:
            self.checkpoints.keep = self.plan.keep_checkpoints

    def _write_to(self, folder: str | Path) -> CheckpointStore:
        self.folder = RunFolder(folder)
        self.checkpoints = CheckpointStore(self.folder.checkpoints)
        return self.checkpoints

    @property
    def is_main_process(self) -> bool:
        """True in the one process that writes files."""
        return distributed.is_main_process()

    def train(self) -> dict[str, float | None]:
        """Runs all steps that are left and the hooks around them.

        Returns:
            The latest `loss` and the numbers of the latest evaluation (`bbox/AP`, ...), flat; None where undefined.
        Raises:
            TrainingDiverged: a loss or a weight is no longer finite.
        """
        with contextlib.ExitStack() as stack:
            self._open(stack)
            self._call("before_train")
            hook_states(self.hooks)  # what no checkpoint could hold is found before the first step
            owned, forward, trained = owns_step(self.model), self.model, None
            averaged, find_unused = distributed.world_size() > 1 and not owned, self.plan.find_unused_parameters
            parameters = list(self.model.named_parameters()) if averaged else []
            while self.step < self.max_steps and self.stop_reason is None:
                self._call("before_step")
                with self.interruptible():
                    self.batch = self._next_batch()
                self._call("before_forward")
                if averaged and trained != (trained := [one.requires_grad for _, one in parameters]):  # frozen or not
                    forward = distributed.wrap(self.model, self.device, find_unused=find_unused)
                if owned:
                    step = Step(self)
                    self.losses, self.loss = step.closed(self._forward(self.model, step))
                else:
                    self.losses = self._forward(forward)
                    self.loss = _total(self.losses)
                    self.optimizer.zero_grad()
                    self.scaler.scale(self.loss).backward()
                    check_all_used([] if find_unused else parameters, self.step)
                    self.update_weights(self.optimizer)
                self.step += 1
                self._call("after_step")
            self._call("after_train")
        return self.results

    def _forward(self, forward: Callable[..., Any], *further: Any) -> Any:
        """The model's answer to the batch; an error names the part that raised it."""
        with autocast(self.device, self.plan.amp):
            try:
                return forward(self.batch, *further)
            except Exception as err:
                found = explained(err, self.model)
                if found is err:
                    raise
                raise found from err

    def update_weights(self, optimizer: Any) -> None:
        """From scaled gradients to new weights, with the hooks' `after_backward` between."""
        self.scaler.unscale_(optimizer)
        self._call("after_backward")
        self.scaler.step(optimizer)
        self.scaler.update()

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """What runs inside may be left at any line: a signal then saves the training as it is and ends it.

        In several processes, which have to save together, only what comes right after a checkpoint can be left so.
        """
        if distributed.world_size() > 1 and self._saved_step != self.step:
            yield
            return
        try:
            with self.signals.at_once():
                yield
        except StopNow:
            for hook in self.hooks:
                if isinstance(hook, SaveOnInterrupt):
                    hook.save(self)
            raise self.signals.error() from None

    def stop(self, reason: str) -> None:
        """Ends the training after this step, as after the last one."""
        if self.stop_reason is None:
            logger.info("Stopping at step %d: %s", self.step, reason)
            self.stop_reason = reason

    def write(self, record: dict[str, Any]) -> None:
        """Hands numbers (with their "step") to all hooks that write or watch them."""
        values = {name: value for name, value in record.items() if name != "step"}
        self.metrics |= values
        self.results |= {"loss": values["loss"]} if "loss" in values else values
        self._call("write", record)

    def save_checkpoint(self) -> Path | None:
        """Saves all that a resumed run needs; returns the file (None: no folder, or another process wrote it)."""
        if self.checkpoints is None:
            return None
        path = self.checkpoints.folder / f"step_{self.step:07d}.pth"
        if self._saved_step != self.step:
            self._call("before_checkpoint")
            check_finite(self, self._not_finite_at_start)
            content = checkpoint_of(self)
            if self.is_main_process:
                self.checkpoints.save(self.step, content)
            distributed.barrier()
            self._saved_step = self.step
        return path if self.is_main_process else None

    def save_final(self) -> None:
        """Writes final.pth: what evaluation and prediction need, without the optimizer."""
        check_finite(self, self._not_finite_at_start)
        if self.folder is not None and self.is_main_process:
            write_checkpoint(self.folder.final, weights_of(self))

    def _open(self, stack: contextlib.ExitStack) -> None:
        """Folder, log, seeds; all is undone when the stack closes."""
        distributed.barrier()  # all processes have looked at the folder before one writes there
        if self.folder is not None and self.is_main_process:
            stack.callback(self.folder.release)
            self.folder.claim(self.parts.recipe_text, self.step, self.parts.plugin_files)
        path = self.folder.log if self.folder is not None and self.is_main_process else None
        stack.enter_context(logging_to(path, console=self.is_main_process))
        stack.callback(self._close)
        for line in [*describe_run(self.parts), *self._notes] if self.is_main_process else ():
            logger.info(line)
        for line in self.parts.data_notes if self.is_main_process else ():
            logger.warning(line, extra=TO_FILE_ONLY)  # on the console since the data was read
        self.model.train()
        if self.resumed_rng is not None:
            set_rng_state(self.resumed_rng)
        else:
            seed_everything(self.plan.seed + 1000003 * self.step + distributed.rank())

    def _check_ranks_agree(self) -> None:
        facts = {
            "step": self.step,
            "recipe": text_checksum(self.parts.recipe_text),
            "plan": self.plan,
            "weights": weights_checksum(self.model),
            "version": version(),
        }
        hint = "Every process needs the same recipe, dataset and run folder; several machines need a shared disk"
        check_ranks_agree(facts, hint)

    def _next_batch(self) -> Any:
        started = time.perf_counter()
        if self._batches is None:
            with preserved_rng():  # starting data workers draws from torch's generator; a resumed run starts them again
                self._batches = iter(self.parts.batches(self.step))
                batch = next(self._batches)
        else:
            batch = next(self._batches)
        self.data_seconds += time.perf_counter() - started
        return batch

    def _call(self, event: str, *args: Any) -> None:
        if event == "before_step":
            self.scalars = {}
        for hook in self.hooks:
            getattr(hook, event)(self, *args)
            if self.scalars != {} and event != "close":  # which comes after an error too
                check_scalars(self.scalars, hook)

    def _close(self) -> None:
        self._call("close")
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()  # ends the data workers
        self._batches = None


def _total(losses: Any) -> Tensor:
    check_losses(losses, "the model")
    if not losses:
        raise RecipeError("the model returned no losses: does it have a head, and is it in training mode?")
    total = reduce(operator.add, losses.values())
    if not total.requires_grad:
        raise RecipeError(
            f"the loss does not depend on any trained parameter, so nothing can be learned: {', '.join(losses)}.\n"
            "  Check that not all parameters are frozen (freeze_at, a norm that is frozen), and that the head's losses "
            "are not detached from its outputs"
        )
    return total
