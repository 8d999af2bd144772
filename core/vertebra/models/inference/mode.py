"""The contract of inference modes, and how several are put around one model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from vertebra.config.injection import known_facts
from vertebra.errors import RecipeError

if TYPE_CHECKING:
    from vertebra.config import ComponentSpec

__all__ = ["InferenceMode", "Predict", "image_of", "scores_of", "view_of", "with_inference"]

Predict = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
"""What a model in evaluation mode does: input dicts to one dict of predictions each."""


class InferenceMode:
    """Predicts images through a model that is asked several times, and joins what it says.

    A mode is a part of its own, chosen by a recipe's `evaluate.inference`; the model knows nothing of it. It gives the
    same keys in the same sizes as the model does: `sem_seg` (K, height, width), scores.
    """

    component_kind: ClassVar[str] = "part"

    def __call__(self, predict: Predict, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Predictions of each input: `image` (3, H, W) uint8, perhaps `height` and `width` of the output.

        Args:
            predict: the model, or another mode around it.
        """
        raise NotImplementedError


def with_inference(
    predict: Predict, inference: ComponentSpec | Sequence[ComponentSpec] | None, metadata: Any | None = None
) -> Predict:
    """The model with the modes that a recipe's `evaluate.inference` names around it, the first outermost.

    Args:
        metadata: facts of the classes that the model predicts, for modes that ask for them.
    """
    given: Sequence[Any] = inference if isinstance(inference, (list, tuple)) else [inference]
    specs: list[ComponentSpec] = [spec for spec in given if spec is not None]
    if specs and len(getattr(predict, "pixels", ())) > 1:
        raise RecipeError(
            f"{specs[0].where}: evaluate.inference: {specs[0].name} cuts and scales one image, but the model takes "
            "several.\n  Remove evaluate.inference"
        )
    for spec in reversed(specs):
        mode = spec.build(**known_facts(metadata))
        if not isinstance(mode, InferenceMode):
            raise RecipeError(
                f"{spec.where}: evaluate.inference: {spec.name} is a part, but not an inference mode.\n"
                "  Available: SlidingWindow, MultiScaleFlip, and any subclass of InferenceMode"
            )
        predict = partial(mode, predict)
    return predict


def image_of(sample: dict[str, Any]) -> Tensor:
    """The image (3, H, W) of an input, without padding that the evaluation transforms have added to it."""
    height, width = sample.get("content_size", sample["image"].shape[-2:])
    return sample["image"][:, :height, :width]


def view_of(sample: dict[str, Any], image: Tensor, size: tuple[int, int]) -> dict[str, Any]:
    """An input of its own: `image` (3, h, w) out of a sample's, and the size (height, width) of the output wanted."""
    rest = {key: value for key, value in sample.items() if key != "content_size"}
    return {**rest, "image": image, "height": size[0], "width": size[1]}


def scores_of(output: dict[str, Any], size: tuple[int, int], who: str) -> Tensor:
    """The class scores (K, *size) float32 of one output.

    Raises:
        RecipeError: the model gives something else, which `who` cannot join.
    """
    scores = output.get("sem_seg")
    if list(output) != ["sem_seg"] or not isinstance(scores, Tensor) or scores.dim() != 3:
        given = f"labels of shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else ", ".join(output)
        raise RecipeError(
            f"evaluate.inference: {who} joins scores of classes, `sem_seg` (K, H, W) and nothing else, but this model "
            f"gives {given or 'nothing'}.\n  Remove evaluate.inference, or remove the other heads from the recipe"
        )
    if tuple(scores.shape[-2:]) != size:
        raise RecipeError(
            f"evaluate.inference: {who} requested {size[0]} x {size[1]} pixels (height x width), but the model gave "
            f"{scores.shape[-2]} x {scores.shape[-1]}"
        )
    return scores.float()
