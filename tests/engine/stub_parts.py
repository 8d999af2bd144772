"""A training small enough for tests: a few convolutions with dropout and batch norm, batches made from their number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from vertebra.engine.optimizers import SGD
from vertebra.engine.parts import Parts, Plan
from vertebra.engine.schedules import WarmupMultiStep


class StubModel(nn.Module):
    """Maps list[dict] to losses in training, as a real model does; tells bright images from dark ones."""

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.dropout = nn.Dropout(dropout)
        self.score = nn.Linear(8, 1)

    def forward(self, inputs: list[dict]) -> dict[str, Tensor]:
        images = torch.stack([record["image"] for record in inputs]).float() / 255  # (N, 3, H, W)
        x = self.dropout(self.norm(self.conv(images)).relu().mean(dim=(2, 3)))  # (N, 8)
        logits = self.score(x)[:, 0]
        targets = torch.tensor([record["bright"] for record in inputs], device=logits.device)
        error = (logits.float() - targets).square().mean()
        return {"stub/error": error, "stub/size": 1e-3 * logits.float().square().mean()}


def stub_batches(start: int, batch_size: int = 4, rank: int = 0, world_size: int = 1) -> Iterator[list[dict]]:
    """Batch number `start` and all that follow; each is a pure function of its number."""
    number = start
    while True:
        generator = torch.Generator().manual_seed(number)
        images = torch.randint(0, 256, (batch_size, 3, 8, 8), generator=generator, dtype=torch.uint8)
        records = [{"image": image, "bright": float(image.float().mean() > 127)} for image in images]
        yield records[rank::world_size]
        number += 1


def stub_parts(steps: int = 12, *, dropout: float = 0.1, evaluate: bool = True, **plan: object) -> Parts:
    """Parts with a freshly seeded model; `plan` replaces fields of the Plan."""
    torch.manual_seed(0)
    model = StubModel(dropout).to(memory_format=torch.channels_last)
    settings = {"steps": steps, "batch_size": 4, "checkpoint_every": 5, "evaluate_every": 5, "log_every": 3} | plan
    return Parts(
        model=model,
        optimizer=SGD(lr=0.05).build(model),
        batches=stub_batches,
        plan=Plan(**settings),
        schedule=WarmupMultiStep(warmup_steps=3),
        evaluate=stub_evaluation if evaluate else None,
        recipe_text="model: {stub: true}\n",
    )


@torch.no_grad()
def stub_evaluation(model: nn.Module, folder: Path | None, last: bool) -> dict[str, float]:
    """Draws from the global generator on purpose: a training must not notice."""
    torch.rand(7)
    model.eval()
    return {"stub/weight": float(model.conv.weight.abs().sum())}
