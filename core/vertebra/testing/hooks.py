"""HookConformance: what every hook promises."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vertebra.engine import Hook, Parts, Plan, Trainer
from vertebra.testing.checks import build_from_defaults, check_same, require, tensors_in
from vertebra.testing.training import BreakAt, Interrupted, check_trains_by_recipe

__all__ = ["HookConformance"]

_STEPS = 6


class HookConformance:
    """Subclass it with `component`. The hook runs in trainings of a few steps of a tiny model.

    Attributes:
        component: the hook's name, as a recipe writes it.
        arguments: for its constructor, where it has arguments without default.
        recipe: a path or `plugin:recipe` that uses it; two steps are trained where it is given.
        changes_training: the hook is meant to change weights or gradients; otherwise a training with it must end with
            the same weights as without it, bit by bit.
    """

    component: ClassVar[str] = ""
    arguments: ClassVar[Mapping[str, Any]] = {}
    recipe: ClassVar[str] = ""
    changes_training: ClassVar[bool] = False

    def test_a_training_runs_with_it(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            trainer = self.make_trainer(Path(folder) / "run", [self.make()])
            trainer.train()
            require(trainer.step > 0, "the training did not make a single step")

    def test_a_training_without_a_folder_runs_too(self) -> None:
        self.make_trainer(None, [self.make()]).train()

    def test_an_observer_leaves_the_training_alone(self) -> None:
        if self.changes_training:
            return
        alone, watched = self.make_trainer(None, []), self.make_trainer(None, [self.make()])
        alone.train(), watched.train()
        if watched.step == alone.step:  # it may end a training early
            check_same(
                alone.model.state_dict(),
                watched.model.state_dict(),
                "weights without and with the hook (does it draw random numbers, or change gradients? If it is meant "
                "to, set changes_training = True)",
            )

    def test_its_state_is_plain_and_comes_back(self) -> None:
        hook = self.make()
        self.make_trainer(None, [hook]).train()
        file = io.BytesIO()
        torch.save(hook.state_dict(), file)
        file.seek(0)
        try:
            state = torch.load(file, weights_only=True)
        except Exception as err:
            raise AssertionError(
                f"its state_dict is more than numbers, texts, tensors, lists and dicts: {err}"
            ) from err
        other = self.make()
        trainer = self.make_trainer(None, [other])
        other.load_state_dict(state)
        other.before_train(trainer)
        require(_equal(other.state_dict(), state), "after load_state_dict, state_dict gives something else")
        other.close(trainer)

    def test_a_resumed_training_ends_as_an_uninterrupted_one(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            whole_hook, resumed_hook = self.make(), self.make()
            whole = self.make_trainer(Path(folder) / "whole", [whole_hook])
            whole.train()
            first = self.make_trainer(Path(folder) / "parts", [self.make(), BreakAt(_STEPS // 2)])
            try:
                first.train()
            except Interrupted:
                pass
            else:
                return  # the hook ended the training before the break
            resumed = self.make_trainer(Path(folder) / "parts", [resumed_hook], resume=True)
            resumed.train()
            check_same(whole.model.state_dict(), resumed.model.state_dict(), "weights after a break and without one")
            require(
                _equal(whole_hook.state_dict(), resumed_hook.state_dict()),
                "the hook's state after a break differs from that of an uninterrupted run; put all of it in state_dict",
            )

    def test_closes_after_an_error(self) -> None:
        hook = self.make()
        trainer = self.make_trainer(None, [hook, BreakAt(0)])
        try:
            trainer.train()
        except Interrupted:
            return
        raise AssertionError("the hook hid an error that another hook raised")

    def test_trains_by_its_recipe(self) -> None:
        if self.recipe:
            check_trains_by_recipe(self.recipe, "hook", self.component)

    def make(self) -> Hook:
        """A new hook."""
        return build_from_defaults("hook", self.component, self.arguments)

    def make_trainer(self, folder: Path | None, hooks: list[Hook], *, resume: bool = False) -> Trainer:
        """A training of a tiny model with dropout, batches made from their number."""
        torch.manual_seed(0)
        model = _TinyModel()
        parts = Parts(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
            batches=_batches,
            plan=Plan(steps=_STEPS, batch_size=4, checkpoint_every=1, log_every=2, evaluate_every=2),
            evaluate=_evaluate,
            recipe_text="model: {tiny: true}\n",
        )
        return Trainer(output_dir=folder, resume=resume, hooks=hooks, parts=parts)


class _TinyModel(nn.Module):
    """Two layers, dropout and batch norm; from a list of dicts to losses."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1))
        self.score = nn.Linear(8, 1)

    def forward(self, inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        images = torch.stack([one["image"] for one in inputs]).float() / 255  # (N, 3, H, W)
        score = self.score(self.backbone(images).mean(dim=(2, 3)))[:, 0]
        target = images.mean(dim=(1, 2, 3))
        return {"tiny/error": (score - target).square().mean(), "tiny/size": 1e-3 * score.square().mean()}


def _batches(start: int) -> Iterator[list[dict[str, Any]]]:
    number = start
    while True:
        generator = torch.Generator().manual_seed(number)
        yield [{"image": torch.randint(0, 256, (3, 8, 8), generator=generator, dtype=torch.uint8)} for _ in range(4)]
        number += 1


def _evaluate(model: nn.Module, folder: Path | None, last: bool) -> dict[str, float | None]:
    """Falls, then stays: what a hook that watches a metric sees."""
    return {"tiny/AP": 0.25, "bbox/AP": 0.25, "sem_seg/mIoU": 0.25}


def _equal(first: Any, second: Any) -> bool:
    """Plain data that agrees, tensors bit by bit."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return set(first) == set(second) and all(_equal(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(map(_equal, first, second))
    if isinstance(first, Tensor) or isinstance(second, Tensor):
        pairs = zip(tensors_in(first), tensors_in(second), strict=True)
        return all(a.shape == b.shape and torch.equal(a, b) for (_, a), (_, b) in pairs)
    return first == second
