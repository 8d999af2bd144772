"""Checks that a recipe's model can overfit eight generated images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from vertebra.config import ComponentSpec, Recipe
from vertebra.data import Dataset
from vertebra.data.build import build_mapper, load_dataset
from vertebra.engine.blame import owns_step
from vertebra.evaluation import COCOEvaluator
from vertebra.models import BaseModel, build_model
from vertebra.testing.causes import likely_cause
from vertebra.testing.checks import check_losses, checked_spec, require
from vertebra.testing.found import mean_iou
from vertebra.testing.minimized import DescendingStep

__all__ = ["check_overfits"]

_EVERY = 25  # steps between two looks at the predictions
_WARMUP = 10  # steps
_CLIP = 10.0  # L2 norm of the gradients
_FAR = 10  # a loss below this part of its first value has fallen far
Optimizers = dict[str, torch.optim.Optimizer]


def check_overfits(
    recipe: Recipe,
    *,
    semantic: bool,
    size: tuple[int, int],
    steps: int,
    lr: float,
    generated: bool = True,
) -> None:
    """Trains on 8 images of `shapes` until the loss is below a third of its first value, and AP50 (of boxes, and of
    masks and keypoints where there are some) and mean IoU (where there is `sem_seg`) are above 0.9.

    Args:
        recipe: its model is trained; its optimizer is not used.
        semantic: the dataset has semantic labels.
        size: (height, width) of the images in pixels.
        steps: at most; it ends as soon as all is reached.
        lr: of AdamW, constant after a short warm-up. A model with a training step of its own takes that step, with one
            AdamW for each of `train.optimizers`; its losses need not fall, for some work against each other.
        generated: on images of `shapes`; otherwise on the first 8 of the recipe's own training images.
    """
    if generated:
        own = replace(recipe.data, train=_shapes(semantic, size), root=None, train_transforms=[], eval_transforms=[])
    else:
        own = replace(recipe.data, train_transforms=recipe.data.eval_transforms)
    recipe = replace(recipe, data=own)
    require(own.train is not None, "the recipe has no data.train")
    whole = load_dataset(own.train or [], own.root, own.fields, own.image)
    dataset = Dataset(whole.dicts[:8], whole.metadata, checked=True)
    mapper = build_mapper(recipe, dataset, training=True)
    inputs = [mapper(record, index=i) for i, record in enumerate(dataset.dicts)]
    torch.manual_seed(recipe.seed)
    model = build_model(recipe, metadata=dataset.metadata, pretrained=False)
    descend = _by_its_steps if owns_step(model) else _by_its_losses
    optimizers = _optimizers(recipe, model)
    first = now = 0.0
    facts: dict[str, float | None] = {}
    for step in range(1, steps + 1):
        for group in (group for optimizer in optimizers.values() for group in optimizer.param_groups):
            group["lr"] = lr * min(1.0, step / _WARMUP)
        now = descend(model.train(), inputs, optimizers, step - 1, steps)
        first = now if step == 1 else first
        if step % _EVERY == 0 or step == steps:
            facts = _measure(model, inputs, dataset)
            fallen = owns_step(model) or now < first / 3
            if fallen and all(value is not None and value > 0.9 for value in facts.values()):
                return
    require(bool(facts), "the model's predictions have neither instances nor sem_seg, so there is nothing to measure")
    found = ", ".join(f"{name} {'undefined' if value is None else f'{value:.3f}'}" for name, value in facts.items())
    raise AssertionError(
        f"after {steps} steps on 8 images the loss went from {first:.3g} to {now:.3g} and {found}; expected "
        f"a loss below a third and more than 0.9. {_advice(model, inputs, first, now, facts)}"
    )


@torch.no_grad()
def _advice(
    model: BaseModel, inputs: list[dict[str, Any]], first: float, now: float, facts: dict[str, float | None]
) -> str:
    """More steps help where the loss has far to go; where it has fallen and nothing is found, something is wrong."""
    least = min(value or 0.0 for value in facts.values())
    if now < 0 and not owns_step(model):
        return "The loss is negative: is its sign reversed?"
    if now < first / 3 and least < 0.5:
        cause = likely_cause(model.eval()(inputs), inputs)
        return f"The loss falls, but the predictions do not follow, so more steps will not help. {cause}"
    slow = "Raise overfit_steps or overfit_lr if it only learns slowly"
    if now < first / _FAR and least <= 0.9:
        cause = likely_cause(model.eval()(inputs), inputs)
        return f"{slow}. The loss has fallen far; where more steps do not help: {cause}"
    return slow


def _optimizers(recipe: Recipe, model: BaseModel) -> Optimizers:
    """An AdamW for each of `train.optimizers`, otherwise one for all parameters."""
    modules = {name: section.modules or [name] for name, section in (recipe.train.optimizers or {}).items()}
    found: Optimizers = {}
    for name, paths in (modules or {"optimizer": [""]}).items():
        inside = [one for path in paths for one in model.get_submodule(path).parameters() if one.requires_grad]
        found[name] = torch.optim.AdamW(list(dict.fromkeys(inside)), lr=0.0, weight_decay=0.0)
    return found


def _by_its_losses(
    model: BaseModel, inputs: list[dict[str, Any]], optimizers: Optimizers, number: int, steps: int
) -> float:
    total = check_losses(model(inputs), f"overfitting, step {number + 1}")
    for optimizer in optimizers.values():
        optimizer.zero_grad()
    total.backward()
    for optimizer in optimizers.values():
        torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], _CLIP)
        optimizer.step()
    return float(total.detach())


def _by_its_steps(
    model: BaseModel, inputs: list[dict[str, Any]], optimizers: Optimizers, number: int, steps: int
) -> float:
    step = DescendingStep(number, steps, optimizers, _CLIP)
    check_losses(model(inputs, step), f"overfitting, step {number + 1}", gradient=False)
    require(step.loss is not None, "training_step has not called step.minimize(name, loss), so nothing is learned")
    return sum(float(one.detach()) for one in step.losses.values())


def _shapes(semantic: bool, size: tuple[int, int]) -> ComponentSpec:
    """A dataset of 8 generated images."""
    images: dict[str, Any] = {"images": 8, "val_images": 1, "split": "train", "size": list(size)}
    images |= {"crowds": 0.0, "empty": 0.0, "object_size": [0.3, 0.6], "max_objects": 3}
    images["labels"] = ["keypoints", *(["semantic"] if semantic else [])]  # the images stay the same
    return checked_spec("format", "shapes", images)


@torch.no_grad()
def _measure(model: BaseModel, inputs: list[dict[str, Any]], dataset: Dataset) -> dict[str, float | None]:
    outputs = model.eval()(inputs)
    facts: dict[str, float | None] = {}
    if "instances" in outputs[0]:
        evaluator = COCOEvaluator(dataset)
        evaluator.process(inputs, outputs)
        metrics = evaluator.evaluate()
        facts |= {key: value for key, value in metrics.items() if key in ("bbox/AP50", "segm/AP50", "keypoints/AP50")}
    if "sem_seg" in outputs[0] and all("sem_seg" in one for one in inputs):
        scores = [output["sem_seg"] for output in outputs]
        labels = [one["sem_seg"] for one in inputs]
        facts["mIoU"] = mean_iou([score.argmax(dim=0) for score in scores], labels, scores[0].shape[0])
    return facts
