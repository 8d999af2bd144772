"""The format `shapes`: generated into the cache on first use, then read as COCO."""

from __future__ import annotations

from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vertebra.data.shapes.format import ShapesFormat
from vertebra.errors import DataError

SMALL = {"images": 12, "size": 48, "crowds": 0.5, "num_classes": 4}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VERTEBRA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_split_is_made_on_first_use_and_loads_as_dataset_dicts(cache):
    dataset = ShapesFormat(**SMALL).load()
    assert len(dataset) == 12 and len(ShapesFormat(**SMALL, split="val").load()) == 2
    assert dataset.metadata.thing_classes == ["circle", "square", "triangle", "star"]
    assert [path.name for path in cache.iterdir() if path.is_dir()] == [ShapesFormat(**SMALL).folder.name]
    for record in dataset:
        assert Image.open(record["file_name"]).size == (record["width"], record["height"]) == (48, 48)
    annotations = [annotation for record in dataset for annotation in record["annotations"]]
    assert {annotation["category_id"] for annotation in annotations} == {0, 1, 2, 3}
    assert any(annotation.get("iscrowd") for annotation in annotations)
    assert all("segmentation" in a and "keypoints" not in a for a in annotations)


def test_second_use_writes_nothing(cache):
    ShapesFormat(**SMALL).load()
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    ShapesFormat(**SMALL).load()
    assert before == {path: path.stat().st_mtime_ns for path in cache.rglob("*")}


def test_further_labels_are_loaded_on_request():
    dataset = ShapesFormat(**SMALL, labels=["keypoints", "semantic", "panoptic"]).load()
    assert list(dataset.metadata.keypoint_names) == ["center", "top", "right", "bottom", "left"]
    assert dataset.metadata.stuff_classes[-4:] == ["sky", "grass", "sand", "water"]
    assert dataset.metadata.ignore_label == 255
    for record in dataset:
        labels = np.asarray(Image.open(record["sem_seg_file_name"]))
        assert labels.shape == (record["height"], record["width"])
        assert set(np.unique(labels)) <= {*range(8), 255}
        assert Path(record["pan_seg_file_name"]).is_file() and record["segments_info"]
    assert any("keypoints" in a for record in dataset for a in record["annotations"])


def test_other_arguments_have_another_folder_but_splits_share_one():
    base = ShapesFormat(**SMALL).folder
    assert ShapesFormat(**SMALL, split="val").folder == base
    assert ShapesFormat(**SMALL, seed=1).folder != base
    assert ShapesFormat(**{**SMALL, "size": [48, 48]}).folder == base


def test_cache_is_in_the_home_folder_by_default(monkeypatch):
    monkeypatch.delenv("VERTEBRA_CACHE")
    assert ShapesFormat().folder.parent == Path.home() / ".cache" / "vertebra"


def test_those_who_ask_together_make_the_files_once(cache, monkeypatch):
    from vertebra.data.shapes import format as shapes_format

    calls, write = [], shapes_format.write_dataset

    def counted(*arguments):
        calls.append(arguments)
        write(*arguments)

    monkeypatch.setattr(shapes_format, "write_dataset", counted)
    with ThreadPool(4) as pool:  # the lock is on the file, so threads stand for processes
        assert pool.map(lambda _: len(ShapesFormat(**SMALL).load()), range(4)) == [12] * 4
    assert len(calls) == 1
    assert [path.name for path in cache.iterdir() if path.is_dir()] == [ShapesFormat(**SMALL).folder.name]


def test_cache_that_cannot_be_written_says_how_to_fix_it(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VERTEBRA_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"(?s)cannot use the cache.*VERTEBRA_CACHE"):
        ShapesFormat(**SMALL).load()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"split": "test"}, "split is 'test', expected train or val"), ({"labels": ["depth"]}, "labels has depth")],
)
def test_wrong_argument_says_what_was_expected(arguments, message):
    with pytest.raises(DataError, match=message):
        ShapesFormat(**arguments)
