"""ModelConformance: what every whole model promises."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from vertebra.config import load_recipe
from vertebra.engine import Trainer
from vertebra.engine.blame import owns_step
from vertebra.models import BaseModel
from vertebra.registry import MODELS
from vertebra.testing.checks import check_gradients, check_losses, check_same, require
from vertebra.testing.elsewhere import check_export, check_spawned
from vertebra.testing.inputs import bare
from vertebra.testing.training import BreakAt, Interrupted, small_run
from vertebra.testing.whole_model import WholeModelConformance

__all__ = ["ModelConformance"]


class ModelConformance(WholeModelConformance):
    """Subclass it with `component` and `recipe`; the rest has defaults.

    A model with a `training_step` of its own is checked by what that minimizes: it takes the steps, here without an
    optimizer, and its gradients are looked at.

    Attributes:
        component: the model's name, as a recipe writes it.
        recipe: a path or `plugin:recipe` whose `model` it is; the smaller, the faster the checks.
        overrides: `key=value` laid over the recipe.
        inputs, data, negative_losses, image_size, fit_lr: see HeadConformance.
        overfit_steps, overfit_lr, overfit_size, overfit_overrides: see HeadConformance; not for a model with a step of
            its own.
    """

    kind: ClassVar = "model"

    def test_builds_from_its_recipe(self) -> None:
        model = self._model()
        require(
            isinstance(model, MODELS.get(self.component)),
            f"the model of recipe {self.recipe} is a {type(model).__name__}, not {self.component}",
        )
        require(bool(model.output_keys), f"{self.component}.task_outputs is empty; name the keys of its outputs")

    def test_survives_a_spawned_process(self) -> None:
        check_spawned(self.copy_model().eval(), bare(self.make_inputs()))

    def test_its_network_exports(self) -> None:
        """Where it has `export_raw`, by which a model says that it exports."""
        model = self.copy_model().eval()
        if type(model).export_raw is not BaseModel.export_raw:
            batch = model.make_batch(bare(self.make_inputs()))
            check_export(_Network(model), batch.images)

    def test_a_resumed_training_ends_as_an_uninterrupted_one(self) -> None:
        settings = small_run(4, semantic=self._needs_labels(), generated=self.data == "generated")
        recipe = load_recipe(self.recipe, [*settings, {"train.checkpoint_every": 2}, *self.overrides])
        with tempfile.TemporaryDirectory() as folder:
            whole = Trainer(recipe, output_dir=Path(folder) / "whole")
            whole.train()
            with suppress(Interrupted):
                Trainer(recipe, output_dir=Path(folder) / "parts", hooks=[BreakAt(2)]).train()
            resumed = Trainer(recipe, output_dir=Path(folder) / "parts", resume=True)
            resumed.train()
            check_same(
                whole.model.state_dict(),
                resumed.model.state_dict(),
                "weights after a break and without one (what a model counts or remembers belongs in a buffer)",
            )

    def learns_by_losses(self) -> bool:
        return not owns_step(self._model())

    def losses_of(self, model: Any, inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        if self.learns_by_losses():
            return model(inputs)
        model.zero_grad(set_to_none=True)
        step = _Gradients()
        logged = model(inputs, step)
        check_losses(logged, "training_step", gradient=False)
        require(step.loss is not None, "training_step has not called step.minimize(name, loss), so nothing is learned")
        return logged

    def backward(self, model: Any, losses: dict[str, Tensor], what: str) -> None:
        if self.learns_by_losses():
            super().backward(model, losses, what)
        else:
            check_gradients(model, what)


class _Network(nn.Module):
    """From images to raw outputs, as an export sees a model."""

    def __init__(self, model: BaseModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Any:
        return self.model.compute(images)


class _Gradients:
    """What a training step gets here: gradients are computed, weights stay."""

    number, total = 0, 1

    def __init__(self) -> None:
        self.loss: Tensor | None = None

    def minimize(self, name: str, loss: Tensor, *, retain_graph: bool = False) -> None:
        require(
            isinstance(loss, Tensor) and loss.numel() == 1 and loss.requires_grad,
            f"step.minimize({name!r}, ...) gets a loss without gradient; expected a scalar that depends on weights",
        )
        loss.backward(retain_graph=retain_graph)
        self.loss = loss.detach() if self.loss is None else self.loss + loss.detach()
