"""Dummy components of every kind that a recipe names, and a writer of recipe files."""

import sys
import textwrap
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Protocol

import pytest
from pydantic import Field

from vertebra import plugins
from vertebra.registry import REGISTRIES


class DummyLoss:
    component_kind = "loss"

    def __init__(self, weight: float = 1.0) -> None:
        if weight < 0:
            raise ValueError(f"weight is {weight}, expected at least 0")
        self.weight = weight


class SumLoss(DummyLoss):
    def __init__(self, parts: list[DummyLoss], named: Optional[dict[str, DummyLoss]] = None) -> None:  # noqa: UP045
        self.parts, self.named = parts, named


class DummyPart:
    component_kind = "part"

    def __init__(self, sizes: list[list[float]], num_classes: int = 0) -> None:
        self.sizes, self.num_classes = sizes, num_classes


class OtherPart:
    component_kind = "part"


class Coder(Protocol):
    component_kind = "part"


class Color(Enum):
    RED = "red"


class Opaque:
    """A type that no recipe can hold."""


class DummyBackbone:
    component_kind = "backbone"

    def __init__(
        self,
        depth: Literal[18, 50] = 18,
        out_features: tuple[str, ...] = ("res3",),
        norm: str | None = "bn",
        scale: tuple[float, float] = (1.0, 1.0),
        width: Annotated[int, Field(ge=8)] = 64,
        checkpoint: Path | None = None,
        color: Color = Color.RED,
        opaque: Opaque | None = None,
        table: dict[str, int] | None = None,
        anything: Any = None,
        size: int | list[int] = 1,
    ) -> None:
        self.arguments = {key: value for key, value in locals().items() if key != "self"}


class OpenBackbone:
    component_kind = "backbone"

    def __init__(self, model: str, **options: Any) -> None:
        self.model, self.options = model, options


class DummyNeck:
    component_kind = "neck"

    def __init__(self, input_shape: dict, out_channels: int = 256, top: DummyPart | None = None) -> None:
        self.input_shape, self.out_channels, self.top = input_shape, out_channels, top


class DummyHead:
    component_kind = "head"

    def __init__(
        self,
        input_shape: dict,
        num_classes: int,
        *,
        cls_loss: DummyLoss,
        box_loss: DummyLoss | None = None,
        anchors: DummyPart | None = None,
        coder: Coder | None = None,
        num_convs: int = 4,
    ) -> None:
        self.input_shape, self.num_classes = input_shape, num_classes
        self.cls_loss, self.box_loss, self.anchors, self.num_convs = cls_loss, box_loss, anchors, num_convs


class BrokenHead:
    component_kind = "head"

    def __init__(self, input_shape: "NotImportedAtRunTime") -> None: ...  # noqa: F821


class DummyFormat:
    component_kind = "format"

    def __init__(self, annotations: str, images: str, name: str | None = None) -> None:
        self.annotations, self.images, self.name = annotations, images, name


class DummyFlip:
    component_kind = "transform"

    def __init__(self, prob: float = 0.5) -> None:
        self.prob = prob


class DummyOptimizer:
    component_kind = "optimizer"

    def __init__(self, lr: float = 0.1) -> None:
        self.lr = lr


class DummySchedule:
    component_kind = "schedule"


class DummyEvaluator:
    component_kind = "evaluator"

    def __init__(self, dataset: Any, output_dir: str | None = None, tasks: list[Literal["bbox", "segm"]] | None = None):
        self.dataset = dataset


DUMMIES = [
    DummyLoss, SumLoss, DummyPart, OtherPart, DummyBackbone, OpenBackbone, DummyNeck, DummyHead, BrokenHead,
    DummyFormat, DummyFlip, DummyOptimizer, DummySchedule, DummyEvaluator,
]  # fmt: skip

BASE = """
model:
  backbone: {name: DummyBackbone, depth: 50}
  neck: DummyNeck
  heads:
    boxes:
      name: DummyHead
      cls_loss: {name: DummyLoss, weight: 2}
data:
  train: {format: DummyFormat, annotations: a.json, images: img}
  train_transforms: [DummyFlip]
  eval_transforms: []
train:
  steps: 10
  optimizer: DummyOptimizer
  schedule: DummySchedule
evaluate:
  evaluators: [DummyEvaluator]
"""


@pytest.fixture(autouse=True)
def dummies(monkeypatch):
    """Registers the dummies for one test, with no plugin switched."""
    for variable in ("VERTEBRA_PLUGINS_DISABLE", "VERTEBRA_PLUGINS_ALLOW", "VERTEBRA_LOCAL_PLUGINS"):
        monkeypatch.delenv(variable, raising=False)
    kept = {kind: dict(registry._obj_map) for kind, registry in REGISTRIES.items()}
    modules = set(sys.modules)
    for cls in DUMMIES:
        REGISTRIES[cls.component_kind].register(cls)
    yield
    for kind, registry in REGISTRIES.items():
        registry._obj_map = kept[kind]
    for name in set(sys.modules) - modules:
        if name.startswith("vertebra.plugins.local_files."):
            del sys.modules[name]
    plugins.rescan()


@pytest.fixture
def write(tmp_path, monkeypatch):
    """write("name.yaml", text) in an empty current directory, beside `base.yaml`; gives the name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text(BASE)

    def make(name: str, text: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return name

    return make
