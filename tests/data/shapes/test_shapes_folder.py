"""The folder that `ShapesFormat.write` makes: COCO tools load it, and all its labels say the same of each pixel."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from vertebra.data.shapes.format import ShapesFormat
from vertebra.errors import DataError

IMAGES, CLASSES = 60, 7


def make_shapes(folder, **arguments):
    ShapesFormat(**arguments).write(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sixty pictures of varying size with every outline, many objects and many crowds."""
    target = tmp_path_factory.mktemp("shapes") / "set"
    return make_shapes(
        target, images=IMAGES, val_images=6, seed=3, size="64-96x80-128", num_classes=CLASSES, max_objects=9, crowds=0.4
    )


@pytest.fixture(scope="module")
def coco(folder):
    return COCO(folder / "annotations" / "keypoints_train.json")


def _read(path):
    return np.asarray(Image.open(path))


def _panoptic(folder, split="train"):
    """Image id -> (ids (H, W), segments)."""
    data = json.loads((folder / "annotations" / f"panoptic_{split}.json").read_text())
    found = {}
    for record in data["annotations"]:
        colors = _read(folder / "panoptic" / split / record["file_name"]).astype(np.int64)
        found[record["image_id"]] = (colors @ (1, 256, 65536), record["segments_info"])
    return found


def _digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_every_picture_has_its_file_in_the_size_that_the_json_says(folder, coco):
    sizes = set()
    for image in coco.imgs.values():
        picture = Image.open(folder / "images" / "train" / image["file_name"])
        assert picture.format == "JPEG" and picture.mode == "RGB"
        assert picture.size == (image["width"], image["height"])
        sizes.add(picture.size)
    assert len(coco.imgs) == len(list((folder / "images" / "train").iterdir())) == IMAGES
    assert len(sizes) > 10
    assert all(80 <= width <= 128 and 64 <= height <= 96 for width, height in sizes)


def test_boxes_and_areas_are_those_of_the_masks_and_lie_in_the_frame(coco):
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation)
        assert mask.sum() == annotation["area"] > 0
        ys, xs = np.nonzero(mask)
        assert annotation["bbox"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]


def test_masks_of_one_picture_do_not_overlap_and_are_the_panoptic_things(folder, coco):
    for image_id, (ids, segments) in _panoptic(folder).items():
        annotations = coco.imgToAnns[image_id]
        masks = np.array([coco.annToMask(a) for a in annotations]).reshape(-1, *ids.shape)
        assert masks.sum(axis=0).max(initial=0) <= 1
        things = [segment for segment in segments if segment["category_id"] <= CLASSES]
        assert [s["category_id"] for s in things] == [a["category_id"] for a in annotations]
        assert [s["iscrowd"] for s in things] == [a["iscrowd"] for a in annotations]
        for segment, mask, annotation in zip(things, masks, annotations, strict=True):
            np.testing.assert_array_equal(ids == segment["id"], mask)
            assert segment["bbox"] == annotation["bbox"]


def test_panoptic_segments_are_exactly_the_ids_of_the_png(folder):
    for ids, segments in _panoptic(folder).values():
        counted = dict(zip(*np.unique(ids, return_counts=True), strict=True))
        counted.pop(0, None)  # void
        assert counted == {segment["id"]: segment["area"] for segment in segments}


def test_semantic_labels_are_the_panoptic_categories_with_crowds_and_void_left_out(folder):
    for image_id, (ids, segments) in _panoptic(folder).items():
        expected = np.full(ids.shape, 255)
        for segment in segments:
            if not segment["iscrowd"]:
                expected[ids == segment["id"]] = segment["category_id"] - 1
        semantic = folder / "semantic" / "train" / f"{image_id:07d}.png"
        np.testing.assert_array_equal(_read(semantic), expected)


def test_all_kinds_of_labels_occur(coco):
    annotations = list(coco.anns.values())
    objects = [a for a in annotations if not a["iscrowd"]]
    assert {type(a["segmentation"]["counts"]) for a in annotations if a["iscrowd"]} == {list}
    assert any(isinstance(a["segmentation"], dict) and isinstance(a["segmentation"]["counts"], str) for a in objects)
    assert any(isinstance(a["segmentation"], list) and len(a["segmentation"]) > 1 for a in objects)
    assert {v for a in objects for v in a["keypoints"][2::3]} == {0, 1, 2}
    assert {a["category_id"] for a in objects} == set(range(1, CLASSES + 1))


def test_polygons_stay_in_the_frame(coco):
    for annotation in coco.anns.values():
        if isinstance(annotation["segmentation"], list):
            image = coco.imgs[annotation["image_id"]]
            for polygon in annotation["segmentation"]:
                points = np.reshape(polygon, (-1, 2))
                assert len(points) >= 3
                assert (points >= 0).all() and (points <= (image["width"], image["height"])).all()


def test_keypoints_are_pixels_of_the_picture_and_counted(coco):
    for annotation in coco.anns.values():
        image = coco.imgs[annotation["image_id"]]
        keypoints = np.reshape(annotation["keypoints"], (5, 3))
        labeled = keypoints[:, 2] > 0
        assert annotation["num_keypoints"] == labeled.sum()
        assert (keypoints[~labeled] == 0).all()
        assert (keypoints[:, :2] >= 0).all() and (keypoints[:, :2] < (image["width"], image["height"])).all()
        assert not (annotation["iscrowd"] and labeled.any())


def test_keypoint_behind_another_object_is_marked_so(coco):
    hidden = 0
    for of_image in coco.imgToAnns.values():
        masks = {a["id"]: coco.annToMask(a) for a in of_image}
        for annotation in of_image:
            for x, y, visibility in np.reshape(annotation["keypoints"], (5, 3)):
                owners = [key for key, mask in masks.items() if visibility and mask[y, x]]
                if visibility == 1:  # something nearer, so later in the list, is there
                    hidden += 1
                    assert owners and owners[0] > annotation["id"]
                elif visibility == 2:
                    assert all(owner <= annotation["id"] for owner in owners)
    assert hidden > 5


def test_same_arguments_give_the_same_bytes(tmp_path):
    first = make_shapes(tmp_path / "one", images=9, seed=1, size=(40, 56))
    second = make_shapes(tmp_path / "two", images=9, seed=1, size="40x56")
    assert len(_digest(first)) == 3 * 10 + 6 + 1  # pictures and two maps each, JSON files, manifest
    assert _digest(first) == _digest(second)


def test_more_pictures_begin_with_the_same_ones(tmp_path):
    few = _digest(make_shapes(tmp_path / "few", images=3, seed=1, size=48) / "images" / "train")
    many = _digest(make_shapes(tmp_path / "many", images=6, seed=1, size=48) / "images" / "train")
    assert few.items() < many.items()


def test_seeds_and_splits_differ(tmp_path):
    one = _digest(make_shapes(tmp_path / "one", images=4, val_images=4, seed=1, size=48) / "images")
    two = _digest(make_shapes(tmp_path / "two", images=4, val_images=4, seed=2, size=48) / "images")
    assert len({*one.values(), *two.values()}) == 16


def test_folder_with_other_files_is_not_touched(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="holds other files; name a new or empty folder"):
        make_shapes(tmp_path, images=2)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_empty_folder_is_filled_and_a_file_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    make_shapes(tmp_path / "empty", images=1, size=48)
    with pytest.raises(DataError, match="holds other files"):
        make_shapes(tmp_path / "empty", images=1, size=48)
    assert (tmp_path / "empty" / "shapes.json").is_file()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file; name a new or empty folder"):
        make_shapes(tmp_path / "file", images=1)


def test_full_disk_says_so_and_leaves_nothing_behind(tmp_path, monkeypatch):
    def no_space(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("PIL.Image.Image.save", no_space)
    with pytest.raises(DataError, match=r"(?s)No space left on device.*Free some space"):
        make_shapes(tmp_path / "set", images=2)
    assert list(tmp_path.iterdir()) == []


def test_a_path_through_a_file_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"shapes: cannot .*Not a directory"):
        make_shapes(tmp_path / "file" / "set", images=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": 0}, "images is 0, expected 1 to"),
        ({"val_images": -1}, "val_images is -1"),
        ({"seed": -1}, "seed is -1, expected 0 to"),
        ({"size": "big"}, "size is 'big', expected 160, 128x160"),
        ({"size": (16, 160)}, "of 32 to 8192 pixels"),
        ({"size": "90-60x80"}, "size is '90-60x80'"),
        ({"size": (1, 2, 3)}, r"size is \(1, 2, 3\)"),
        ({"size": 10**30}, "size is 1000"),
        ({"num_classes": 0}, "num_classes is 0, expected 1 to 7"),
        ({"num_classes": 8}, "num_classes is 8, expected 1 to 7"),
        ({"num_classes": 2.5}, "num_classes is 2.5, expected 1 to 7"),
        ({"max_objects": 91}, "max_objects is 91, expected 1 to 90"),
        ({"object_size": (0.5, 0.2)}, "object_size is"),
        ({"crowds": 2}, "crowds is 2, expected 0.0 to 1.0"),
        ({"images": "many", "val_images": 3, "seed": "x"}, "(?s)images is 'many'.*seed is 'x'"),
    ],
)
def test_wrong_argument_says_what_was_expected(tmp_path, arguments, message):
    with pytest.raises(DataError, match=message):
        make_shapes(tmp_path / "set", **arguments)
    assert list(tmp_path.iterdir()) == []
