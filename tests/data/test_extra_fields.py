"""Declared fields: read, checked, moved, and given to any head."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from field_samples import FIELDS, SQUARE, declared, metadata_of
from vertebra.config.extra_fields import FieldSection
from vertebra.data import (
    Mapper,
)
from vertebra.data.transforms import MixTransform, MixUp, Mosaic, RandomFlip, ResizeStretch, Sample, join_instances
from vertebra.errors import DataError, PluginError, RecipeError
from vertebra.models import Backbone, Model, ShapeSpec
from vertebra.structures import BitMasks, Boxes, DenseMap, Keypoints, PolygonMasks, RotatedBoxes


def mapped(dicts, *transforms, training=True, **settings):
    mapper = Mapper(transforms, training=training, metadata=metadata_of(), fields=(), **settings)
    return [mapper(item, index=index) for index, item in enumerate(dicts)]


def test_each_geometry_reaches_the_sample_in_its_structure(dicts):
    first, second = mapped(dicts, ResizeStretch([80, 60]), RandomFlip(1.0))
    objects = first["instances"]
    assert isinstance(objects.gt_angle, RotatedBoxes) and objects.gt_angle.tensor[0, :2].tolist() == [45, 30]
    assert isinstance(objects.gt_head, Boxes) and objects.gt_head.tensor[0].tolist() == [44, 20, 48, 28]
    assert objects.gt_head.tensor[1].isnan().all()  # not annotated
    assert isinstance(objects.gt_ends, Keypoints) and objects.gt_ends.tensor[0, :, :2].tolist() == [[40, 30], [50, 30]]
    assert isinstance(objects.gt_part, PolygonMasks) and objects.gt_part.area().tolist() == [200, 200]
    assert objects.gt_track.tolist() == [5, 9] and objects.gt_track.dtype == torch.int64
    assert objects.gt_color.tolist() == [[1, 2, 3], [0, 0, 0]] and objects.gt_color.dtype == torch.float32
    assert isinstance(first["depth"], DenseMap) and first["depth"].tensor.shape == (80, 60)
    assert first["depth"].tensor.unique().tolist() == [0.5] and second["depth"].tensor.unique().tolist() == [1.5]
    assert second["weather"].tolist() == [1] and second["instances"].gt_track.tolist() == [6]


def test_masks_are_drawn_where_the_recipe_asks_for_pixels(dicts):
    (sample,) = mapped(dicts[:1], mask_format="bitmask")
    assert isinstance(sample["instances"].gt_part, BitMasks) and sample["instances"].gt_part.area().tolist() == [
        100,
        100,
    ]


def test_without_training_the_values_stay_as_they_are(dicts):
    first, _ = mapped(dicts, training=False)
    assert first["depth"] == dicts[0]["depth"] and first["weather"] == 0 and "instances" not in first


def test_joined_images_keep_the_fields_of_all_instances(dicts):
    images = [{key: value for key, value in item.items() if key != "weather"} for item in dicts]
    fields = {name: field for name, field in FIELDS.items() if name != "weather"}
    mapper = Mapper([Mosaic()], training=True, metadata=metadata_of(fields), fields=(), others=images)
    sample = mapper(images[0], index=3)
    objects = sample["instances"]
    assert len(objects) > 2 and set(objects.gt_track.tolist()) <= {5, 6, 9}
    assert torch.allclose(objects.gt_angle.get_centers(), objects.gt_boxes.get_centers(), atol=1e-4)
    assert {-1.0, 0.5} <= set(sample["depth"].tensor.unique().tolist()) <= {-1.0, 0.5, 1.5}
    with pytest.raises(RecipeError, match=r"(?s)field depth.*cannot be joined.*Remove transforms that join images"):
        Mapper([MixUp(1.0)], training=True, metadata=metadata_of(fields), fields=(), others=images)(images[0])


class Forgetful(MixTransform):
    def count_others(self, rng):
        return 1

    def mix(self, sample, others, rng):
        return Sample(sample.image, boxes=sample.boxes, rows=sample.rows)


def test_a_transform_that_loses_a_field_is_named(dicts):
    with pytest.raises(PluginError, match=r"Forgetful returned a Sample without the declared field angle, color, .*"):
        mapped(dicts, Forgetful(), others=dicts)


class Flat(Backbone):
    size_divisibility = 32

    def output_shape(self):
        return {"flat": ShapeSpec(3, 1)}

    def forward(self, images):
        return {"flat": images}


def test_a_batch_pads_every_field(dicts):
    inputs = mapped([dicts[0], {**dicts[1], "annotations": []}])
    inputs[1]["image"] = inputs[1]["image"][:, :30, :40]
    inputs[1]["depth"] = DenseMap(inputs[1]["depth"].tensor[:30, :40], -1.0)
    batch = Model(Flat(), heads={}).make_batch(inputs)
    assert batch.gt_valid.tolist() == [[True, True], [False, False]]
    shapes = {name: tuple(batch.field(name).shape) for name in FIELDS}
    assert shapes == {
        "angle": (2, 2, 5),
        "head": (2, 2, 4),
        "ends": (2, 2, 2, 3),
        "part": (2, 2, 64, 64),
        "track": (2, 2),
        "color": (2, 2, 3),
        "depth": (2, 64, 64),
        "weather": (2,),
    }
    assert batch.field("track").tolist() == [[5, 9], [0, 0]] and batch.field("weather").tolist() == [0, 1]
    assert batch.field("part")[0].sum(dim=(1, 2)).tolist() == [100, 100] and batch.field("part").dtype == torch.bool
    assert batch.field("depth")[1, 29, 39] == 1.5 and batch.field("depth")[1, 30, 0] == -1
    assert batch.field("angle") is batch.field("angle")  # made once
    with pytest.raises(
        DataError, match=r"(?s)no ground truth 'dept'; their instances have: .*angle.*data\.fields\.dept"
    ):
        batch.field("dept")


FAULTS = {
    "angle": ([1, 2, 3, 4], "angle is [1, 2, 3, 4], expected 5 finite numbers"),
    "head": ([3, 4, -1, 2], "head is [3, 4, -1, 2], which has a negative width or height as xywh"),
    "ends": (
        [1, 2, 3],
        "ends is [1, 2, 3], expected 4 or 6 finite numbers: x, y or x, y, visibility of each of 2 points",
    ),
    "track_id": (1.5, "track_id is 1.5, expected a whole number"),
    "color": ([1, 2, float("inf")], "color is [1, 2, inf], expected 3 finite numbers"),
    "depth": ("nowhere.npy", "depth is 'nowhere.npy', but there is no such file"),
    "weather": (None, "'weather' is missing, a declared field of geometry scalar; data.fields can say what stands"),
}


@pytest.mark.parametrize("key", FAULTS)
def test_a_faulty_value_is_found_before_the_first_image_is_read(dicts, key):
    value, text = FAULTS[key]
    of_image = key in ("depth", "weather")
    (dicts[1] if of_image else dicts[1]["annotations"][0])[key] = value
    where = dicts[1]["file_name"] + ("" if of_image else ": annotation 0")
    with pytest.raises(DataError) as caught:
        declared(dicts, FIELDS, f"faulty {key}")
    assert f"{where}: {text}" in str(caught.value)
    with pytest.raises(DataError) as caught:
        mapped(dicts)
    assert f"{where}: {text}" in str(caught.value)


def test_a_crowd_needs_no_fields(dicts):
    assert len(declared(dicts, FIELDS, "crowds")) == 2


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (
            np.zeros((30, 60)),
            "has the shape (30, 60), expected (height, width) or (channels, height, width) with height x",
        ),
        (np.zeros((40, 60), np.uint16), "holds whole numbers, but data.fields asks for smooth, or a fill of 0.5"),
        (np.full((40, 60), 2**40), "holds int64, expected whole numbers below 2^31 or floats"),
        (np.array([["a"]]), "expected whole numbers below 2^31 or floats"),
    ],
)
def test_a_dense_map_that_does_not_fit_is_named(dicts, array, text):
    np.save(dicts[0]["depth"], array)
    metadata = metadata_of({"depth": FieldSection(geometry="dense_map", fill=0.5)})
    with pytest.raises(DataError) as caught:
        Mapper([], training=True, metadata=metadata)(dicts[0])
    assert f"{dicts[0]['file_name']}: depth {text.split()[0]}" in str(caught.value) or text in str(caught.value)
    assert text in str(caught.value)


def test_dense_maps_are_read_from_images_of_any_depth(dicts, tmp_path):
    metadata = metadata_of({"depth": FieldSection(geometry="dense_map")})
    for name, array in {
        "16.png": np.full((40, 60), 60000, np.uint16),
        "f.tif": np.full((40, 60), 0.25, np.float32),
        "8.png": np.full((40, 60), 200, np.uint8),
        "c.npy": np.full((2, 40, 60), 7, np.int16),
    }.items():
        path = tmp_path / name
        np.save(path, array) if name.endswith("npy") else Image.fromarray(array).save(path)
        found = Mapper([], training=True, metadata=metadata)({**dicts[0], "depth": str(path)})["depth"].tensor
        assert found.shape == array.shape and found.unique().tolist() == np.unique(array).tolist()
    (tmp_path / "bad.npy").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"bad\.npy: cannot be read as \.npy"):
        Mapper([], training=True, metadata=metadata)({**dicts[0], "depth": str(tmp_path / "bad.npy")})


def read_one(dicts, **fields):
    return Mapper([], training=True, metadata=metadata_of(fields), fields=())(dicts[0])


def test_maps_of_several_types_meet_in_one_that_holds_all(dicts, tmp_path):
    arrays = np.full((40, 60), 3, np.uint8), np.full((40, 60), 1000, np.uint16)
    for item, array in zip(dicts, arrays, strict=True):
        np.save(item["depth"], array)
    fields = {"depth": FieldSection(geometry="dense_map", labels=True)}
    metadata = metadata_of(fields)
    inputs = [Mapper([], training=True, metadata=metadata, fields=())(item) for item in dicts]
    batch = Model(Flat(), heads={}).make_batch(inputs)
    assert batch.field("depth").amax(dim=(1, 2)).tolist() == [3, 1000]
    mosaic = Mapper([Mosaic()], training=True, metadata=metadata, fields=(), others=dicts)
    assert 1000 in {value for i in range(4) for value in mosaic(dicts[0], index=i)["depth"].tensor.unique().tolist()}
    np.save(dicts[1]["depth"], np.zeros((2, 40, 60), np.uint8))
    inputs[1] = Mapper([], training=True, metadata=metadata, fields=())(dicts[1])
    with pytest.raises(DataError, match="different numbers of channels in one batch"):
        Model(Flat(), heads={}).make_batch(inputs).field("depth")
    with pytest.raises(RecipeError, match=r"field depth: .*cannot be joined, as it has \[.*channels"):
        [mosaic(dicts[0], index=i) for i in range(9)]


def test_a_fill_that_8_bits_cannot_hold_makes_the_map_wider(dicts):
    np.save(dicts[0]["depth"], np.full((40, 60), 3, np.uint8))
    depth = read_one(dicts, depth=FieldSection(geometry="dense_map", fill=-1))["depth"]
    assert depth.tensor.dtype == torch.int32 and depth.fill == -1


def test_a_mask_of_the_whole_image_is_drawn_in_the_batch(dicts):
    dicts[0]["field_of_view"] = [SQUARE]
    sample = read_one(dicts, field_of_view=FieldSection(geometry="mask", of="image"))
    batch = Model(Flat(), heads={}).make_batch([sample])
    assert batch.field("field_of_view").shape == (1, 64, 64) and int(batch.field("field_of_view").sum()) == 100


def test_points_may_be_nested_and_whole_numbers_have_64_bits(dicts):
    dicts[0]["annotations"][0] |= {"ends": [[1, 2], [3, 4]], "track_id": 2**62 + 1}
    fields = {"ends": FieldSection(geometry="points", size=2), "track": FIELDS["track"]}
    objects = read_one(dicts, **fields)["instances"]
    assert objects.gt_ends.tensor[0].tolist() == [[1, 2, 2], [3, 4, 2]] and int(objects.gt_track[0]) == 2**62 + 1


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        (FieldSection(geometry="scalar", size=2), [1, 10**400], "expected 2 finite numbers"),
        (FieldSection(geometry="scalar"), 1e39, "expected a finite number"),
        (FieldSection(geometry="scalar", integer=True), 2**63, "expected a whole number of at most 64 bits"),
        (FieldSection(geometry="points", size=1), [1, 2, 7], "whose visibilities are not all 0"),
        (FieldSection(geometry="mask"), [[1, 2, 3]], "x"),
        (FieldSection(geometry="scalar"), "7", "x is '7', expected a finite number"),
    ],
)
def test_values_that_no_tensor_holds_are_refused(dicts, field, value, text):
    for item in dicts:
        for annotation in item["annotations"]:
            annotation["x"] = value
    with pytest.raises(DataError) as caught:
        declared(dicts, {"x": field}, f"refused {field} {value!r:.20}")
    assert text in str(caught.value)


def test_copies_of_a_sample_are_apart():
    sample = Sample(torch.zeros(3, 4, 4, dtype=torch.uint8), boxes=np.zeros((1, 4)), sem_seg=torch.zeros(4, 4))
    other = copy.copy(sample)
    other.boxes, other.ignore_label = None, 9
    assert sample.boxes is not None and sample.ignore_label == 255 and "fields" in repr(sample)
    assert other.pad(0, 0, 1, 0).sem_seg[4, 0] == 9


def test_samples_without_instances_are_joined():
    bare = [Sample(torch.zeros(3, 4, 4, dtype=torch.uint8)) for _ in range(2)]
    assert join_instances(bare[0], bare).fields == {}
    rows = [Sample(torch.zeros(3, 4, 4, dtype=torch.uint8), rows=np.arange(2)) for _ in range(2)]
    assert join_instances(Sample(rows[0].image), rows).rows.tolist() == [0, 1, 0, 1]
