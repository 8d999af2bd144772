"""Mean and deviation of each channel over a training set, where a recipe says `auto`."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from vertebra.data.extra_fields import reader_of, readers_of, with_declared_images
from vertebra.data.formats import Dataset
from vertebra.data.images.readers import ImageReader
from vertebra.errors import DataError

if TYPE_CHECKING:
    from vertebra.config import Recipe

__all__ = ["measure_pixels", "with_measured_pixels"]

logger = logging.getLogger(__name__)

_MOST_IMAGES = 500  # evenly spread; the mean of as many photographs is known to about 1 % of the deviation


def with_measured_pixels(recipe: Recipe, dataset: Dataset) -> Recipe:
    """The recipe with what the dataset declares of its images, and numbers in the place of each `auto` of pixel_mean
    and pixel_std, in `model.pixel_order`."""
    recipe = with_declared_images(recipe, dataset.metadata)
    model = recipe.model
    if "auto" in (model.pixel_mean, model.pixel_std):
        mean, std = measure_pixels(dataset, reader_of(dataset.metadata), "file_name", "image")
        if model.pixel_order == "bgr":
            mean, std = mean[::-1], std[::-1]
        model = replace(
            model,
            pixel_mean=mean if model.pixel_mean == "auto" else model.pixel_mean,
            pixel_std=std if model.pixel_std == "auto" else model.pixel_std,
        )
    fields = dict(recipe.data.fields)
    for name, field in recipe.data.fields.items():
        if "auto" in (field.pixel_mean, field.pixel_std):
            mean, std = measure_pixels(dataset, readers_of({name: field})[name], field.key or name, name)
            fields[name] = replace(
                field,
                pixel_mean=mean if field.pixel_mean == "auto" else field.pixel_mean,
                pixel_std=std if field.pixel_std == "auto" else field.pixel_std,
            )
    if model is recipe.model and fields == recipe.data.fields:
        return recipe
    return replace(recipe, model=model, data=replace(recipe.data, fields=fields))


def measure_pixels(
    dataset: Dataset, reader: ImageReader, key: str, name: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over up to 500 images, as the reader gives their values.

    Args:
        key: of the dicts, for the path of the image. name: of the image, for messages.

    Raises:
        DataError: an image cannot be read, or a channel has one value in all of them.
    """
    step = max(len(dataset) / _MOST_IMAGES, 1)
    rows = [int(number * step) for number in range(min(_MOST_IMAGES, len(dataset)))]
    count, total, squares = 0, np.zeros(reader.channels), np.zeros(reader.channels)
    for row in rows:
        pixels = reader.read(dataset[row][key]).reshape(-1, reader.channels).astype(np.float64)
        count += len(pixels)
        total += pixels.sum(axis=0)
        squares += (pixels**2).sum(axis=0)
    mean = total / max(count, 1)
    std = np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 0))
    if not (std > 1e-9 * reader.highest).all():
        flat = np.flatnonzero(~(std > 1e-9 * reader.highest)).tolist()
        raise DataError(
            f"dataset {dataset.name}: channels {flat} of {name} have one value in {len(rows)} images, so "
            "pixel_std cannot be measured.\n  Write pixel_mean and pixel_std, or leave the channels out in the reader"
        )
    logger.info(
        "pixel values of %s, measured in %d images: mean %s, std %s", name, len(rows), mean.round(4), std.round(4)
    )
    return tuple(float(f"{value:.6g}") for value in mean), tuple(float(f"{value:.6g}") for value in std)
