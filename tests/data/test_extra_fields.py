"""Fields that a recipe or a dataset declares: read, checked, moved, and given to any head."""

import copy
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vertebra import EVALUATORS, HEADS, Evaluator, Head, Metadata
from vertebra.config import load_recipe
from vertebra.config.extra_fields import FieldSection
from vertebra.data import (
    CocoFormat,
    Dataset,
    DatasetCatalog,
    Mapper,
    MetadataCatalog,
    load_dataset,
    register_coco_instances,
)
from vertebra.data.build import build_mapper
from vertebra.data.extra_fields import check_needs
from vertebra.data.facts import describe_dataset
from vertebra.data.transforms import MixTransform, MixUp, Mosaic, RandomFlip, ResizeStretch, Sample, join_instances
from vertebra.errors import DataError, PluginError, RecipeError
from vertebra.evaluation.run import build_evaluators
from vertebra.models import Backbone, Model, ShapeSpec
from vertebra.structures import BitMasks, Boxes, BoxMode, DenseMap, Keypoints, PolygonMasks, RotatedBoxes

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


@pytest.fixture
def dicts(tmp_path):
    """Two images of 40 x 60 pixels; the first shows two objects and a crowd, the second one object."""

    def annotation(number, **more):
        fields = {"angle": [15, 15, 10, 4, 30], "ends": [10, 15, 20, 15], "part": [SQUARE], "track_id": number}
        box = {"bbox": [10, 10, 20, 20], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
        return {**box, **fields, **more}

    items = []
    for number in range(2):
        file = tmp_path / f"{number}.png"
        Image.fromarray(np.full((40, 60, 3), 50 * number, np.uint8)).save(file)
        np.save(file.with_suffix(".npy"), np.full((40, 60), 0.5 + number))
        annotations = [annotation(5 + number, head=[12, 10, 4, 4], color=[1, 2, 3])]
        if number == 0:
            annotations += [annotation(9), {**annotation(10), "iscrowd": 1, "track_id": None}]
        common = {"file_name": str(file), "height": 40, "width": 60, "image_id": number, "weather": number}
        items.append({**common, "depth": str(file.with_suffix(".npy")), "annotations": annotations})
    return items


def metadata_of(fields=FIELDS, **facts):
    plain = {name: field.to_dict() for name, field in fields.items()}
    return Metadata("fields").set(thing_classes=["thing"], extra_fields=plain, **facts)


def mapped(dicts, *transforms, training=True, **settings):
    mapper = Mapper(transforms, training=training, metadata=metadata_of(), fields=(), **settings)
    return [mapper(item, index=index) for index, item in enumerate(dicts)]


def declared(dicts, fields, name):
    """The dataset as a recipe with these `data.fields` loads it."""
    DatasetCatalog.register(name, lambda: dicts)
    MetadataCatalog.get(name).set(thing_classes=["thing"])
    return load_dataset(name, fields=fields)


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


def test_keys_that_nothing_declares_are_named_once(dicts, caplog):
    fields = {name: field for name, field in FIELDS.items() if name not in ("track", "color")}
    with caplog.at_level(logging.WARNING):
        dataset = declared(dicts, fields, "undeclared")
    (line,) = [record.message for record in caplog.records]
    assert line.startswith("dataset undeclared: annotations have keys that are not used: color, track_id. data.fields")
    caplog.clear()
    build_mapper(recipe_of(fields), dataset, training=True)(dataset[0])
    assert not caplog.records  # said already
    alone = Mapper([], training=True, metadata=metadata_of(fields))
    for item in dicts:
        alone(item)
    assert [record.message for record in caplog.records] == [line.removeprefix("dataset undeclared: ")]


def recipe_of(fields):
    plain = [f"data.fields={json.dumps({name: field.to_dict() for name, field in fields.items()})}"]
    return load_recipe("retinanet:retinanet_shapes_quick", ["data.train_transforms=[]", *plain])


def test_a_field_that_dataset_and_recipe_declare_differently_is_refused(dicts):
    DatasetCatalog.register("declares", lambda: dicts)
    MetadataCatalog.get("declares").set(extra_fields={"angle": {"geometry": "rotated_box"}})
    assert load_dataset("declares").metadata.extra_fields == {"angle": {"geometry": "rotated_box"}}
    same = load_dataset("declares", fields={"angle": FieldSection(geometry="rotated_box")})
    assert same.metadata.extra_fields == {"angle": {"geometry": "rotated_box"}}
    with pytest.raises(
        RecipeError, match=r"data\.fields\.angle is .*'scalar'.*, but the dataset declares declares it as"
    ):
        load_dataset("declares", fields={"angle": FieldSection(geometry="scalar", size=5)})
    assert "field      angle: rotated_box" in describe_dataset(load_dataset("declares"))
    with pytest.raises(RecipeError, match=r"metadata of dataset m: extra_fields\.a\.geometri"):
        Mapper([], training=True, metadata=Metadata("m").set(extra_fields={"a": {"geometri": "box"}}))


def test_joined_datasets_must_declare_the_same(dicts):
    for name, fields in (("one", {"angle": {"geometry": "rotated_box"}}), ("none", None)):
        DatasetCatalog.register(f"join {name}", lambda: dicts)
        MetadataCatalog.get(f"join {name}").set(thing_classes=["thing"], **({"extra_fields": fields} if fields else {}))
    with pytest.raises(DataError, match="cannot be joined: extra_fields is"):
        load_dataset(["join one", "join none"])
    both = load_dataset(["join one", "join none"], fields={"angle": FieldSection(geometry="rotated_box")})
    assert both.metadata.extra_fields == {"angle": {"geometry": "rotated_box"}} and len(both) == 4


def test_a_coco_file_gives_declared_keys_and_names_the_others(coco_folder, caplog):
    more = {"angle": [4, 4, 4, 2, 10], "attributes": {"color": "red"}}
    file, folder = coco_folder({"a.png": (16, 16)}, [{"image_id": 1, "category_id": 1, "bbox": [2, 2, 4, 4], **more}])
    data = json.loads(Path(file).read_text())
    data["images"][0] |= {"depth": "depth/a.png", "camera": 3, "license": 1}
    Path(file).write_text(json.dumps(data))
    reader = CocoFormat(file, folder)
    reader.fields = {"angle": FIELDS["angle"], "depth": FIELDS["depth"]}
    (item,) = reader.load()
    assert item["annotations"][0]["angle"] == [4, 4, 4, 2, 10] and "attributes" not in item["annotations"][0]
    assert item["depth"] == f"{folder}/depth/a.png" and "camera" not in item
    first, second = [record.message for record in caplog.records]
    assert first.startswith(f"{file}: images have keys that are not used: camera. data.fields declares")
    assert second.startswith(f"{file}: annotations have keys that are not used: attributes. data.fields declares")


class AngleHead(Head):
    needs_fields = {"angle": "rotated_box"}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "is not declared for the dataset fields"),
        ({"angle": FieldSection(geometry="scalar")}, "is declared with the geometry scalar for the dataset fields"),
    ],
)
def test_a_component_that_asks_for_a_field_names_it(fields, reason):
    with pytest.raises(RecipeError) as caught:
        check_needs([AngleHead()], metadata_of(fields))
    assert f"AngleHead needs the field 'angle' with the geometry rotated_box, which {reason}" in str(caught.value)
    assert "data.fields.angle: {geometry: rotated_box}" in str(caught.value)
    check_needs([AngleHead(), torch.nn.ReLU()], metadata_of())


def test_evaluators_ask_too(dicts):
    class Angles(Evaluator):
        needs_fields = {"angle": "rotated_box"}

    EVALUATORS.register(Angles)
    try:
        recipe = load_recipe("retinanet:retinanet_shapes_quick", ["evaluate.evaluators=[Angles]"])
        with pytest.raises(RecipeError, match=r"evaluator Angles needs the field 'angle'"):
            build_evaluators(recipe, Dataset(dicts, Metadata("d").set(thing_classes=["thing"])), None)
    finally:
        EVALUATORS._obj_map.pop("Angles")


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ({"geometry": "quad"}, 'data.fields.x.geometry is "quad", expected "box" or "rotated_box" or "points"'),
        ({}, "data.fields.x.geometry is missing"),
        ({"geometry": "points"}, "data.fields.x.size is missing, expected the number of points"),
        ({"geometry": "box", "size": 3}, "data.fields.x.size is 3, but it is for points, scalar; the geometry is box"),
        ({"geometry": "dense_map", "of": "instance"}, "a dense_map is of the whole image"),
        ({"geometry": "points", "size": 2, "mirror": [[0, 2]]}, "has the pair [0, 2], expected numbers from 0 to 1"),
        ({"geometry": "scalar", "integer": True, "missing": 0.5}, "data.fields.x.missing is 0.5, expected a whole"),
        ({"geometry": "box", "missing": -1}, "data.fields.x.missing is -1.0, expected nan: transforms would move"),
        ({"geometry": "points", "size": 3, "mirror": [[0, 1], [1, 2]]}, "expected each point in one pair at most"),
        ({"geometry": "box", "key": "bbox"}, "data.fields.x.key is 'bbox', which is read already"),
        ({"geometry": "scalar", "tpye": 1}, "data.fields.x.tpye: section data.fields.x has no such key"),
    ],
)
def test_a_wrong_declaration_is_a_recipe_error_with_its_line(tmp_path, field, text):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"_base_: retinanet:retinanet_shapes_quick\ndata:\n  fields: {{x: {json.dumps(field)}}}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(recipe))
    assert text in str(caught.value) and "r.yaml:3" in str(caught.value)


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


@pytest.mark.parametrize(
    ("fields", "transform", "reason"),
    [
        ({"a": {"geometry": "rotated_box"}}, {"name": "ElasticDeform"}, "a rotated box that is bent"),
        ({"a": {"geometry": "rotated_box"}}, {"name": "RandomAffine", "perspective": 0.001}, "seen in perspective"),
        ({"a": {"geometry": "points", "size": 2}}, {"name": "RandomFlip"}, "which points change places is not known"),
        ({"a": {"geometry": "scalar", "of": "image"}}, {"name": "Mosaic"}, "it belongs to the whole image"),
        ({"a": {"geometry": "dense_map"}}, {"name": "MixUp"}, "have no mean that is true of either"),
    ],
)
def test_a_transform_that_cannot_take_a_field_along_is_named_before_the_start(dicts, fields, transform, reason):
    recipe = load_recipe("retinanet:retinanet_shapes_quick", [f"data.train_transforms=[{json.dumps(transform)}]"])
    dataset = Dataset(dicts, Metadata("m").set(thing_classes=["thing"], extra_fields=fields))
    with pytest.raises(RecipeError) as caught:
        build_mapper(recipe, dataset, training=True)
    assert f"transform {transform['name']} cannot take along the field 'a'" in str(caught.value)
    assert reason in str(caught.value)
    build_mapper(recipe, Dataset(dicts, Metadata("n").set(thing_classes=["thing"])), training=True)


def test_to_evaluate_needs_no_ground_truth_in_the_fields(dicts):
    for item in dicts:
        item["annotations"] = [{k: v for k, v in one.items() if k != "angle"} for one in item["annotations"]]
    DatasetCatalog.register("no truth", lambda: dicts)
    MetadataCatalog.get("no truth").set(thing_classes=["thing"])
    assert len(load_dataset("no truth", fields={"angle": FIELDS["angle"]}, truth=False)) == 2
    with pytest.raises(DataError, match="'angle' is missing"):
        load_dataset("no truth", fields={"angle": FIELDS["angle"]})


def test_a_key_that_no_annotation_has_is_said(dicts, caplog):
    declared(dicts, {"track": FieldSection(geometry="scalar", key="trackid", missing=-1)}, "slip")
    assert "no annotation has 'trackid', which the field track stands for" in caplog.text


def test_registered_coco_files_keep_what_a_recipe_may_declare(coco_folder):
    file, folder = coco_folder(
        {"a.png": (16, 16)}, [{"image_id": 1, "category_id": 1, "bbox": [2, 2, 4, 4], "track": 3}]
    )
    register_coco_instances("kept coco", {}, file, folder)
    dataset = load_dataset("kept coco", fields={"track": FieldSection(geometry="scalar")})
    assert dataset[0]["annotations"][0]["track"] == 3


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


def test_usual_names_cannot_be_declared_and_recipes_keep_their_fields():
    with pytest.raises(RecipeError, match="has a field called 'keypoints', expected"):
        load_recipe("retinanet:retinanet_shapes_quick", ["data.fields={keypoints: {geometry: points, size: 1}}"])
    recipe = recipe_of(FIELDS)
    assert recipe == recipe_of(FIELDS) and recipe.data.fields["head"].missing == "nan"
    assert recipe.to_dict()["data"]["fields"]["ends"] == {"geometry": "points", "size": 2, "mirror": [[0, 1]]}
    assert recipe.data.fields["track"] == FIELDS["track"] and HEADS is not None
