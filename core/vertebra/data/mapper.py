"""A standard dataset dict to what a model takes: the image read, transformed and, in training, its ground truth."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vertebra.config.component import where_written
from vertebra.data.annotations import MaskFormat, fill_sample, instances_of, keypoint_mirror
from vertebra.data.catalog import Metadata
from vertebra.data.extra_fields import declared_fields, reader_of, readers_of, unused_keys, unused_note
from vertebra.data.field_values import read_fields
from vertebra.data.images.readers import as_tensor
from vertebra.data.panoptic_labels import with_panoptic_masks
from vertebra.data.placement import content_size
from vertebra.data.proposals import PROPOSAL_KEYS, proposals_of
from vertebra.data.semantic.label_reader import LabelReader
from vertebra.data.transforms import MixTransform, Sample, Transform
from vertebra.errors import DataError, PluginError, RecipeError
from vertebra.structures import DenseMap

__all__ = ["Mapper"]

logger = logging.getLogger(__name__)

_CONSUMED = {
    "annotations",
    "sem_seg_file_name",
    "sem_seg_label_map",
    *PROPOSAL_KEYS,
}  # keys of a dict that the model gets in another form


class Mapper:
    """Turns (dict, epoch, index) into a model's input; equal arguments give equal results, in whichever process.

    The result holds `image` (3, H, W) uint8 RGB, or what the metadata's `image_reader` gives (C channels, uint8, int32
    of 16 bits, or float32), further images under their names, `height` and `width` of the file's image, whatever else
    the dict holds (`file_name`, ...), and in training `instances` (without crowd regions) and, where the dict
    names label files, `sem_seg` (H, W): classes from 0, and 255 for none whatever number the files have for that.
    Fields that the metadata declares (`extra_fields`) are in `instances` as `gt_<name>`, those of the whole image in
    the result under their name: tensors or structures, by geometry. Where a dict has proposals made beforehand, the
    result has `proposals`, see `proposals_of`.

    Args:
        transforms: applied in this order.
        training: make ground truth; without it, annotations are ignored, and the image may only be scaled, and
            padded on the right and below (`content_size` is then the size of the image in it).
        seed: of all random numbers, together with epoch and index.
        mask_format: `polygon` keeps polygons (an image with run length masks gets bitmasks), `bitmask` draws all
            masks, `none` loads no masks.
        metadata: of the dataset, for keypoint names, left and right, the labels that may occur, and declared fields.
        others: the dicts that transforms like Mosaic draw further images from; None: such transforms do nothing.
        mix_epochs: from this epoch on such transforms are skipped; None: never.
        fields: which of `segmentation` and `keypoints` the dataset has, so that images without instances agree with
            the others; None: what each image's own annotations have.
    """

    def __init__(
        self,
        transforms: Sequence[Transform],
        *,
        training: bool,
        seed: int = 0,
        mask_format: MaskFormat = "polygon",
        metadata: Metadata | None = None,
        fields: Collection[str] | None = None,
        others: Sequence[dict] | None = None,
        mix_epochs: float | None = None,
    ) -> None:
        metadata = metadata or Metadata()
        self.transforms = list(transforms)
        self.training = training
        self.seed = seed % 2**64
        self.others = () if others is None else others
        self.mix_epochs = mix_epochs
        self.mask_format = mask_format
        self.declared = declared_fields(metadata)
        self.images = {name: field for name, field in self.declared.items() if field.geometry == "image"}
        self.reader, self.readers = reader_of(metadata), readers_of(self.declared)
        self.told: set[str] = set()
        """Keys of annotations that are not used, and of which that is known."""
        self.fields = None if fields is None else frozenset(fields)
        self.label_reader = LabelReader(metadata)
        names = list(metadata.get("keypoint_names") or ())
        self.num_keypoints = len(names)
        pairs = metadata.get("keypoint_flip_map")
        self.mirror = None if pairs is None else keypoint_mirror(names, pairs)

    def __call__(self, dataset_dict: dict, epoch: int = 0, index: int = 0, repeat: int = 0) -> dict:
        """One dict to one input.

        Args:
            epoch, index: pass over the data and place in the dataset, the seed of this sample.
            repeat: number of times that the sampler has drawn this index before in this epoch.
        Raises:
            DataError: names the image and what is wrong with it or its annotations.
        """
        rng = np.random.default_rng([self.seed, epoch, index, repeat])
        classes: list[int] = []
        sample = self._read(dataset_dict, classes)
        height, width = sample.size
        mixes = len(self.others) > 0 and (self.mix_epochs is None or epoch < self.mix_epochs)
        transforms = [each for each in self.transforms if mixes or not isinstance(each, MixTransform)]
        sample = self._transformed(sample, transforms, rng, classes)
        result = {key: value for key, value in dataset_dict.items() if key not in _CONSUMED}
        result.update(image=_compact(sample.image), height=height, width=width)
        result |= {name: _compact(sample.image_of(name)[0]) for name in self.images}
        if "proposal_boxes" in dataset_dict:
            if any(isinstance(each, MixTransform) for each in transforms):
                raise RecipeError(
                    f"{dataset_dict['file_name']} has precomputed proposals, which do not cover images joined to it; "
                    "remove transforms that join images from data.train_transforms"
                )
            result["proposals"] = proposals_of(dataset_dict, sample.matrix, sample.size)
        if not self.training:
            content = content_size(sample, height, width)
            if content != sample.size:
                result["content_size"] = content
            return result
        if "annotations" in dataset_dict:
            extra = [name for name, field in self.declared.items() if field.of_instances]
            result["instances"] = instances_of(sample, np.array(classes, dtype=np.int64), self.mask_format, extra)
        if sample.sem_seg is not None:
            result["sem_seg"] = _compact(sample.sem_seg)
        for name, field in self.declared.items():
            if not field.of_instances and name not in self.images:
                value = sample.fields[name].structure(sample.size)
                result[name] = replace(value, tensor=_compact(value.tensor)) if isinstance(value, DenseMap) else value
        return result

    def _read(self, dataset_dict: dict, classes: list[int]) -> Sample:
        """The image with its ground truth. Classes are appended to `classes`; `sample.rows` are their places there."""
        sample = Sample(self._image(dataset_dict), highest=self.reader.highest)
        if not self.training:
            sample.fields |= read_fields(self.images, dataset_dict, [], sample.size, self.readers)
        else:
            annotations = [item for item in dataset_dict.get("annotations", ()) if not item.get("iscrowd", 0)]
            self._add_truth(sample, dataset_dict, annotations)
            self._tell_unused(annotations)
            sample.rows = np.arange(len(classes), len(classes) + len(annotations))
            classes += [item["category_id"] for item in annotations]
        return sample

    def _transformed(
        self, sample: Sample, transforms: Sequence[Transform], rng: np.random.Generator, classes: list[int]
    ) -> Sample:
        """The sample through all transforms; where one joins images, the others go through those before it first."""
        for place, transform in enumerate(transforms):
            if not isinstance(transform, MixTransform):
                with _named(transform):
                    sample = transform(sample, rng)
                sample = self._checked(sample, transform)
                continue
            others = [self._other(transforms[:place], rng, classes) for _ in range(transform.count_others(rng))]
            if others:
                with _named(transform):
                    sample = transform.mix(sample, others, rng)
                sample = self._checked(sample, transform)
        return sample

    def _checked(self, sample: Any, transform: Transform) -> Sample:
        where = where_written(transform, type(transform).__name__)
        if not isinstance(sample, Sample):
            raise PluginError(f"{where} returned a {type(sample).__name__}, expected the Sample: return sample")
        needed = self.declared if self.training else self.images
        if lost := needed.keys() - sample.fields.keys():
            raise PluginError(
                f"{where} returned a Sample without the declared field {', '.join(sorted(lost))}.\n"
                "  Call the sample's own geometry (resize, warp, ...), and join_instances for several samples"
            )
        return sample

    def _other(self, transforms: Sequence[Transform], rng: np.random.Generator, classes: list[int]) -> Sample:
        """Another image of the dataset, drawn by `rng` and taken through `transforms`."""
        dataset_dict = self.others[int(rng.integers(len(self.others)))]
        try:
            sample = self._read(dataset_dict, classes)
        except DataError as err:
            err.file_name = dataset_dict["file_name"]  # not the requested image
            raise
        return self._transformed(sample, transforms, rng, classes)

    def _image(self, dataset_dict: dict) -> Tensor:
        """Read the image (C, H, W) and check its size against the one that is declared."""
        path = dataset_dict["file_name"]
        image = self.reader.read(path)
        height, width = image.shape[:2]
        declared = dataset_dict.get("height", height), dataset_dict.get("width", width)
        if declared != (height, width):
            hint = " (height and width are swapped, or EXIF turns the image)" if declared == (width, height) else ""
            raise DataError(
                f"{path}: the annotations declare {declared[1]}x{declared[0]} pixels (width x height), "
                f"the file has {width}x{height}{hint}"
            )
        return as_tensor(image)

    def _add_truth(self, sample: Sample, dataset_dict: dict, annotations: list[dict]) -> None:
        path = dataset_dict["file_name"]
        fields = self.fields or frozenset()
        if self.fields is None:
            given = ("segmentation", "keypoints")
            fields = frozenset(key for item in annotations for key in given if item.get(key) is not None)
        keypoints = 0
        if "keypoints" in fields:
            keypoints = self.num_keypoints or max(
                (len(item.get("keypoints", ())) // 3 for item in annotations), default=0
            )
        masks = "segmentation" in fields and self.mask_format != "none"
        if masks and any("panoptic_id" in item for item in annotations):
            annotations = with_panoptic_masks(annotations, dataset_dict["pan_seg_file_name"])
        sample.keypoint_mirror = self.mirror
        fill_sample(sample, annotations, path, masks, keypoints)
        if self.label_reader.has_labels(dataset_dict):
            sample.sem_seg = torch.from_numpy(self.label_reader.read(dataset_dict, sample.size))
        sample.fields |= read_fields(self.declared, dataset_dict, annotations, sample.size, self.readers)

    def _tell_unused(self, annotations: list[dict]) -> None:
        new = unused_keys(set().union(*annotations) - self.told, self.declared)
        if new:
            self.told.update(new)
            logger.warning(unused_note(new))


@contextlib.contextmanager
def _named(transform: Transform) -> Iterator[None]:
    """A transform that cannot do what is asked of it is named, with its line in the recipe."""
    try:
        yield
    except RecipeError as err:
        where = where_written(transform, type(transform).__name__)
        raise err if where in str(err) else RecipeError(f"{where}: {err}") from err


def _compact(pixels: Tensor) -> Tensor:
    """Without the pixels that a crop cut off: they would travel from the worker with their storage."""
    return pixels if pixels.untyped_storage().nbytes() == pixels.nbytes else pixels.clone()
