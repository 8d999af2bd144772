"""Predictor: images in, detections out, for notebooks and for `vertebra predict`."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vertebra.config import Recipe, load_recipe
from vertebra.data import Metadata, Sample, load_split, read_image
from vertebra.engine import autocast, choose_device
from vertebra.engine.plugin_files import warn_of_changes
from vertebra.errors import CheckpointError, DataError, VertebraError
from vertebra.models import build_model, fuse_conv_bn, load_weights, read_checkpoint, read_weights
from vertebra.models.inference import with_inference
from vertebra.structures import BoxMode, Instances, encode_masks
from vertebra.visualize import draw_instances, save_png

__all__ = ["Predictor", "WrittenPredictions", "predict_files"]

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


class Predictor:
    """A model with weights, ready for single images.

        predictor = Predictor("runs/mine/recipe.yaml", "runs/mine/final.pth")
        instances = predictor("image.jpg")["instances"]

    Args:
        recipe: a loaded recipe, a file, or `plugin:recipe`.
        weights: a checkpoint or weights file or URL; None: the recipe's `model.weights`.
        device: such as "cuda" or "cpu"; "auto" takes a GPU where there is one.

    Attributes:
        model: in eval mode, its batch norms folded into the convolutions: for predicting alone.
        metadata: class names among other things; from the checkpoint, otherwise from the recipe's dataset. Without
            either, as with imported weights where the dataset is not at hand, classes have numbers alone.
    """

    def __init__(self, recipe: Recipe | str | Path, weights: str | Path | None = None, *, device: str = "auto") -> None:
        self.recipe = recipe if isinstance(recipe, Recipe) else load_recipe(str(recipe))
        source = str(weights) if weights is not None else self.recipe.model.weights
        if source is None:
            raise CheckpointError(
                f"{self.recipe.source}: a predictor needs weights, but none were given and model.weights is empty.\n"
                "  Mend it: Predictor(recipe, 'runs/NAME/final.pth'), or --weights on the command line"
            )
        state = read_weights(source)
        warn_of_changes(self.recipe, source)
        remembered = _remembered(source)
        metadata, unknown = _metadata(remembered.get("classes"), self.recipe)
        num_classes = remembered.get("num_classes") if metadata is None else None
        self.model = build_model(self.recipe, num_classes, metadata, pretrained=False)
        load_weights(self.model, state, source=source)
        if metadata is None:
            logger.warning("The classes have no names, only numbers: %s", unknown)
        self.metadata = Metadata(self.recipe.name) if metadata is None else metadata
        self.device = choose_device(device)
        fuse_conv_bn(self.model.to(self.device))
        self.model.channels_last = self.recipe.train.channels_last
        self._predict = with_inference(self.model, self.recipe.evaluate.inference)
        self._transforms = [spec.build() for spec in self.recipe.data.eval_transforms]

    @property
    def class_names(self) -> list[str]:
        """Names of the classes that `pred_classes` counts from 0."""
        return list(getattr(self.metadata, "thing_classes", None) or [])

    def __call__(self, image: np.ndarray | torch.Tensor | str | Path) -> dict[str, Any]:
        """Predictions of one image, in its own size.

        Args:
            image: a file, or RGB values 0 to 255: an array (H, W, 3) uint8 or a tensor (3, H, W) uint8.

        Returns:
            The head's outputs, such as `instances` with `pred_boxes`, `scores`, `pred_classes`, on the CPU.
        """
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Sequence[np.ndarray | torch.Tensor | str | Path]) -> list[dict[str, Any]]:
        """The same for several images, which go through the model together."""
        inputs = [self._input(_as_array(image)) for image in images]
        with torch.inference_mode(), autocast(self.device, self.recipe.evaluate.amp):
            outputs = self._predict(inputs)
        return [{key: _to_cpu(value) for key, value in output.items()} for output in outputs]

    def _input(self, image: np.ndarray) -> dict[str, Any]:
        """An RGB array (H, W, 3) through the recipe's evaluation transforms, as the model takes it."""
        sample = Sample(torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1))
        rng = np.random.default_rng(self.recipe.seed)
        for transform in self._transforms:
            sample = transform(sample, rng)
        return {"image": sample.image, "height": image.shape[0], "width": image.shape[1]}


@dataclass(frozen=True)
class WrittenPredictions:
    """What `predict_files` wrote."""

    pictures: list[Path]
    results: Path
    num_images: int
    num_detections: int


def predict_files(
    recipe: Recipe | str,
    images: Iterable[Path | str],
    *,
    weights: str | None,
    output: Path | str,
    score: float = 0.5,
    overrides: Sequence[str] = (),
) -> WrittenPredictions:
    """Detects on files and folders; writes a picture each and `predictions.json` into `output`.

    A picture keeps its name (`cells.jpg` -> `cells.png`; of two equal names the second becomes `cells-2.png`).
    `predictions.json` lists {file_name, category, category_id (from 0), bbox [x, y, w, h] in pixels, score}, and
    `segmentation` (run lengths) and `keypoints` where the model gives them.

    Raises:
        DataError: nothing to read, or `output` holds predictions already; or images that cannot be read, after all
            others have been written.
    """
    files = _find_images(images)
    loaded = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    predictor = Predictor(loaded, weights)
    output = Path(output)
    results = output / "predictions.json"
    if results.exists():
        raise DataError(f"{results}: this folder holds predictions already; name another with --output, or move them")
    output.mkdir(parents=True, exist_ok=True)
    pictures, records, taken, unread = [], [], set(), []
    for path in files:
        try:
            image = read_image(path)
        except DataError as err:  # the other images' detections are not lost for it
            unread.append(str(err))
            continue
        found = predictor(image).get("instances")
        if found is None:
            raise VertebraError("this model predicts no instances; `vertebra predict` draws instances alone so far")
        found = found[found.scores >= score]
        pictures.append(_free_name(output, path.stem, taken))
        save_png(draw_instances(image, found, predictor.class_names), pictures[-1])
        records += _records(str(path), found, predictor.class_names)
    results.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    if unread and len(files) == 1:
        raise DataError(unread[0])
    if unread:
        told = "\n  ".join(unread)
        raise DataError(f"{len(unread)} of {len(files)} images cannot be read; the others are in {results}\n  {told}")
    return WrittenPredictions(pictures, results, len(files), len(records))


def _remembered(source: str) -> dict[str, Any]:
    """What a checkpoint keeps beside weights: `classes` after a training, `num_classes` after an import."""
    if Path(source).suffix.lower() in (".safetensors", ".pkl"):
        return {}
    content = read_checkpoint(source)
    kinds = {"classes": (list, tuple), "num_classes": int}
    return {name: content[name] for name, kind in kinds.items() if isinstance(content.get(name), kind)}


def _records(file_name: str, found: Instances, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Detections of one image as plain records, best first."""
    boxes = BoxMode.convert(found.pred_boxes.tensor.float(), BoxMode.XYXY_ABS, BoxMode.XYWH_ABS).tolist()
    classes, scores = found.pred_classes.tolist(), found.scores.tolist()
    records = [
        {
            "file_name": file_name,
            "category": class_names[label] if label < len(class_names) else str(label),
            "category_id": label,
            "bbox": [round(value, 3) for value in box],
            "score": round(score, 5),
        }
        for box, label, score in zip(boxes, classes, scores, strict=True)
    ]
    if found.has("pred_masks"):
        for record, run_lengths in zip(records, encode_masks(found.pred_masks), strict=True):
            record["segmentation"] = run_lengths
    if found.has("pred_keypoints"):
        for record, points in zip(records, found.pred_keypoints.tolist(), strict=True):
            record["keypoints"] = [value for point in points for value in point]
    return records


def _metadata(classes: Sequence[str] | None, recipe: Recipe) -> tuple[Metadata | None, str]:
    """Class names from the checkpoint, which remembers them; otherwise from the recipe's dataset; or None and why."""
    if classes:
        metadata = Metadata(name=recipe.name)
        metadata.set(thing_classes=list(classes))
        return metadata, ""
    try:
        return load_split(recipe, recipe.evaluate.split).metadata, ""
    except VertebraError as err:  # not needed to predict, where weights or recipe tell the number of classes
        return None, str(err)


def _as_array(image: np.ndarray | torch.Tensor | str | Path) -> np.ndarray:
    """Any accepted image as an RGB array (H, W, 3) uint8."""
    if isinstance(image, (str, Path)):
        return read_image(image)
    if isinstance(image, torch.Tensor):
        image = image.permute(1, 2, 0).cpu().numpy() if image.dim() == 3 and image.shape[0] == 3 else image.numpy()
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        what = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise DataError(
            f"the image is {what}; expected a file, an RGB array (H, W, 3) uint8, or a tensor (3, H, W) uint8"
        )
    return image


def _to_cpu(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_to_cpu(part) for part in value)
    return value.to("cpu") if hasattr(value, "to") else value


def _find_images(places: Iterable[Path | str]) -> list[Path]:
    """Files as they are named; of a folder all image files directly in it, by name."""
    found: list[Path] = []
    for place in map(Path, places):
        if place.is_dir():
            inside = sorted(path for path in place.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
            if not inside:
                raise DataError(f"{place}: this folder holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
            found += inside
        elif place.is_file():
            found.append(place)
        else:
            raise DataError(f"{place}: there is no such image or folder")
    return found


def _free_name(folder: Path, stem: str, taken: set[str]) -> Path:
    """`folder/stem.png`, or with -2, -3, ... where the name is taken, in the folder or by this call."""
    name, number = stem, 1
    while name in taken or (folder / f"{name}.png").exists():
        number += 1
        name = f"{stem}-{number}"
    taken.add(name)
    return folder / f"{name}.png"
