"""What HeadConformance and ModelConformance have in common: checks of a recipe's whole model."""

from __future__ import annotations

import copy
import math
import tempfile
import unittest
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from vertebra.config import load_recipe
from vertebra.models import BaseModel, Batch
from vertebra.models.contracts import named_tensors
from vertebra.testing.agreement import check_leaves_alone, check_padding, check_signs
from vertebra.testing.checks import (
    check_losses,
    check_same,
    check_state_round_trip,
    require,
)
from vertebra.testing.fitting import Fit, check_predicts_what_it_learns, other_in_evaluation
from vertebra.testing.independence import check_neighbors, check_sizes, without_truth
from vertebra.testing.inputs import bare
from vertebra.testing.marks import slow
from vertebra.testing.model_parts import feature_parts, parts_of, shake
from vertebra.testing.overfit import check_overfits
from vertebra.testing.predictions import check_predictions
from vertebra.testing.recipe_model import RecipeModel
from vertebra.testing.training import check_trains_by_recipe

__all__ = ["FITTED", "WholeModelConformance"]

FITTED = 150  # steps
_CELLS = {"things": 3, "stuff": 8}  # of the finest stride, along the shorter side of images whose labels are fitted


class WholeModelConformance(RecipeModel):
    """All checks run on the recipe's whole model, on inputs made by hand, without pretrained weights. The recipe is
    loaded once per class and its model is built once; each check works on a copy."""

    data: ClassVar[Literal["generated", "recipe"]] = "generated"
    negative_losses: ClassVar[tuple[str, ...]] = ()
    fit_lr: ClassVar[float] = 0.1
    overfit_steps: ClassVar[int] = 300
    overfit_lr: ClassVar[float] = 1e-3
    overfit_overrides: ClassVar[Sequence[str]] = ()

    def test_its_recipe_survives_saving(self) -> None:
        recipe = self.load()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "saved.yaml"
            recipe.save(path)
            require(load_recipe(path) == recipe, "the recipe, saved resolved and loaded again, is another one")

    def test_same_seed_same_losses_and_predictions(self) -> None:
        inputs = self.make_inputs()
        first, second = self.copy_model(), self.make_model()
        check_same(first.state_dict(), second.state_dict(), "weights of two models of one seed")
        losses, predictions = [], []
        for model in (first, second):
            torch.manual_seed(7)
            losses.append(self.losses_of(model.train(), inputs))
            torch.manual_seed(8)
            predictions.append(self._predict(model, inputs))
        check_same(losses[0], losses[1], "losses under one seed")
        check_same(predictions[0], predictions[1], "predictions under one seed")

    def test_every_parameter_gets_a_gradient(self) -> None:
        self.train_on(self.make_inputs(), "two images with objects")

    def test_images_without_objects(self) -> None:
        empty, full = self.make_inputs(objects=0), self.make_inputs()
        self.train_on(empty, "two images without objects")
        self.train_on([full[0], empty[1]], "an image without objects beside one with")

    def test_padded_ground_truth_changes_no_loss(self) -> None:
        inputs = [self.make_input(0, objects=1), self.make_input(1)]
        model = self.copy_model().train()

        batch = model.make_batch(inputs)
        if batch.gt_valid is not None:
            check_padding(lambda one: self.losses_of_batch(model, one), batch)

    def test_losses_are_not_negative(self) -> None:
        inputs = self.make_inputs()
        for scale in (0.0, 0.1):
            model = self.copy_model()
            shake(self.part_of(model), scale)
            torch.manual_seed(5)
            check_signs(self.losses_of_batch(model.train(), model.make_batch(inputs)), self.negative_losses)

    def test_what_is_learned_is_what_is_predicted(self) -> None:
        """Raw outputs that are fitted to the losses, with no network before them, are predicted as the ground truth.
        Compared are boxes, masks and keypoints of `instances`, and `sem_seg`; outputs of other names are not."""
        try:
            self._check_fitted(1)
        except AssertionError as failure:
            factor = self._enlargement()
            if factor == 1:
                raise
            try:
                self._check_fitted(factor)
            except AssertionError:
                raise
            except Exception as err:  # such as of a network for one size alone
                raise failure from err

    def test_leaves_what_others_need_alone(self) -> None:
        """Features, raw outputs and the batch are not changed in place, in training or prediction."""
        h, w = self.image_size
        inputs = [self.make_input(0), self.make_input(1, (h - 7, w - 9))]  # the second is padded
        for training in (True, False):
            model = self.copy_model().train(training)
            name = _named(self.part_of(model))
            batch = model.make_batch(inputs if training else bare(inputs))
            fields = [name for name, field in self._fields().items() if field.geometry != "image"]
            parts = parts_of(batch, fields if training else ())
            with torch.set_grad_enabled(training), check_leaves_alone(parts, name, "the batch"), self.watched(model):
                if training and not self.learns_by_losses():
                    self.losses_of_batch(model, batch)
                    continue
                raw = model.compute(batch)
                what = "its raw outputs (or the features in them)"
                with check_leaves_alone(raw, f"{name}.{'losses' if training else 'predict'}", what):
                    model.losses(raw, batch) if training else self._predict_raw(model, raw, batch, inputs)

    def test_an_image_does_not_see_its_neighbors(self) -> None:
        """Predictions of an image are the same beside any other of its size; and after images of another size."""
        h, w = self.image_size
        inputs, other = [self.make_input(seed) for seed in range(3)], [self.make_input(0), self.make_input(3, (w, h))]
        model = self.copy_model()
        shake(self.part_of(model), 0.3)
        fresh, name = copy.deepcopy(model), _named(self.part_of(model))
        check_neighbors(self._predict(model, inputs[:2]), self._predict(model, inputs[::2]), name)
        check_sizes(lambda one, size: self._predict(one, [other[size]]), lambda: copy.deepcopy(fresh), name)

    def test_a_batch_of_one(self) -> None:
        self.train_on(self.make_inputs()[:1], "a batch of one")
        model, inputs = self.copy_model(), self.make_inputs()[:1]
        self._check_predictions(self._predict(model, inputs), inputs, model)

    def test_odd_sizes(self) -> None:
        h, w = self.image_size
        sizes = [(h + 11, w - 43), (h - 31, w + 1)]
        inputs = [self.make_input(seed, size) for seed, size in enumerate(sizes)]
        model = self.train_on(inputs, f"images of {sizes[0]} and {sizes[1]} pixels")
        self._check_predictions(self._predict(model, inputs), inputs, model)

    def test_boxes_of_one_pixel(self) -> None:
        self.train_on(self.make_inputs(edge=(1, 1), objects=5), "boxes of one pixel")

    def test_all_labels_ignored(self) -> None:
        self.train_on(self.make_inputs(ignored=True), "semantic labels all 255, masks all empty")

    def test_predictions_follow_the_contract(self) -> None:
        """Freshly built, then with shaken weights, which find more; in a size other than the input's."""
        model = self.copy_model()
        h, w = self.image_size
        inputs = [self.make_input(0, original=(2 * h, 3 * w)), self.make_input(1, (h - 7, w - 9), original=(h // 2, w))]
        for scale in (0.0, 0.1, 1.0):
            shake(self.part_of(model), scale)
            self._check_predictions(self._predict(model, inputs), inputs, model)

    def test_prediction_changes_nothing(self) -> None:
        model, inputs = self.copy_model(), self.make_inputs()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        first = self._predict(model, inputs)
        check_same(before, model.state_dict(), "weights and buffers after a prediction")
        check_same(first, self._predict(model, inputs), "two predictions of the same images")

    def test_state_dict_round_trip_is_bit_equal(self) -> None:
        inputs = self.make_inputs()
        check_state_round_trip(self.copy_model(), self.make_model(1), lambda model: self._raw(model, inputs))

    def test_finite_under_bf16_autocast(self) -> None:
        model, inputs = self.copy_model(), self.make_inputs()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = self.losses_of(model.train(), inputs)
        self.backward(model, losses, "bf16 autocast")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = self._predict(model, inputs)
        self._check_predictions(found, inputs, model)

    def test_trains_by_its_recipe(self) -> None:
        """Two steps on few pictures: the whole way from recipe to checkpoint."""
        specs = self._specs()
        require(bool(specs), f"the {self.kind}s of recipe {self.recipe} do not name {self.component}")
        check_trains_by_recipe(
            self.recipe,
            self.kind,
            self.component,
            self.overrides,
            semantic=self._needs_labels(),
            generated=self.data == "generated",
        )

    @slow
    def test_overfits_eight_images(self) -> None:
        check_overfits(
            self.load(self.overfit_overrides),
            semantic=self._needs_labels(),
            size=self.overfit_size,
            steps=self.overfit_steps,
            lr=self.overfit_lr,
            generated=self.data == "generated",
        )

    # What the checks are made of; a subclass may replace these.

    def train_on(self, inputs: list[dict[str, Any]], what: str) -> Any:
        """A model in training on these inputs: finite losses, a gradient for every parameter."""
        model = self.copy_model()
        torch.manual_seed(5)
        losses = self.losses_of(model.train(), inputs)
        check_losses(losses, what, gradient=self.learns_by_losses())
        self.backward(model, losses, what)
        return model

    def _check_fitted(self, factor: int) -> None:
        inputs, model = self.make_fixed_inputs(factor), self.copy_model().train()
        batch, images = model.make_batch(inputs), model.make_batch(bare(inputs))
        torch.manual_seed(6)
        part, raw = self.task_of(model, model.compute(batch))
        if not self.learns_by_losses() and not any(one.requires_grad for _, one in named_tensors(raw)):
            raise unittest.SkipTest(
                f"{_named(part)} predicts with frozen parts, such as an average of those that its step trains, so that "
                "no raw outputs can be fitted to its losses"
            )
        task: Any = part  # with losses and predict

        @torch.no_grad()
        def predict(raw: Any) -> list[dict[str, Any]]:
            part.eval()
            return without_truth(lambda: task.predict(raw, images), lambda: task.predict(raw, batch), _named(part))

        def fit() -> Fit:
            own = [one for one in part.parameters() if one.requires_grad] if self.learns_by_losses() else []
            return Fit(raw, lambda raw, number: self.losses_of_raw(part, raw, batch, number), predict, inputs, own)

        try:
            check_predicts_what_it_learns(fit, _named(part), batch.padded_size, FITTED, self.fit_lr)
        except Exception as err:
            if self._gives_other_in_evaluation(model, raw, images):
                raise unittest.SkipTest(
                    f"{_named(part)} gives raw outputs of another form in evaluation than in training, so that those "
                    "fitted to its losses are not what predict takes; test_overfits_eight_images compares the two"
                ) from err
            raise

    def _enlargement(self) -> int:
        """By how much `overfit_size` is too small for the finest stride of the features."""
        strides = [shape.stride for part in feature_parts(self._model()) for shape in part.output_shape().values()]
        return max(1, math.ceil(_CELLS[self._labels()] * min(strides, default=1) / min(self.overfit_size)))

    @torch.no_grad()
    def _gives_other_in_evaluation(self, model: Any, raw: Any, images: Batch) -> bool:
        return other_in_evaluation(raw, self.task_of(model, model.eval().compute(images))[1])

    def _predict_raw(self, model: Any, raw: Any, batch: Batch, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        full = model.make_batch(inputs)
        return without_truth(
            lambda: model.predict(raw, batch), lambda: model.predict(raw, full), _named(self.part_of(model))
        )

    @torch.no_grad()
    def _raw(self, model: Any, inputs: list[dict[str, Any]]) -> Any:
        return model.eval().compute(model.make_batch(bare(inputs)))

    @torch.no_grad()
    def _predict(self, model: Any, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        model.eval()
        return without_truth(lambda: model(bare(inputs)), lambda: model(inputs), _named(self.part_of(model)))

    def _check_predictions(self, outputs: Any, inputs: list[dict[str, Any]], model: BaseModel) -> None:
        labels = self._num_labels() if self._labels() == "stuff" else None
        keys = sorted(model.output_keys)
        check_predictions(outputs, inputs, keys=keys, num_things=self.num_things, num_labels=labels)
        further = sorted({key for one in outputs for key in one} - model.output_keys)
        require(
            not further,
            f"predictions have {', '.join(further)}, which task_outputs do not declare ({', '.join(keys)}), so that "
            "no evaluator, writer or export is chosen for it; declare all keys",
        )


def _named(part: Any) -> str:
    return type(part).__name__
