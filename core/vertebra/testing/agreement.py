"""Whether `losses`, `forward` and `predict` of one part mean the same: what is learned is what is predicted, padding is
nothing, and nobody changes what others still need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vertebra.models import Batch
from vertebra.testing.checks import check_losses, require, tensors_in
from vertebra.testing.found import likely_cause, shares_found

__all__ = ["check_leaves_alone", "check_padding", "check_predicts_what_it_learns", "check_signs"]

_EVERY = 15  # steps between two looks at the predictions
_ENOUGH = 0.9
_SEEDS = range(6)


def check_predicts_what_it_learns(
    part: Any, raw: Any, batch: Batch, inputs: list[dict[str, Any]], *, steps: int, lr: float
) -> None:
    """Moves the raw outputs themselves down the gradient of the losses, without a network before them, until `predict`
    finds the ground truth in them. What it finds then is what the losses ask for.

    Args:
        part: a head or model.
        raw: its raw outputs of the batch, with gradients; those that have none stay as they are.
        inputs: what the batch was made of, with `instances` and `sem_seg` where the part learns from them.
        steps, lr: at most this many steps of Adam at this rate; the part's own parameters move by a hundredth of it.
    """
    free: list[Tensor] = []

    def freed(tensor: Tensor) -> Tensor:
        if not tensor.requires_grad:
            return tensor
        free.append(tensor.detach().clone().requires_grad_())
        return free[-1]

    raw = _changed(raw, freed)
    require(bool(free), f"the raw outputs of {type(part).__name__} have no gradient in training")
    own = [parameter for parameter in part.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam([{"params": free, "lr": lr}, {"params": own, "lr": lr / 100}])
    first = last = 0.0
    outputs: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        total = check_losses(part.train().losses(raw, batch), "fitted raw outputs")
        last = float(total.detach())
        first = last if step == 1 else first
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        if step % _EVERY == 0 or step == steps:
            with torch.no_grad():
                outputs = part.eval().predict(_changed(raw, Tensor.detach), batch)
            shares = shares_found(outputs, inputs)  # empty where nothing can be compared
            if all(share >= _ENOUGH for share in shares.values()):
                return
    found = ", ".join(f"{what} {share:.0%}" for what, share in shares_found(outputs, inputs).items())
    raise AssertionError(
        f"raw outputs that were fitted to the losses for {steps} steps (from {first:.3g} to {last:.3g}) are not "
        f"predicted as the ground truth; found of it: {found}. {likely_cause(outputs, inputs)}"
    )


def check_padding(losses_of: Callable[[Batch], dict[str, Tensor]], batch: Batch) -> None:
    """Rows of padding, appended to the ground truth, change no loss. Where sampling makes the losses random, none
    leaves the range that they have under several seeds."""
    plain, padded = (_under_seeds(losses_of, one) for one in (batch, _with_padding(batch)))
    for name, values in plain.items():
        low, high = min(values), max(values)
        room = 1e-4 * max(abs(low), abs(high), 1e-3) + (high - low)
        moved = sum(padded[name]) / len(padded[name])
        before = sum(values) / len(values)
        require(
            low - room <= moved <= high + room,
            f"5 more rows of padding in gt_boxes and gt_classes change the loss {name} from {before:.6g} to "
            f"{moved:.6g}: rows where batch.gt_valid is False are not objects. Mask them wherever rows are matched, "
            "counted or averaged",
        )


def check_signs(losses: Mapping[str, Tensor], allowed: tuple[str, ...]) -> None:
    """No loss is negative, unless its name (after the last /) is among those allowed."""
    for name, loss in losses.items():
        require(
            float(loss.detach()) >= -1e-6 or name.rpartition("/")[2] in allowed,
            f"loss {name} is {float(loss.detach()):.4g}: losses fall to 0 where all is right. Is its sign reversed, so "
            "that training makes the predictions worse? One that may be negative, such as a log-likelihood, is named "
            "in negative_losses",
        )


@contextmanager
def check_leaves_alone(value: Any, who: str, what: str) -> Iterator[None]:
    """The tensors in `value` are the same after the block as before, bit by bit."""
    before = [(place, tensor, tensor.detach().clone()) for place, tensor in tensors_in(value)]
    yield
    changed = [place for place, tensor, kept in before if not _equal(tensor, kept)]
    require(
        not changed,
        f"{who} changes {what} in place ({', '.join(changed[:3])}): other parts, such as a second head, a loss or the "
        "backward pass, get the changed values. Look for relu_, mul_, +=, inplace=True or an assignment to a slice; "
        "work on a new tensor",
    )


def _equal(first: Tensor, second: Tensor) -> bool:
    return bool(torch.equal(first, second) or torch.equal(first.nan_to_num(), second.nan_to_num()))


def _with_padding(batch: Batch, rows: int = 5) -> Batch:
    """As in a batch whose fullest image has this many objects more."""
    assert batch.gt_boxes is not None and batch.gt_classes is not None and batch.gt_valid is not None
    count = len(batch)
    return replace(
        batch,
        gt_boxes=torch.cat((batch.gt_boxes, batch.gt_boxes.new_zeros(count, rows, 4)), dim=1),
        gt_classes=torch.cat((batch.gt_classes, batch.gt_classes.new_zeros(count, rows)), dim=1),
        gt_valid=torch.cat((batch.gt_valid, batch.gt_valid.new_zeros(count, rows)), dim=1),
    )


def _under_seeds(losses_of: Callable[[Batch], dict[str, Tensor]], batch: Batch) -> dict[str, list[float]]:
    """{loss: its values under several seeds}, or under one alone where a second gives the same."""
    values: dict[str, list[float]] = {}
    for seed in _SEEDS:
        torch.manual_seed(seed)
        for name, loss in losses_of(batch).items():
            values.setdefault(name, []).append(float(loss.detach()))
        if seed == 1 and all(one[0] == one[1] for one in values.values()):
            break
    return values


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Nested dicts, lists and tuples with each tensor replaced."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _changed(child, change) for key, child in value.items()}
    if hasattr(value, "_make"):
        return value._make(_changed(child, change) for child in value)
    if isinstance(value, (list, tuple)):
        return type(value)(_changed(child, change) for child in value)
    return value
