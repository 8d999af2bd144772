"""Padding is nothing, losses have a sign, and nobody changes what others still need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vertebra.models import Batch
from vertebra.testing.checks import require, tensors_in

__all__ = ["check_leaves_alone", "check_padding", "check_signs"]

_SEEDS = range(6)


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
    """The tensors in `value` are the same after the block as before, bit by bit, and its dicts hold the same."""
    before = [(place, tensor, tensor.detach().clone()) for place, tensor in tensors_in(value)]
    dicts = [(one, dict(one)) for one in _dicts_in(value)]
    yield
    changed = [place for place, tensor, kept in before if not _equal(tensor, kept)]
    require(
        not changed,
        f"{who} changes {what} in place ({', '.join(changed[:3])}): other parts, such as a second head, a loss or the "
        "backward pass, get the changed values. Look for relu_, mul_, div_, +=, inplace=True or an assignment to a "
        "slice; work on a new tensor",
    )
    for one, kept in dicts:
        other = [str(key) for key in (*kept, *one) if key not in one or key not in kept or one[key] is not kept[key]]
        require(
            not other,
            f"{who} assigns into a dict of {what} ({', '.join(dict.fromkeys(other))}): other parts, such as a second "
            "head, get the changed dict. Make a new one",
        )


def _dicts_in(value: Any) -> Iterator[dict[Any, Any]]:
    """Every dict in nested dicts, lists and tuples."""
    if isinstance(value, dict):
        yield value
    if isinstance(value, (dict, list, tuple)):
        for child in value.values() if isinstance(value, dict) else value:
            yield from _dicts_in(child)


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
