"""Declared fields of every geometry, for the tests of their reading and of their declarations."""

from vertebra import Metadata
from vertebra.config.extra_fields import FieldSection
from vertebra.data import (
    DatasetCatalog,
    MetadataCatalog,
    load_dataset,
)

FIELDS = {
    "angle": FieldSection(geometry="rotated_box"),
    "head": FieldSection(geometry="box", missing=float("nan")),
    "ends": FieldSection(geometry="points", size=2, mirror=[(0, 1)]),
    "part": FieldSection(geometry="mask"),
    "track": FieldSection(geometry="scalar", integer=True, key="track_id"),
    "color": FieldSection(geometry="scalar", size=3, missing=0.0),
    "depth": FieldSection(geometry="dense_map", fill=-1.0),
    "weather": FieldSection(geometry="scalar", of="image"),
}


SQUARE = [10, 10, 20, 10, 20, 20, 10, 20]


def metadata_of(fields=FIELDS, **facts):
    plain = {name: field.to_dict() for name, field in fields.items()}
    return Metadata("fields").set(thing_classes=["thing"], extra_fields=plain, **facts)


def declared(dicts, fields, name):
    """The dataset as a recipe with these `data.fields` loads it."""
    DatasetCatalog.register(name, lambda: dicts)
    MetadataCatalog.get(name).set(thing_classes=["thing"])
    return load_dataset(name, fields=fields)
