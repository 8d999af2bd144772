"""Who declares fields and asks for them: recipes, datasets, components; and what is not used is named."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from field_samples import FIELDS, declared, metadata_of
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
from vertebra.errors import DataError, RecipeError
from vertebra.evaluation.run import build_evaluators


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


def test_a_coco_file_gives_keys_of_images_and_declared_ones_of_annotations_and_names_the_others(coco_folder, caplog):
    more = {"angle": [4, 4, 4, 2, 10], "attributes": {"color": "red"}}
    file, folder = coco_folder({"a.png": (16, 16)}, [{"image_id": 1, "category_id": 1, "bbox": [2, 2, 4, 4], **more}])
    data = json.loads(Path(file).read_text())
    data["images"][0] |= {"depth": "depth/a.png", "camera": 3, "license": 1, "image": "a"}
    Path(file).write_text(json.dumps(data))
    reader = CocoFormat(file, folder)
    reader.fields = {"angle": FIELDS["angle"], "depth": FIELDS["depth"]}
    (item,) = reader.load()
    assert item["annotations"][0]["angle"] == [4, 4, 4, 2, 10] and "attributes" not in item["annotations"][0]
    assert item["depth"] == f"{folder}/depth/a.png" and item["camera"] == 3
    assert "image" not in item and "license" not in item
    first, second = [record.message for record in caplog.records]
    assert first == f"{file}: images have keys that mean something else here and are not used: image. Rename them"
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
        reset = process = evaluate = lambda self, *given: None

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
    data = json.loads(Path(file).read_text())
    data["images"][0] |= {"depth": "depth.npy", "camera": 3, "license": 1}
    Path(file).write_text(json.dumps(data))
    np.save(f"{folder}/depth.npy", np.zeros((16, 16)))
    fields = {"track": FieldSection(geometry="scalar"), "depth": FieldSection(geometry="dense_map")}
    (item,) = load_dataset("kept coco", fields=fields)
    assert item["annotations"][0]["track"] == 3
    assert item["depth"] == f"{folder}/depth.npy" and item["camera"] == 3 and "license" not in item


def test_a_declared_image_that_a_registered_file_does_not_name_is_missing(coco_folder):
    file, folder = coco_folder({"a.png": (16, 16)}, [])
    register_coco_instances("no depth", {"extra_fields": {"depth": {"geometry": "dense_map"}}}, file, folder)
    with pytest.raises(DataError, match=r"a\.png: 'depth' is missing, a declared field of geometry dense_map"):
        load_dataset("no depth")


def test_usual_names_cannot_be_declared_and_recipes_keep_their_fields():
    with pytest.raises(RecipeError, match="has a field called 'keypoints', expected"):
        load_recipe("retinanet:retinanet_shapes_quick", ["data.fields={keypoints: {geometry: points, size: 1}}"])
    recipe = recipe_of(FIELDS)
    assert recipe == recipe_of(FIELDS) and recipe.data.fields["head"].missing == "nan"
    assert recipe.to_dict()["data"]["fields"]["ends"] == {"geometry": "points", "size": 2, "mirror": [[0, 1]]}
    assert recipe.data.fields["track"] == FIELDS["track"] and HEADS is not None
