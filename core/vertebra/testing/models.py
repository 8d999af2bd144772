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
from vertebra.models import BaseModel, Batch
from vertebra.registry import MODELS
from vertebra.testing.checks import check_gradients, check_same, require
from vertebra.testing.elsewhere import check_export, check_spawned
from vertebra.testing.inputs import bare
from vertebra.testing.minimized import collect_gradients, minimized
from vertebra.testing.training import BreakAt, Interrupted, small_run
from vertebra.testing.whole_model import FITTED, WholeModelConformance

__all__ = ["ModelConformance"]


class ModelConformance(WholeModelConformance):
    """Subclass it with `component` and `recipe`; the rest has defaults.

    A model with a `training_step` of its own is checked by what that minimizes: its gradients, collected over up to 8
    steps, for a step may skip a loss; its sign; whether padded ground truth changes it. Raw outputs are fitted to it
    where the step gets them from `self.compute(batch)` or `self.network(batch.images)`.

    Attributes:
        component: the model's name, as a recipe writes it.
        recipe: a path or `plugin:recipe` whose `model` it is; the smaller, the faster the checks.
        overrides: `key=value` laid over the recipe.
        inputs, data, negative_losses, image_size, fit_lr: see HeadConformance.
        overfit_steps, overfit_lr, overfit_size, overfit_overrides: see HeadConformance. A model with a step of its own
            takes these steps with an AdamW for each of `train.optimizers`; what it finds counts, not its losses.
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
        return model(inputs) if self.learns_by_losses() else collect_gradients(model, inputs)

    def losses_of_batch(self, model: Any, batch: Batch) -> dict[str, Tensor]:
        return super().losses_of_batch(model, batch) if self.learns_by_losses() else minimized(model, batch)

    def losses_of_raw(self, part: Any, raw: Any, batch: Batch, number: int) -> dict[str, Tensor]:
        if self.learns_by_losses():
            return super().losses_of_raw(part, raw, batch, number)
        return minimized(part.train(), batch, number, raw, FITTED)

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
