"""The data section of a recipe to datasets and loaders."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from vertebra.config.component import described
from vertebra.config.injection import known_facts
from vertebra.data.catalog import DatasetCatalog, Metadata, MetadataCatalog
from vertebra.data.extra_fields import (
    absent_fields,
    check_moves,
    check_needs,
    declared_fields,
    reader_of,
    readers_of,
    unused_keys,
    unused_note,
    with_fields,
)
from vertebra.data.field_values import check_fields
from vertebra.data.formats import Dataset, Format
from vertebra.data.loader import EvalLoader, TrainLoader
from vertebra.data.mapper import Mapper
from vertebra.data.match_classes import match_classes
from vertebra.data.samplers import Sampler, TrainingSampler, epoch_length_of
from vertebra.data.transforms import ColorTransform, Transform
from vertebra.errors import DataError, PluginError, RecipeError
from vertebra_eval.files import Problems

if TYPE_CHECKING:
    from vertebra.config import ComponentSpec, Recipe
    from vertebra.config.extra_fields import FieldSection

__all__ = [
    "build_eval_loader",
    "build_mapper",
    "build_train_loader",
    "build_transforms",
    "drop_empty",
    "load_dataset",
    "load_split",
]

logger = logging.getLogger(__name__)

_SPLITS = ("train", "val", "test")
_MUST_AGREE = (
    *("thing_classes", "stuff_classes", "keypoint_names", "keypoint_flip_map"),
    *("ignore_label", "label_map", "label_colors", "extra_fields", "image_reader"),
)


def load_dataset(
    spec: str | ComponentSpec | Sequence[str | ComponentSpec],
    root: str | None = None,
    fields: Mapping[str, FieldSection] | None = None,
    image: ComponentSpec | None = None,
    truth: bool = True,
) -> Dataset:
    """A registered name, an inline dataset, or a list of those (joined one after the other), read and checked.

    Args:
        root: what relative paths of inline datasets count from; None: the current directory.
        fields: further fields to read, by name, as `data.fields` of a recipe declares them.
        image: the reader of the image files; None: RGB, or what the dataset's metadata says.
        truth: it is to be trained on: check the ground truth in the fields too, not only what models take as input.
    Raises:
        DataError: a name nobody registered, faulty files, or joined datasets that differ in their classes.
        PluginError: a format gives something other than a Dataset.
    """
    fields = fields or {}
    if not isinstance(spec, str) and isinstance(spec, Sequence):
        if not spec:
            raise DataError("the list of datasets is empty")
        return _joined([load_dataset(item, root, fields, image, truth) for item in spec])
    if isinstance(spec, str):
        dataset = _registered(spec)
    else:
        dataset = _loaded(spec, root, fields)
        dataset.check_files()
    _declare(dataset, fields, image, truth)
    return dataset


def _declare(dataset: Dataset, fields: Mapping[str, FieldSection], image: ComponentSpec | None, truth: bool) -> None:
    """Declares the fields, checks their values, and says which keys of annotations are not used."""
    dataset.metadata = with_fields(dataset.metadata, fields, image)
    declared = declared_fields(dataset.metadata)
    checked = {name: field for name, field in declared.items() if truth or field.geometry == "image"}
    if checked:
        problems = Problems(f"dataset {dataset.name}")
        check_fields(dataset, checked, problems)
        problems.raise_if_any()
        if absent := absent_fields(dataset.annotation_keys, checked):
            logger.warning("dataset %s: no annotation has %s", dataset.name, absent)
    if unused := unused_keys(dataset.annotation_keys, declared):
        logger.warning("dataset %s: %s", dataset.name, unused_note(unused))


def load_split(recipe: Recipe, split: str | None = None) -> Dataset:
    """The dataset of a recipe's split (`train`, `val` or `test`; None: `evaluate.split`), read and checked.

    Raises:
        RecipeError: no such split, or the recipe does not set it.
    """
    split = split or recipe.evaluate.split
    if split not in _SPLITS:
        raise RecipeError(f"{recipe.source}: split is {split!r}; expected {', '.join(_SPLITS)}")
    spec = getattr(recipe.data, split)
    if spec is None:
        has = [name for name in _SPLITS if getattr(recipe.data, name) is not None]
        raise RecipeError(
            f"{recipe.source}: split is {split!r}, but data.{split} is not set; "
            f"set are: {', '.join(has) or 'none'}.\n"
            f"  Set data.{split}, or choose another with evaluate.split (on the command line --split)"
        )
    return load_dataset(spec, recipe.data.root, recipe.data.fields, recipe.data.image, truth=split == "train")


def build_train_loader(
    recipe: Recipe, dataset: Dataset | None = None, rank: int = 0, world_size: int = 1
) -> TrainLoader:
    """The loader of `data.train` (or of `dataset`), with the recipe's transforms, sampler, seed and batch size."""
    data = recipe.data
    if dataset is None:
        dataset = load_split(recipe, "train")
    if data.filter_empty:
        dataset = drop_empty(dataset)
    if not len(dataset):
        raise DataError(f"dataset {dataset.name}: there are no images to train on")
    dataset.columns = None  # for evaluation alone; they hold all masks once more
    return TrainLoader(
        dataset,
        build_mapper(recipe, dataset, training=True),
        recipe.train.batch_size,
        sampler=_sampler(recipe, dataset),
        seed=recipe.seed,
        workers=data.workers,
        aspect_ratio_grouping=data.aspect_ratio_grouping,
        rank=rank,
        world_size=world_size,
        max_bad_images=data.max_bad_images,
        timeout=data.timeout,
    )


def build_eval_loader(recipe: Recipe, dataset: Dataset, rank: int = 0, world_size: int = 1) -> EvalLoader:
    """The loader of `dataset` for evaluation, with the recipe's evaluation transforms and batch size."""
    return EvalLoader(
        dataset,
        build_mapper(recipe, dataset, training=False),
        recipe.evaluate.batch_size,
        workers=recipe.data.workers,
        rank=rank,
        world_size=world_size,
        timeout=recipe.data.timeout,
    )


def build_mapper(recipe: Recipe, dataset: Dataset, training: bool) -> Mapper:
    """The mapper of a recipe for one dataset, for training or for evaluation."""
    specs = recipe.data.train_transforms if training else recipe.data.eval_transforms
    closing = recipe.data.close_mixing_epochs
    transforms = build_transforms(specs, dataset.metadata)
    if training:
        check_needs(transforms, dataset.metadata)
        check_moves(transforms, dataset.metadata)
    readers = {"image": reader_of(dataset.metadata), **readers_of(declared_fields(dataset.metadata))}
    for transform in transforms:
        if isinstance(transform, ColorTransform):
            transform.check_images(readers)
    mapper = Mapper(
        transforms,
        training=training,
        seed=recipe.seed,
        mask_format=recipe.data.mask_format,
        metadata=dataset.metadata,
        fields=dataset.fields,
        others=dataset.dicts if training else None,
        mix_epochs=_num_epochs(recipe, dataset) - closing if training and closing else None,
    )
    mapper.told |= dataset.annotation_keys  # `load_dataset` has
    return mapper


def build_transforms(specs: Iterable[ComponentSpec], metadata: Metadata | None) -> list[Transform]:
    """The transforms that a recipe names, for a dataset or a trained model with this metadata."""
    return [spec.build(**known_facts(metadata)) for spec in specs]


def _num_epochs(recipe: Recipe, dataset: Dataset) -> float:
    """Passes over the data that the whole training makes."""
    train = recipe.train
    if train.epochs is not None:
        return train.epochs
    assert train.steps is not None  # a recipe with neither gets steps when it is read
    return train.steps * train.batch_size / epoch_length_of(_sampler(recipe, dataset), dataset.dicts)


def _sampler(recipe: Recipe, dataset: Dataset) -> Sampler:
    spec = recipe.data.sampler
    return TrainingSampler() if spec is None else spec.build(**known_facts(dataset.metadata, dataset=dataset))


def drop_empty(dataset: Dataset) -> Dataset:
    """Without the images whose `annotations` hold nothing but crowd regions; images with label files stay."""
    kept = [item for item in dataset if _usable(item)]
    left_out = len(dataset) - len(kept)
    if not left_out:
        return dataset
    logger.info(
        "dataset %s: %d of %d images have no usable annotation and are dropped", dataset.name, left_out, len(dataset)
    )
    if not kept:
        raise DataError(
            f"dataset {dataset.name}: none of its {len(dataset)} images has an annotation to train on "
            "(data.filter_empty: false keeps images without any)"
        )
    return Dataset(kept, dataset.metadata, checked=True)


def _usable(item: dict) -> bool:
    if "annotations" not in item or item.get("sem_seg_file_name") or item.get("pan_seg_file_name"):
        return True
    return any(not annotation.get("iscrowd", 0) for annotation in item["annotations"])


def _loaded(spec: ComponentSpec, root: str | None, fields: Mapping[str, FieldSection]) -> Dataset:
    """An inline dataset, as its format loads it."""
    reader, where = spec.build(), f"{spec.where}: format {spec.name}"
    if getattr(type(reader), "load", Format.load) is Format.load:
        raise PluginError(f"{where} has no method load(root)")
    reader.fields = fields
    found = reader.load(root)
    if not isinstance(found, Dataset):
        raise PluginError(
            f"{where}: load(root) must return a vertebra.data.Dataset, got {described(found)}.\n"
            "  Return Dataset(dicts, Metadata(name).set(thing_classes=[...]))"
        )
    return found


def _registered(name: str) -> Dataset:
    """A dataset of DatasetCatalog."""
    dicts = DatasetCatalog.get(name)
    metadata = MetadataCatalog.get(name)
    if not isinstance(dicts, (list, tuple)):
        raise DataError(f"dataset {name}: its function returned {type(dicts).__name__}, expected a list of dicts")
    dataset = Dataset(dicts, metadata)
    dataset.check_files()
    return dataset


def _joined(datasets: list[Dataset]) -> Dataset:
    if len(datasets) == 1:
        return datasets[0]
    first = datasets[0]
    datasets = [first, *(_in_order_of(first, other) for other in datasets[1:])]
    for other in datasets[1:]:
        for key in _MUST_AGREE:
            mine, theirs = first.metadata.get(key), other.metadata.get(key)
            if mine != theirs:
                raise DataError(
                    f"datasets {first.name} and {other.name} cannot be joined: {key} is {mine} in the first "
                    f"and {theirs} in the second"
                )
    metadata = Metadata("+".join(dataset.name for dataset in datasets))
    facts = [dataset.metadata.as_dict() for dataset in datasets]
    metadata.set(**{k: v for k, v in facts[0].items() if k != "name" and all(f.get(k) == v for f in facts)})
    return Dataset(chain.from_iterable(datasets), metadata, checked=True)


def _in_order_of(first: Dataset, other: Dataset) -> Dataset:
    """`other` with its classes in the order of the first's, where both have the same."""
    names, others = (one.metadata.get("thing_classes") or [] for one in (first, other))
    if sorted(names) != sorted(others):
        return other
    return match_classes(other, Metadata(first.name).set(thing_classes=names), first.name)
