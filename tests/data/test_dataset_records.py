"""Whatever makes a dataset's records, they are checked where they are packed, in the words of COCO's reader."""

import json
from pathlib import Path

import numpy as np
import pytest

from vertebra.config import ComponentSpec
from vertebra.data import Dataset, DatasetCatalog, Format, Metadata, MetadataCatalog, load_dataset
from vertebra.data.coco.instances import CocoFormat, register_coco_instances
from vertebra.data.coco.panoptic_format import CocoPanopticFormat
from vertebra.data.match_classes import match_classes
from vertebra.errors import DataError
from vertebra.registry import REGISTRIES
from vertebra.structures import BoxMode

RLE = {"size": [8, 9], "counts": [0, 4, 68]}


def annotation(**changes):
    whole = {"bbox": [1, 1, 4, 5], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 1, "iscrowd": 0, **changes}
    return {key: value for key, value in whole.items() if value is not ...}


def record(*annotations, **changes):
    whole = {"file_name": "a.png", "image_id": 1, "height": 8, "width": 9, "annotations": list(annotations), **changes}
    return {key: value for key, value in whole.items() if value is not ...}


def metadata(**facts):
    names = {"thing_classes": ["cat", "dog"], "stuff_classes": ["sky"], "keypoint_names": ["head", "tail"]}
    return Metadata("zoo").set(**{**names, **facts})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"category_id": 2}, r"category_id is 2, expected 0 to 1 \(thing_classes has 2\)"),
        ({"category_id": -1}, "category_id is -1, expected 0 to 1"),
        ({"category_id": True}, "category_id is True, expected 0 to 1"),
        ({"category_id": "cat"}, "category_id is 'cat', expected 0 to 1"),
        ({"category_id": ...}, "category_id is missing"),
        ({"bbox": ...}, "bbox is missing, expected 4 numbers x0, y0, x1, y1"),
        ({"bbox": [1, 2, 3]}, r"bbox is \[1, 2, 3\], expected 4 numbers"),
        ({"bbox": [1, 2, 3, "4"]}, "expected 4 numbers"),
        ({"bbox": 7}, "bbox is 7, expected 4 numbers"),
        ({"bbox": [1, 2, 3, float("nan")]}, r"bbox \[1, 2, 3, nan\] is not finite"),
        ({"bbox": [1, 2, 3, 10**400]}, "is not finite"),
        ({"bbox": [5, 2, 3, 4]}, r"negative width or height; x1, y1 must be the lower right corner .*XYWH_ABS"),
        ({"bbox": [5, 2, 5, 4]}, "has a width or height of 0; drop the annotation"),
        (
            {"bbox": [5, 2, 3, -4], "bbox_mode": BoxMode.XYWH_ABS, "iscrowd": 1},
            "negative width or height; x, y must be",
        ),
        ({"bbox": [0.5, 0.1, 0.2, 0.3], "bbox_mode": BoxMode.XYXY_REL}, "negative width or height"),
        ({"bbox": [5, 2, 3, 4], "bbox_mode": BoxMode.XYWHA_ABS}, "expected 5 numbers center x, center y, w, h, angle"),
        ({"bbox": [5, 2, 3, -4, 30], "bbox_mode": BoxMode.XYWHA_ABS}, "negative width or height"),
        ({"bbox_mode": ...}, "bbox_mode is None, expected one of BoxMode"),
        ({"bbox_mode": 9}, "bbox_mode is 9, expected one of BoxMode"),
        ({"iscrowd": 2}, "iscrowd is 2, expected 0 or 1"),
        ({"segmentation": [[1, 1, 2, 2]]}, "segmentation: polygon 0 has 2 points; a polygon needs at least 3"),
        ({"segmentation": {**RLE, "size": [9, 8]}}, r"segmentation has size \[9, 8\], its image \[8, 9\]"),
        ({"segmentation": {**RLE, "counts": [0, 4]}}, "segmentation has runs over 4 pixels, its image has 72"),
        ({"segmentation": np.zeros((8, 9))}, "segmentation is neither a list of polygons nor a run length mask"),
        ({"keypoints": [1, 1, 2]}, "keypoints must be 6 numbers"),
        ({"keypoints": [1, 1, 2, 3, 3, 7]}, r"keypoint visibilities \[2, 7\], expected 0, 1 or 2"),
        ({"keypoints": [1, 1, 2, 3, float("inf"), 0]}, "keypoints have a value that is not a finite number"),
    ],
)
def test_a_faulty_annotation_is_named_with_its_image(changes, says):
    with pytest.raises(DataError, match=rf"dataset zoo: a\.png: annotation 1: (bbox .*)?{says}"):
        Dataset([record(annotation(), annotation(**changes))], metadata())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"file_name": ...}, "entry 1: has no file_name"),
        ({"file_name": None}, "entry 1: file_name is None, expected the path of a file as text"),
        ({"file_name": "https://x.org/a.png"}, "entry 1: file_name 'https://x.org/a.png' is a URL"),
        ({"sem_seg_file_name": 3}, r"a\.png: sem_seg_file_name is 3, expected the path of a file"),
        ({"height": 0}, r"a\.png: height and width are 0 and 9, expected whole numbers above 0"),
        ({"width": ...}, "height and width are 8 and None, expected whole numbers"),
        ({"width": 9.0}, "height and width are 8 and 9.0, expected whole numbers"),
        ({"annotations": {"bbox": 1}}, r"a\.png: annotations is \{'bbox': 1\}, expected a list of dicts"),
        (
            {"segments_info": [{"id": 0, "category_id": 0, "isthing": True}]},
            "segment 0: id is 0, expected a whole number",
        ),
        (
            {"segments_info": [{"id": 5, "category_id": 0}]},
            "segment 5: isthing is missing, expected true, false, 0 or 1",
        ),
        (
            {"segments_info": [{"id": 5, "category_id": 2, "isthing": True}]},
            r"segment 5: category_id is 2, expected 0 to 1 \(thing_classes has 2\)",
        ),
        (
            {"segments_info": [{"id": 5, "category_id": 1, "isthing": False}]},
            r"segment 5: category_id is 1, expected 0 to 0 \(stuff_classes has 1\)",
        ),
        (
            {"segments_info": [{"id": 5, "category_id": 0, "isthing": thing} for thing in (True, False)]},
            "segment 5: another segment of the image has this id",
        ),
    ],
)
def test_a_faulty_record_is_named(changes, says):
    with pytest.raises(DataError, match=rf"dataset zoo: .*{says}"):
        Dataset([record(), record(annotation(), **changes)], metadata())


def test_an_entry_that_is_not_a_dict_is_named():
    with pytest.raises(DataError, match=r"dataset zoo: entry 0: is 'a\.png', expected a dict"):
        Dataset(["a.png"], metadata())


def test_right_records_of_any_form_pass_and_stay_as_they_are():
    right = [
        record(annotation(bbox=(1, 1, 4, 5), area="odd"), annotation(bbox=np.array([1.0, 1, 4, 5], np.float32))),
        record(annotation(category_id=np.int64(1), iscrowd=True, segmentation=RLE), height=np.int64(8)),
        record(annotation(bbox=[4, 4, 2, 3, 30.0], bbox_mode=4, keypoints=[1.5, 1, 2, 0, 0, 0], segmentation=[])),
        record(annotation(segmentation=RLE), height=..., width=...),
        record(annotations=None, sem_seg_file_name="a_labels.png"),
        {"file_name": "b.png", "segments_info": [{"id": 9, "category_id": 0, "isthing": 0}]},
    ]
    dataset = Dataset(right, metadata())
    assert len(dataset) == 6 and dataset[0]["annotations"][0]["area"] == "odd"


def test_without_names_every_class_number_passes_and_keypoints_come_in_threes():
    nameless = Metadata("bare")
    assert len(Dataset([record(annotation(category_id=700, keypoints=[1, 1, 2]))], nameless)) == 1
    with pytest.raises(DataError, match=r"category_id is -1, expected 0 to K-1 \(thing_classes has not been set\)"):
        Dataset([record(annotation(category_id=-1))], nameless)
    with pytest.raises(DataError, match="keypoints must be numbers: x, y and visibility"):
        Dataset([record(annotation(keypoints=[1, 1]))], nameless)


def test_all_faults_come_in_one_error_the_first_twenty_of_them_listed():
    records = [record(annotation(category_id=5), file_name=f"{i}.png") for i in range(23)]
    with pytest.raises(DataError, match=r"(?s)dataset zoo: 23 faults:\n  0\.png.*  19\.png.*\n  \.\.\. and 3 more$"):
        Dataset(records, metadata())


@pytest.mark.parametrize(
    "changes",
    [
        {"bbox": [1, 2, 3]},
        {"bbox": [1, 2, -3, 4]},
        {"bbox": None},
        {"bbox": [1, 2, float("inf"), 4]},
        {"segmentation": [[1, 1, 2, 2]]},
        {"segmentation": {"size": [1, 1], "counts": [1]}},
        {"iscrowd": 7},
    ],
)
def test_coco_has_the_same_words(coco_folder, changes):
    faulty = {"bbox": [1, 1, 4, 5], **changes}
    file, images = coco_folder({"a.png": (8, 9)}, [{"image_id": 1, "category_id": 1, **faulty}])
    with pytest.raises(DataError) as of_coco:
        CocoFormat(file, images).load()
    with pytest.raises(DataError) as of_dicts:
        Dataset([record(annotation(bbox_mode=BoxMode.XYWH_ABS, **faulty))], metadata())
    assert str(of_coco.value).partition("'a.png'): ")[2] == str(of_dicts.value).partition("annotation 0: ")[2] != ""


# Where records come from


@pytest.fixture
def strangers(tmp_path, monkeypatch):
    """Registers a format `Strange` and a name `strange` that give these records; a.png is there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").touch()
    kept = {kind: dict(registry._obj_map) for kind, registry in REGISTRIES.items()}

    def register(records, **facts):
        class Strange(Format):
            def load(self, root=None):
                return Dataset(records, metadata(**facts))

        REGISTRIES["format"].register(Strange)
        DatasetCatalog.register("strange", lambda: records)
        MetadataCatalog.get("strange").set(thing_classes=["cat", "dog"], **facts)
        return [ComponentSpec("format", "Strange"), "strange"]

    yield register
    for kind, registry in REGISTRIES.items():
        registry._obj_map = kept[kind]
    DatasetCatalog.remove("strange")
    MetadataCatalog.remove("strange")


@pytest.mark.parametrize("which", [0, 1])
def test_a_strangers_records_are_checked(strangers, which):
    spec = strangers([record(annotation(category_id=2))])[which]
    with pytest.raises(DataError, match=r"a\.png: annotation 0: category_id is 2, expected 0 to 1"):
        load_dataset(spec)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("key", ["file_name", "sem_seg_file_name", "pan_seg_file_name"])
def test_a_strangers_files_are_looked_for(strangers, which, key):
    spec = strangers([record(), record(**{key: "folder/b.png"})])[which]
    with pytest.raises(DataError, match=rf"folder/b\.png: a record names it \({key}\), but there is no such file"):
        load_dataset(spec)


@pytest.mark.parametrize("which", [0, 1])
def test_a_strangers_images_may_be_left_to_the_loader(strangers, which):
    spec = strangers([record(file_name="b.png")], missing_images="leave")[which]
    assert len(load_dataset(spec)) == 1


def test_a_dataset_made_by_hand_needs_no_files():
    dataset = Dataset([record(file_name="nowhere.png")], metadata())
    with pytest.raises(DataError, match=r"nowhere\.png: a record names it"):
        dataset.check_files()


def test_a_coco_file_registered_by_name_is_checked_with_its_files(coco_folder, strangers):
    file, images = coco_folder({"a.png": (8, 9)}, [(1, 1, [1, 1, 3, 3])])
    (Path(images) / "a.png").rename(Path(images) / "b.png")
    register_coco_instances("zoo_train", {}, file, images)
    strangers([])
    try:
        with pytest.raises(DataError, match=r"data\.json.*a\.png: a record names it"):
            load_dataset("zoo_train")
    finally:
        DatasetCatalog.remove("zoo_train")
        MetadataCatalog.remove("zoo_train")


def test_segments_are_objects_where_classes_are_matched():
    """A class that only panoptic segments have cannot be dropped as one without objects, except by choice."""
    segments = [{"id": 4, "category_id": 1, "isthing": True}, {"id": 5, "category_id": 0, "isthing": True}]
    dataset = Dataset([record(segments_info=segments)], metadata(keypoint_names=[]))
    with pytest.raises(DataError, match="dog of the dataset cannot be matched by name"):
        match_classes(dataset, Metadata("model").set(thing_classes=["cat"]))
    matched = match_classes(dataset, Metadata("model").set(thing_classes=["cat"], dropped_classes=["dog"]))
    assert matched[0]["segments_info"] == [segments[1]]


def test_panoptic_files_have_their_boxes_checked_and_empty_ones_dropped(tmp_path, caplog):
    (tmp_path / "a.png").touch()

    def load(box):
        segment = {"id": 7, "category_id": 1, "iscrowd": 0, "area": 3, "bbox": box}
        (tmp_path / "panoptic.json").write_text(
            json.dumps(
                {
                    "images": [{"id": 1, "file_name": "a.png", "height": 8, "width": 9}],
                    "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": [segment]}],
                    "categories": [{"id": 1, "name": "cat", "isthing": 1}, {"id": 2, "name": "sky", "isthing": 0}],
                }
            )
        )
        return CocoPanopticFormat("panoptic.json", ".", panoptic_images=".").load(str(tmp_path))

    assert len(load([1, 1, 3, 3])[0]["annotations"]) == 1
    empty = load([1, 1, 3, 0])
    assert empty[0]["annotations"] == [] and len(empty[0]["segments_info"]) == 1
    assert "boxes without area, dropped: 1" in caplog.text
    with pytest.raises(DataError, match=r"panoptic\.json\): .*a\.png: annotation 0: bbox .* negative width or height"):
        load([1, 1, -3, 3])
