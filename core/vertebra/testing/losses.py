"""LossConformance: what every loss promises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from vertebra.models import Loss
from vertebra.testing.checks import build_from_defaults, check_same, require
from vertebra.testing.elsewhere import check_spawned
from vertebra.testing.inputs import INPUT_SHAPE
from vertebra.testing.training import check_trains_by_recipe

__all__ = ["LossConformance"]


class LossConformance:
    """Subclass it with `component`.

    Attributes:
        component: the loss's name, as a recipe writes it.
        arguments: for its constructor, where it has arguments without default.
        takes: what it is called with. "scores": logits and targets 0 to 1, both (N, K); "values": any numbers of one
            shape; "boxes": pairs of xyxy boxes (N, 4); "labels": logits (N, K, H, W) and labels (N, H, W) int64 with
            255 ignored. None: "boxes" where the loss has a true `on_boxes`, else "scores".
        recipe: a path or `plugin:recipe` that uses it; two steps are trained where it is given.
    """

    component: ClassVar[str] = ""
    arguments: ClassVar[Mapping[str, Any]] = {}
    takes: ClassVar[Literal["scores", "values", "boxes", "labels"] | None] = None
    recipe: ClassVar[str] = ""

    def test_gives_a_scalar_or_one_value_for_each_element(self) -> None:
        loss, (prediction, target) = self.make(), self.make_pair()
        value = loss(prediction, target)
        allowed = {(), tuple(prediction.shape), tuple(target.shape), tuple(prediction.shape[:-1])}
        require(
            tuple(value.shape) in allowed,
            f"for predictions {tuple(prediction.shape)} the loss is {tuple(value.shape)}: neither a scalar nor one "
            "value for each element",
        )
        require(value.is_floating_point(), f"the loss is {value.dtype}, it must be a float tensor")
        require(bool(torch.isfinite(value).all()), "the loss of ordinary predictions is not finite")

    def test_gradient_reaches_the_predictions(self) -> None:
        gradient = self.gradient_of(*self.make_pair(), "ordinary predictions")
        require(bool((gradient != 0).any()), "the gradient of ordinary predictions is 0 everywhere")

    def test_right_predictions_cost_less_than_wrong_ones(self) -> None:
        right, target = self.make_right()
        wrong, _ = self.make_pair()
        low, high = (float(self.make()(x, target).float().mean()) for x in (right, wrong))
        require(low < high, f"right predictions have the loss {low:.4g}, random ones {high:.4g}")

    def test_a_small_step_down_the_gradient_lowers_it(self) -> None:
        loss, (prediction, target) = self.make(), self.make_pair()
        gradient = self.gradient_of(prediction, target, "ordinary predictions")
        step = 1e-3 * float(prediction.abs().mean()) / float(gradient.abs().max().clamp(min=1e-12))
        before, after = (float(loss(x, target).double().sum()) for x in (prediction, prediction - step * gradient))
        require(after < before, f"a small step against the gradient changed the loss from {before:.6g} to {after:.6g}")

    def test_finite_at_the_extremes(self) -> None:
        for what, (prediction, target) in self.make_extremes().items():
            value = self.make()(prediction, target)
            require(bool(torch.isfinite(value).all()), f"the loss is not finite for {what}")
            self.gradient_of(prediction, target, what)

    def test_nothing_in_nothing_lost(self) -> None:
        prediction, target = (x[:0] for x in self.make_pair())
        prediction = prediction.clone().requires_grad_()
        value = self.make()(prediction, target)
        require(value.numel() == 0 or bool(torch.isfinite(value)), f"the loss of no elements at all is {value}")
        value.sum().backward()

    def test_half_precision_predictions(self) -> None:
        prediction, target = self.make_pair()
        coarse = prediction.to(torch.bfloat16)
        value = self.make()(coarse, target)
        require(bool(torch.isfinite(value).all()), "the loss of bf16 predictions is not finite")
        gradient = self.gradient_of(coarse, target, "bf16 predictions")
        require(gradient.dtype == torch.bfloat16, f"bf16 predictions get a gradient of {gradient.dtype}")
        check_same(value.float(), self.make()(coarse.float(), target).float(), "bf16 and fp32", tolerance=2e-2)

    def test_leaves_its_inputs_alone(self) -> None:
        prediction, target = self.make_pair()
        before = prediction.clone(), target.clone()
        self.make()(prediction, target)
        check_same(before, (prediction, target), "the loss's inputs after the call")

    def test_same_call_same_loss(self) -> None:
        pair = self.make_pair()
        check_same(self.make()(*pair), self.make()(*pair), "two losses of the same predictions")

    def test_survives_a_spawned_process(self) -> None:
        check_spawned(self.make(), *self.make_pair())

    def test_trains_by_its_recipe(self) -> None:
        if self.recipe:
            check_trains_by_recipe(self.recipe, "loss", self.component)

    def make(self) -> Loss:
        """A new loss."""
        return build_from_defaults("loss", self.component, self.arguments, input_shape=dict(INPUT_SHAPE))

    def make_pair(self) -> tuple[Tensor, Tensor]:
        """Ordinary predictions and targets, not right and not absurd."""
        generator = torch.Generator().manual_seed(0)
        takes = self._takes()
        if takes == "boxes":
            return _boxes(generator), _boxes(generator)
        if takes == "labels":
            labels = torch.randint(0, 4, (2, 6, 5), generator=generator)
            labels[0, 0] = 255
            return torch.randn(2, 4, 6, 5, generator=generator), labels
        prediction = torch.randn(12, 4, generator=generator)
        if takes == "values":
            return prediction, torch.randn(12, 4, generator=generator)
        return prediction, (torch.rand(12, 4, generator=generator) < 0.3).float()

    def make_right(self) -> tuple[Tensor, Tensor]:
        """Predictions that fit the targets of `make_pair`."""
        _, target = self.make_pair()
        if self._takes() == "labels":
            known = target.where(target != 255, 0)
            return 16 * torch.nn.functional.one_hot(known, 4).movedim(-1, 1).float() - 8, target
        return (16 * target - 8 if self._takes() == "scores" else target.clone()), target

    def make_extremes(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Pairs that a training meets sooner or later, by what they are."""
        prediction, target = self.make_pair()
        if self._takes() == "boxes":
            point = prediction[:, [0, 1, 0, 1]]
            return {
                "boxes that agree": (target.clone(), target),
                "boxes far apart": (prediction + 1e4, target),
                "predicted boxes without area": (point, target),
                "boxes of one pixel": (point + point.new_tensor([0, 0, 1, 1]), target),
                "pairs of boxes without area": (point, point.clone()),
            }
        if self._takes() == "labels":
            return {
                "logits of 1e4": (prediction.sign() * 1e4, target),
                "labels that are all ignored": (prediction, torch.full_like(target, 255)),
            }
        far = {"predictions of 1e4": (prediction.sign() * 1e4, target)}
        return far | {"predictions that agree": (target.clone(), target), "targets of 0": (prediction, 0 * target)}

    def gradient_of(self, prediction: Tensor, target: Tensor, what: str) -> Tensor:
        """Of the sum of the loss by the predictions; it must be there and finite."""
        prediction = prediction.detach().clone().requires_grad_()
        value = self.make()(prediction, target)
        require(value.requires_grad, f"the loss does not depend on its first argument for {what}")
        value.sum().backward()
        gradient = prediction.grad
        if gradient is None:
            raise AssertionError(f"the predictions get no gradient for {what}")
        require(bool(torch.isfinite(gradient).all()), f"the gradient is not finite for {what}")
        return gradient

    def _takes(self) -> str:
        return self.takes or ("boxes" if getattr(self.make(), "on_boxes", False) else "scores")


def _boxes(generator: torch.Generator, count: int = 12) -> Tensor:
    corner = torch.rand(count, 2, generator=generator) * 20
    return torch.cat((corner, corner + 5 + torch.rand(count, 2, generator=generator) * 30), dim=1)
