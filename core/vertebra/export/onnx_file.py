"""export_onnx: a model as an ONNX file, compared with the model in ONNX Runtime before it is called done."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from vertebra import __version__
from vertebra.errors import ExportError
from vertebra.export.compare import Comparison, compare, pictures
from vertebra.export.graph import ExportGraph, Form, PixelRange
from vertebra.export.meaning import describe_outputs
from vertebra.export.nms_translation import onnx_translations
from vertebra.export.onnx_runtime import OnnxModel, need_onnx
from vertebra.export.trace import InputShape, trace
from vertebra.models import BaseModel
from vertebra.runtime.folders import check_can_be_written

if TYPE_CHECKING:
    from vertebra.config import Recipe
    from vertebra.models.pixels import Pixels

__all__ = ["ExportReport", "export_onnx"]

DEFAULT_OPSET = 18


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how near it comes to the model.

    Args:
        inputs, outputs: {name: shape}; an axis that may vary has a name.
        comparisons: one for each output and input tried.
    """

    path: Path
    form: Form
    inputs: dict[str, list[str | int]]
    outputs: dict[str, list[str | int]]
    comparisons: list[Comparison]

    def __str__(self) -> str:
        described = [
            *(f"  input   {name} {_shape_text(axes)}" for name, axes in self.inputs.items()),
            *(f"  output  {name} {_shape_text(axes)}" for name, axes in self.outputs.items()),
            *(f"  ONNX Runtime agrees: {comparison}" for comparison in self.comparisons),
        ]
        size = self.path.stat().st_size / 2**20
        return "\n".join([f"{self.path}: {self.form} form, {size:.1f} MiB", *described])


def export_onnx(
    model: BaseModel | Recipe | str | Path,
    output: str | Path,
    *,
    weights: str | Path | None = None,
    form: Form = "end-to-end",
    size: tuple[int, int] = (640, 640),
    dynamic: bool = False,
    batch: int | Literal["dynamic"] = 1,
    pixel_range: PixelRange = 1,
    opset: int = DEFAULT_OPSET,
    class_names: Sequence[str] | None = None,
    check_images: Sequence[str | Path] = (),
    force: bool = False,
) -> ExportReport:
    """Writes an ONNX file and compares it with the model in ONNX Runtime.

    The graph's one input is `images` (N, 3, H, W) float32 RGB; normalization and padding are inside. Its outputs are
    in this input's pixels. The metadata of the file contains class names, the recipe, and what inputs and outputs mean.

    Args:
        model: a model; or a recipe (loaded, a file, `plugin:recipe`), with its weights.
        output: the .onnx file to write.
        weights: of a recipe; None: its `model.weights`.
        form: `end-to-end` gives finished detections or labels, `raw` what the heads compute before that.
        size: (height, width) of the input in pixels; of a dynamic graph the size it is traced with.
        dynamic: the graph takes any height and width.
        batch: images in a call, or `dynamic`.
        pixel_range: 1: the input's values run from 0 to 1; 255: to 255.
        opset: version of ONNX's operators.
        class_names: for the metadata; None: the recipe's.
        check_images: picture files to compare on as well, stretched to `size`.
        force: replace the file where it exists.
    Raises:
        SetupError: onnx, onnxscript or onnxruntime are missing.
        ExportError: the file exists; the model cannot be traced or converted; or the file and the model disagree, and
            then nothing is written.
    """
    need_onnx()
    output = Path(output)
    _check_output(output, force)
    facts: dict[str, Any] = {}
    if not isinstance(model, BaseModel):
        model, facts = _load(model, weights)
    elif weights is not None:
        raise ExportError("weights can be given with a recipe only; a model already has its own")
    if class_names is not None:
        facts["class_names"] = list(class_names)
    shape = InputShape(
        (int(size[0]), int(size[1])),
        dynamic,
        None if batch == "dynamic" else int(batch),
        model.pixels["image"].channels,
    )
    photographs = list(_from_files(check_images, shape, pixel_range))  # a missing one is reported at once
    graph = ExportGraph(model, form, pixel_range)
    with _quiet():
        program = trace(graph, shape)
        with torch.no_grad():
            names = list(graph(shape.example()))
        proto = _converted(program, names, opset, form)
    _name_axes(proto, shape)
    _describe(proto, graph, model, {**facts, "form": form, "pixel_range": pixel_range})
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=output.parent) as folder:
        written = Path(folder) / output.name
        _save(proto, written)
        comparisons = _compared(model, form, pixel_range, written, shape, photographs)
        os.replace(written, output)
    return ExportReport(output, form, _shapes(proto.graph.input), _shapes(proto.graph.output), comparisons)


def _check_output(output: Path, force: bool) -> None:
    if output.suffix.lower() != ".onnx":
        raise ExportError(f"{output}: the file's name must end in .onnx")
    if output.is_dir() or (output.exists() and not force):
        raise ExportError(f"{output}: already exists; choose another file, or replace it with --force (force=True)")
    check_can_be_written(output.parent)


def _load(recipe: Any, weights: Any) -> tuple[BaseModel, dict[str, Any]]:
    from vertebra.engine.trained_model import load_trained_model

    trained = load_trained_model(recipe, weights)
    names = {key: list(trained.metadata.get(key) or ()) for key in ("thing_classes", "stuff_classes")}
    facts = {key: value for key, value in names.items() if value}
    facts["class_names"] = names["thing_classes"] or names["stuff_classes"]
    return trained.model, {**facts, "recipe": trained.recipe.to_yaml()}


def _converted(program: torch.export.ExportedProgram, names: list[str], opset: int, form: Form) -> Any:
    """torch.export's program as an onnx.ModelProto."""
    try:
        converted = torch.onnx.export(
            program,
            input_names=["images"],
            output_names=names,
            opset_version=opset,
            dynamo=True,
            custom_translation_table=onnx_translations(),
            verbose=False,
        )
        assert converted is not None  # with dynamo=True it is always a program
        return converted.model_proto
    except Exception as err:  # the converter raises whatever its many functions raise
        causes = [line.strip() for line in str(err).splitlines() if line.strip().startswith("<class")]
        reason = (causes or [line for line in str(err).splitlines() if line.strip()] or ["no reason given"])[-1]
        raise ExportError(
            f"the model's {form} form cannot be converted to ONNX operators of version {opset}: {reason}\n"
            "  VERTEBRA_TRACEBACK=1 shows which operation; another --opset or --form may have it"
        ) from err


def _name_axes(proto: Any, shape: InputShape) -> None:
    """The tracer's symbols (`s14`) get the names of the input's axes, everywhere: `height`, `4*((height + 31)//32)`."""
    axes = proto.graph.input[0].type.tensor_type.shape.dim
    names = {dim.dim_param: axis for dim, axis in zip(axes, shape.axes, strict=True) if isinstance(axis, str)}
    if not names:
        return
    symbol = re.compile(r"\b(" + "|".join(map(re.escape, names)) + r")\b")
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = symbol.sub(lambda found: names[found[0]], dim.dim_param)


def _describe(proto: Any, graph: ExportGraph, model: BaseModel, facts: dict[str, Any]) -> None:
    """Metadata that a reader of the file needs, as texts: names and recipe as they are, the rest in JSON."""
    proto.producer_name, proto.producer_version = "vertebra", __version__
    texts = {
        "vertebra_version": __version__,
        "form": facts["form"],
        "class_names": json.dumps(facts.get("class_names", [])),
        "input": json.dumps(
            {
                "name": "images",
                "layout": "NCHW",
                **_pixels(model.pixels["image"], facts["pixel_range"]),
                "normalization": "inside the graph",
                "placement": "the image in the upper left corner; the rest of a fixed size may hold any values",
            }
        ),
        "outputs": json.dumps(describe_outputs(model, graph, proto.graph.output)),
        "recipe": facts.get("recipe", ""),
    }
    for key in ("thing_classes", "stuff_classes"):
        if key in facts:
            texts[key] = json.dumps(facts[key])
    del proto.metadata_props[:]
    for key, text in texts.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, text


def _pixels(pixels: Pixels, pixel_range: PixelRange) -> dict[str, Any]:
    """What the graph's input holds."""
    channels: Any = "RGB" if pixels.channels == 3 else pixels.channels
    if pixels.dtype == "uint8":
        return {"channels": channels, "range": [0, pixel_range]}
    return {"channels": channels, "values": f"{pixels.dtype} as read, as float32"}


def _save(proto: Any, path: Path) -> None:
    import onnx

    if proto.ByteSize() >= 2**31:  # protobuf's limit
        raise ExportError(f"the model has {proto.ByteSize() / 2**30:.1f} GiB; an ONNX file holds less than 2 GiB")
    onnx.checker.check_model(proto)
    onnx.save(proto, str(path))


def _compared(
    model: BaseModel,
    form: Form,
    pixel_range: PixelRange,
    path: Path,
    shape: InputShape,
    photographs: list[torch.Tensor],
) -> list[Comparison]:
    """Against the model as it is, its batch norms not folded."""
    reference = ExportGraph(model, form, pixel_range, fused=False)
    pixels = reference.model.pixels["image"]
    highest = pixel_range if pixels.dtype == "uint8" else max(map(add, pixels.mean, pixels.std))
    inputs = [*pictures(shape, highest), *photographs]
    comparisons = compare(reference, OnnxModel(path), iter(inputs))
    if any(not comparison.agrees for comparison in comparisons):
        told = "\n  ".join(map(str, comparisons))
        raise ExportError(
            f"ONNX Runtime's outputs differ from the model's, so nothing was written:\n  {told}\n"
            "  Does a head's forward or export function depend on values in Python (if, int(), a loop over them)?"
        )
    return comparisons


def _from_files(files: Sequence[str | Path], shape: InputShape, pixel_range: int) -> Iterator[torch.Tensor]:
    from vertebra.data import read_image

    if files and shape.channels != 3:
        raise ExportError(f"check_images are RGB files, but the model takes {shape.channels} channels; drop them")
    for file in files:
        image = torch.from_numpy(read_image(file)).permute(2, 0, 1)[None].float() / 255 * pixel_range
        image = torch.nn.functional.interpolate(image, size=shape.size, mode="bilinear", antialias=True)
        yield image.expand(shape.batch or 1, -1, -1, -1).contiguous()


def _shapes(values: Any) -> dict[str, list[str | int]]:
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values
    }


def _shape_text(axes: list[str | int]) -> str:
    return f"({', '.join(map(str, axes))})"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's chatter, which is about its own insides."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
