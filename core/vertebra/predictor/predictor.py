"""Predictor: images in, predictions out, in the images' own sizes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vertebra.config import Recipe
from vertebra.config.component import where_written
from vertebra.data import Sample
from vertebra.data.build import build_transforms
from vertebra.data.extra_fields import readers_of, with_declared_images
from vertebra.data.images.readers import as_tensor, beside
from vertebra.data.placement import content_size
from vertebra.data.transforms import Transform
from vertebra.data.transforms.drawn_pixels import ImageDrawn
from vertebra.engine import autocast, choose_device
from vertebra.engine.trained_model import load_trained_model
from vertebra.errors import DataError
from vertebra.models import fuse_conv_bn
from vertebra.models.contracts import check_predictions
from vertebra.models.inference import with_inference
from vertebra.predictor.settings import DetectionFilter, class_numbers, set_thresholds
from vertebra.predictor.sources import Frame, ImageLike, Place, as_array, open_source
from vertebra.predictor.timing import StageTimes
from vertebra.runtime import use_channels_last
from vertebra.structures import Instances

__all__ = ["Prediction", "Predictor"]


@dataclass(frozen=True)
class Prediction:
    """What was found in one image of a stream.

    Args:
        frame: the image, and where it came from.
        outputs: the model's, such as `instances`, on the CPU, in the image's size.
    """

    frame: Frame
    outputs: dict[str, Any] = field(repr=False)


class Predictor:
    """A model with weights, ready for images.

        predictor = Predictor("runs/mine/recipe.yaml", "runs/mine/final.pth")
        instances = predictor("image.jpg")["instances"]
        for prediction in predictor.stream(["images/", "video.mp4"]):
            print(prediction.frame.name, prediction.outputs["instances"])

    Args:
        recipe: a loaded recipe, a file, or `plugin:recipe`.
        weights: a checkpoint or weights file or URL; None: the recipe's `model.weights`.
        device: such as "cuda" or "cpu"; "auto" takes a GPU where there is one.
        transforms: instead of the recipe's `eval_transforms`, such as `[ResizeLetterbox(640)]`. They may resize, and
            pad on the right and below.
        score_threshold, nms_threshold, class_agnostic_nms, max_detections: of the detection heads; None: the recipe's.

    Attributes:
        model: in eval mode, its batch norms folded into the convolutions: for predicting alone.
        metadata: class names among other things; from the checkpoint, otherwise from the recipe's dataset. Without
            either, as with imported weights where the dataset is not at hand, classes have numbers alone.
    """

    def __init__(
        self,
        recipe: Recipe | str | Path,
        weights: str | Path | None = None,
        *,
        device: str = "auto",
        transforms: Sequence[Transform] | None = None,
        score_threshold: float | None = None,
        nms_threshold: float | None = None,
        class_agnostic_nms: bool | None = None,
        max_detections: int | None = None,
    ) -> None:
        trained = load_trained_model(recipe, weights)
        self.recipe, self.metadata, self.model = trained.recipe, trained.metadata, trained.model
        set_thresholds(
            self.model,
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
            class_agnostic_nms=class_agnostic_nms,
            max_detections=max_detections,
        )
        self.device = choose_device(device)
        fuse_conv_bn(self.model.to(self.device))
        self.model.channels_last = use_channels_last(self.recipe.train.channels_last, self.device, training=False)
        self._takes = self.model.extra_inputs
        self._modes = self.recipe.evaluate.inference
        self._predict = with_inference(self.model, self._modes, self.metadata)
        if transforms is None:
            transforms = build_transforms(self.recipe.data.eval_transforms, self.metadata)
        self.transforms = list(transforms)
        data = with_declared_images(self.recipe, self.metadata).data
        self.reader, self.readers = data.image.build(), readers_of(data.fields)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes that `pred_classes` counts from 0; of a semantic model those of its labels."""
        return list(self.metadata.get("thing_classes") or self.metadata.get("stuff_classes") or [])

    def __call__(self, image: ImageLike, **inputs: Any) -> dict[str, Any]:
        """Predictions of one image, in its own size.

        Args:
            image: a file, or RGB values 0 to 255: an array (H, W, 3) uint8 or a tensor (3, H, W) uint8; for a model of
                other images, what its reader (`data.image`) gives. For a model of several images a dict of them by
                name, `{"image": ..., "image_b": ...}`.
            inputs: what the model takes beside images (`needs_inputs` of its parts), such as `text=["cat", "dog"]`.

        Returns:
            The head's outputs, such as `instances` with `pred_boxes`, `scores`, `pred_classes`, on the CPU.
        """
        return self.predict_batch([image], **inputs)[0]

    def predict_batch(
        self, images: Sequence[ImageLike], *, times: StageTimes | None = None, **inputs: Any
    ) -> list[dict[str, Any]]:
        """The same for several images, which go through the model together; all have the same further inputs."""
        outputs = self._outputs(images, times, inputs)
        return [{key: _to_cpu(value) for key, value in output.items()} for output in outputs]

    def stream(
        self,
        source: Place | Iterable[Place],
        *,
        batch_size: int = 1,
        score: float = 0.0,
        classes: Sequence[str | int] | None = None,
        labels_only: bool = False,
        unreadable: list[str] | None = None,
        times: StageTimes | None = None,
        inputs: Mapping[str, Any] | None = None,
    ) -> Iterator[Prediction]:
        """Predictions of one image after the other, as they come; only `batch_size` images are held at a time.

        Args:
            source: files, folders, patterns such as `"data/*.jpg"`, videos, numbers of cameras, arrays; or `-`, which
                reads names of files from standard input, one a line.
            batch_size: images that go through the model together.
            score: detections with a lower one are dropped.
            classes: names or numbers; detections of other classes are dropped.
            labels_only: give `sem_seg` as labels (H, W) rather than scores (K, H, W), which are many times larger.
            unreadable: gets what is wrong with each image that cannot be read, and the stream goes on; None: the first
                one ends it with a DataError.
            times: records how long each stage takes.
            inputs: what the model takes beside images, the same for all. For a model of several images, under the
                name of each other one the file that belongs to an image, seen from its folder: `"{stem}_b{suffix}"`.
        """
        times = times or StageTimes(self.device)
        wanted = DetectionFilter(score, None if classes is None else class_numbers(classes, self.class_names))
        given = dict(inputs or {})
        self.check_inputs(given, of_stream=True)
        partners = {name: str(given.pop(name)) for name in self.readers}
        frames = iter(open_source(source, unreadable, self.reader))
        while batch := _next_batch(frames, batch_size, times):
            if partners:
                with times.stage("read"):
                    batch, images = self._with_partners(batch, partners, unreadable)
                if not batch:
                    continue
            else:
                images = [frame.image for frame in batch]
            outputs = self._outputs(images, times, given)
            with times.stage("postprocess"):
                found = [
                    {key: _finished(value, wanted, labels_only and _is_sem_seg(key)) for key, value in one.items()}
                    for one in outputs
                ]
            times.images += len(batch)
            for frame, output in zip(batch, found, strict=True):
                yield Prediction(frame, output)

    def _with_partners(
        self, frames: Sequence[Frame], partners: Mapping[str, str], unreadable: list[str] | None
    ) -> tuple[list[Frame], list[Any]]:
        """The frames whose further images can be read, and the images of each by name."""
        kept, images = [], []
        for frame in frames:
            try:
                named: dict[str, Any] = {"image": frame.image}
                for name, pattern in partners.items():
                    file = beside(Path(frame.name), pattern)
                    if frame.number is not None or not Path(frame.name).is_file():
                        raise DataError(f"{frame.name} is not an image file, so no {name} ({pattern}) lies beside it")
                    if not file.is_file():
                        raise DataError(f"{frame.name}: its {name} is missing: {file}")
                    named[name] = as_array(file, self.readers[name])
            except DataError as err:
                if unreadable is None:
                    raise
                unreadable.append(str(err))
                continue
            kept.append(frame)
            images.append(named)
        return kept, images

    def check_inputs(self, inputs: Mapping[str, Any], *, of_stream: bool = False) -> None:
        """What the model takes beside images is given, and nothing else.

        Args:
            of_stream: further images are given too, as patterns of file names.

        Raises:
            DataError: one is missing or not known; names those that there are.
        """
        takes = {**self._takes, **(dict.fromkeys(self.readers, True) if of_stream else {})}
        if absent := [name for name in self.readers if of_stream and not inputs.get(name)]:
            raise DataError(
                f"the model takes several images (image, {', '.join(self.readers)}), but was not given "
                f"{', '.join(absent)}.\n  Say where it lies, seen from the image: --input '{absent[0]}="
                f'{{stem}}_{absent[0]}{{suffix}}\', or in Python: predictor({{"image": ..., "{absent[0]}": ...}})'
            )
        unknown = [name for name in inputs if name not in takes]
        missing = [name for name, required in takes.items() if required and inputs.get(name) is None]
        if unknown or missing:
            has = ", ".join(f"{name}{'' if required else ' (may be left away)'}" for name, required in takes.items())
            fault = f"does not take {', '.join(unknown)}" if unknown else f"was not given {', '.join(missing)}"
            call = "".join(f", {name}=..." for name in takes)
            raise DataError(
                f"the model {fault}. Beside images it takes: {has or 'nothing'}"
                + (f".\n  Give it: predictor(image{call}), or vertebra predict --input NAME=VALUE" if takes else "")
            )

    def _outputs(
        self, images: Sequence[ImageLike], times: StageTimes | None, given: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """What the model gives for each image, on its device."""
        times = times or StageTimes()
        self.check_inputs(given)
        with torch.inference_mode(), autocast(self.device, self.recipe.evaluate.amp):
            with times.stage("preprocess"):
                inputs = [{**given, **self._input(image)} for image in images]
            if self._modes is not None:  # a mode asks the model as it likes, so its work cannot be told apart
                with times.stage("model"):
                    return self._predict(inputs)
            with times.stage("preprocess"):
                batch = self.model.make_batch(inputs)
            with times.stage("model"):
                raw = self.model.compute(batch)
            with times.stage("postprocess"):
                owner = where_written(self.model, f"model {type(self.model).__name__}")
                return check_predictions(self.model.predict(raw, batch), len(batch), owner)

    def _input(self, image: ImageLike | Mapping[str, ImageLike]) -> dict[str, Any]:
        """An image, or several by name, through the transforms, as the model takes it."""
        named = dict(image) if isinstance(image, Mapping) else {"image": image}
        if named.keys() != {"image", *self.readers}:
            raise DataError(
                f"the model takes {', '.join(['image', *self.readers])}, but was given {', '.join(map(str, named))}.\n"
                '  Several images are a dict: predictor({"image": ..., ...})'
            )
        pixels = as_array(named["image"], self.reader)
        height, width = pixels.shape[:2]
        sample = Sample(as_tensor(pixels), highest=self.reader.highest)
        for name, reader in self.readers.items():
            other = as_array(named[name], reader)
            if other.shape[:2] != (height, width):
                raise DataError(f"{name} has {other.shape[:2]} pixels (height, width), but image has {(height, width)}")
            sample.fields[name] = ImageDrawn(as_tensor(other), highest=reader.highest)
        rng = np.random.default_rng(self.recipe.seed)
        for transform in self.transforms:
            sample = transform(sample, rng)
        result = {"image": sample.image, "height": height, "width": width}
        result |= {name: sample.image_of(name)[0] for name in self.readers}
        content = content_size(sample, height, width)
        if content != sample.size and self._modes is not None:  # windows and scales are cut out of the image alone
            result["image"] = sample.image[:, : content[0], : content[1]]
        elif content != sample.size:
            result["content_size"] = content
        return result


def _next_batch(frames: Iterator[Frame], size: int, times: StageTimes) -> list[Frame]:
    with times.stage("read"):
        return list(islice(frames, size))


def _is_sem_seg(key: str) -> bool:
    return key.rpartition("/")[2] == "sem_seg"


def _finished(value: Any, wanted: DetectionFilter, labels_only: bool) -> Any:
    """One output on the CPU, as it was requested: of scores (K, H, W) perhaps the labels only."""
    if isinstance(value, Instances) and value.has("pred_classes"):
        return wanted(value.to("cpu"))
    if labels_only and isinstance(value, torch.Tensor) and value.dim() == 3 and value.is_floating_point():
        value = value.argmax(dim=0)
    return _to_cpu(value)


def _to_cpu(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_to_cpu(part) for part in value)
    return value.to("cpu") if hasattr(value, "to") else value
