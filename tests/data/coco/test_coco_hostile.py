"""Each file of the collection of hostile COCO files, with the words a user reads or the outcome that is documented."""

import logging

import pytest

from vertebra.data import CocoFormat, Mapper
from vertebra.errors import DataError
from vertebra_eval.masks import measure_run_lengths, run_length_fault

REFUSED = {
    "duplicate_annotation_ids": r"annotations\[1\]: id 1 is taken",
    "duplicate_category_names": r"categories\[2\] \(id 3\): the name 'RBC' is taken by id 1",
    "duplicate_file_names": r"images\[1\] \(id 2\): file_name 'img1.jpg' stands in images\[0\]",
    "duplicate_image_ids": r"images\[1\]: id 1 is taken",
    "duplicate_image_ids_only": r"images\[2\]: id 1 is taken",
    "duplicate_keys": r"'annotations' occurs twice",
    "empty_file": r"the file is empty",
    "huge_ids": r"images\[0\]: id 9223372036854775819 does not fit",
    "image_file_missing": r"images/does_not_exist.jpg.*no such file",
    "infinite_box": r"annotations\[1\] .*bbox \[60, 40, inf, 45\] is not finite",
    "missing_annotations_key": r'the key "annotations" is missing',
    "missing_bbox": r"annotations\[1\] .*bbox is missing",
    "missing_categories_key": r'the key "categories" is missing',
    "missing_category_id": r"annotations\[1\] .*category_id is missing",
    "missing_file_name": r"images\[0\] \(id 1\): file_name is None",
    "missing_images_key": r'the key "images" is missing',
    "missing_width_height": r"images\[0\] \(id 1\): height and width are None and None",
    "nan_box": r"annotations\[1\] .*bbox \[nan, 40, 50, 45\] is not finite",
    "nan_polygon": r"annotations\[1\] .*polygon 0 has a coordinate that is not finite",
    "negative_box": r"annotations\[1\] .*negative width or height",
    "non_utf8": r"line 32, column 21: byte 0xCB is not UTF-8",
    "null_fields": r"(?s)annotations\[1\] .*category_id is missing.*annotations\[1\] .*bbox is missing",
    "odd_polygon": r"annotations\[1\] .*polygon 0 has 7 numbers",
    "one_point_polygon": r"annotations\[1\] .*polygon 0 has 1 points",
    "path_absolute": r"images\[1\] \(id 2\): file_name '/etc/passwd' is an absolute path",
    "path_traversal": r"images\[1\] .*'../../etc/passwd' leaves the image folder",
    "path_traversal_deep": r"images\[1\] .*leaves the image folder",
    "path_traversal_existing": r"images\[1\] .*'../../images/ok.jpg' leaves the image folder",
    "path_url": r"images\[1\] .*is a URL",
    "rle_garbage_string": r"annotations\[1\] .*not a compressed run length string",
    "rle_too_long": r"annotations\[1\] .*runs over 1000105 pixels, its image has 19200",
    "rle_wrong_size": r"annotations\[1\] .*size \[60, 80\], its image \[120, 160\]",
    "rle_wrong_total": r"annotations\[1\] .*runs over 250 pixels",
    "root_is_list": r"the root is a list, as in a file of detections",
    "string_numbers": r"(?s)category_id .2. .*; the ids are numbers: write 2.*bbox is \['60', '40', '50', '45'\]",
    "three_number_box": r"annotations\[1\] .*expected 4 numbers",
    "trailing_comma": r"line 143, column 1",
    "truncated": r"line 64, column 6",
    "two_point_polygon": r"annotations\[1\] .*polygon 0 has 2 points",
    "unknown_category": r"annotations\[1\] .*category_id 77 is not among",
    "unknown_image": r"annotations\[1\] .*image_id 999 is not among the images",
    "utf16": r"line 1, column 1: the text is UTF-16",
    "xyxy_boxes": r"4 boxes fit their masks or areas only as x1, y1, x2, y2",
}
LOADED = {  # name: (annotations of each image, words in the log)
    "all_crowd": ([2, 2], "4 of 4 objects are crowd regions"),
    "empty_polygon": ([2, 2], ""),
    "annotation_id_zero": ([2, 2], ""),
    "category_id_zero": ([2, 2], ""),
    "category_ids_sparse": ([2, 2], ""),
    "empty_segmentation": ([2, 2], ""),
    "fully_outside_box": ([1, 2], "boxes outside their image, dropped: 1"),
    "image_without_annotations": ([2, 0], ""),
    "missing_area_iscrowd": ([2, 2], ""),
    "negative_origin_box": ([2, 2], "by a pixel or more, cut: 1"),
    "no_annotations": ([0, 0], ""),
    "no_images": ([], ""),
    "out_of_range_box": ([2, 2], "by a pixel or more, cut: 1"),
    "utf8_bom": ([2, 2], ""),
    "valid": ([2, 2], ""),
    "zero_area_box": ([1, 2], "boxes without area, dropped: 1"),
}
FOUND_LATER = {  # when the image is read
    "swapped_declared_size": r"img1.jpg: the annotations declare 120x160.*the file has 160x120 \(height and width are",
    "wrong_declared_size": r"img1.jpg: the annotations declare 640x480 pixels .*, the file has 160x120",
}


def load(shared, name):
    folder = shared("data/bad/coco")
    return CocoFormat(str(folder / f"{name}.json"), str(folder / "images")).load()


def test_every_file_of_the_collection_is_in_one_of_the_tables(shared):
    names = {path.stem for path in shared("data/bad/coco").glob("*.json")}
    assert names == REFUSED.keys() | LOADED.keys() | FOUND_LATER.keys()


@pytest.mark.parametrize("name", REFUSED)
def test_a_faulty_file_is_refused_with_file_and_record(shared, name):
    with pytest.raises(DataError, match=REFUSED[name]) as caught:
        load(shared, name)
    assert f"{name}.json" in str(caught.value)


@pytest.mark.parametrize("name", LOADED)
def test_a_legal_file_is_loaded(shared, name, caplog):
    counts, words = LOADED[name]
    with caplog.at_level(logging.WARNING):
        dataset = load(shared, name)
    assert [len(item["annotations"]) for item in dataset] == counts
    assert words in caplog.text
    assert bool(words) == bool(caplog.records)


@pytest.mark.parametrize("name", FOUND_LATER)
def test_a_wrong_declared_size_is_found_when_the_image_is_read(shared, name):
    dataset = load(shared, name)
    mapper = Mapper([], training=True)
    with pytest.raises(DataError, match=FOUND_LATER[name]):
        mapper(dataset[0])
    assert mapper(dataset[1])["image"].shape == (3, 120, 160)


def test_compressed_run_lengths_are_decoded_as_pycocotools_does(shared):
    import json

    from pycocotools import mask as coco_mask

    data = json.loads(shared("data/nuclei/val.json").read_text())
    for record in data["annotations"][:200]:
        rle = record["segmentation"]
        mask = coco_mask.decode(rle)
        covered, area, faults = measure_run_lengths([rle["counts"]])
        assert (covered.tolist(), area.tolist(), faults.tolist()) == ([mask.size], [mask.sum()], [0])
        assert run_length_fault(rle, rle["size"]) is None


@pytest.mark.parametrize(
    ("rle", "words"),
    [
        ([1, 2], "neither"),
        ({"size": None, "counts": "0"}, "size None"),
        ({"size": [2, 3], "counts": [7, -1]}, "negative"),
        ({"size": [2, 3], "counts": [1.5, 4.5]}, "neither a string nor"),
        ({"size": [2, 3], "counts": "PPPPPPPPP0"}, "longer than any image"),
        ({"size": [2, 3], "counts": "P"}, "ends inside a run"),
        ({"size": [2, 3], "counts": ""}, "runs over 0 pixels"),
    ],
)
def test_broken_run_lengths_are_told_apart(rle, words):
    assert words in run_length_fault(rle, (2, 3))
