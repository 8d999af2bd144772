"""torch.export of an ExportGraph: for one input size, or for any."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vertebra.errors import ExportError
from vertebra.export.graph import ExportGraph
from vertebra.models import Backbone, Neck

__all__ = ["InputShape", "trace"]


@dataclass(frozen=True)
class InputShape:
    """What the graph takes.

    Args:
        size: (height, width) in pixels; of a graph for any size, the one it is traced with.
        any_size: height and width may differ from call to call.
        batch: images in a call; None: any number.
    """

    size: tuple[int, int]
    any_size: bool = False
    batch: int | None = 1
    channels: int = 3

    def __post_init__(self) -> None:
        if min(self.size) < 1 or (self.batch is not None and self.batch < 1):
            raise ExportError(f"size {self.size} and batch {self.batch}: each must be at least 1")

    @property
    def axes(self) -> list[str | int]:
        """The input's shape, with a name where it may vary."""
        batch = "batch" if self.batch is None else self.batch
        return [batch, self.channels, *(("height", "width") if self.any_size else self.size)]

    def example(self) -> Tensor:
        """An input of this shape. Two images stand for any number: a tracer takes one for the only possible number."""
        return torch.rand(2 if self.batch is None else self.batch, self.channels, *self.size)


def trace(graph: ExportGraph, shape: InputShape) -> torch.export.ExportedProgram:
    """The graph as torch.export's program.

    Raises:
        ExportError: a part of the model cannot be traced, or not for any size.
    """
    dynamic: dict[int, torch.export.Dim] = {}
    if shape.any_size:
        smallest = _coarsest_stride(graph) + 1  # two cells on every level: one would make it a graph for one cell
        if min(shape.size) < smallest:
            raise ExportError(
                f"size is {shape.size[0]}x{shape.size[1]}, but a graph for any size has to be traced with an example "
                f"of at least {smallest}x{smallest} pixels for this model; the graph works for smaller images as well"
            )
        dynamic |= {2: torch.export.Dim("height", min=smallest), 3: torch.export.Dim("width", min=smallest)}
    if shape.batch is None:
        dynamic[0] = torch.export.Dim("batch", min=1)
    try:
        with torch.no_grad():
            return torch.export.export(
                graph, (shape.example(),), dynamic_shapes={"images": dynamic} if dynamic else None, strict=False
            )
    except NotImplementedError as err:  # a head without this form says so itself
        raise ExportError(str(err)) from err
    except Exception as err:  # the tracer raises whatever the model's code and its own rules raise
        reason = "\n    ".join(
            [line.strip() for line in str(err).splitlines() if line.strip()][:4] or ["no reason given"]
        )
        hint = "drop --dynamic, or fix" if dynamic else "fix"
        raise ExportError(
            f"the model cannot be traced for the {graph.form} form: {type(err).__name__}: {reason}\n  To continue, "
            f"{hint} the code that the traceback points to (VERTEBRA_TRACEBACK=1 shows it)"
        ) from err


def _coarsest_stride(graph: ExportGraph) -> int:
    parts = [part for part in graph.model.parts().values() if isinstance(part, (Backbone, Neck))]
    strides = (spec.stride for part in parts for spec in part.output_shape().values())
    return max(graph.model.size_divisibility, *strides, 1)
