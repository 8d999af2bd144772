"""COCO data, results and panoptic pairs with random faults: read, or refused with a documented error."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fuzzing import bounded, changed, changed_bytes, changed_json
from vertebra.data.coco.instances import CocoFormat
from vertebra.data.coco.panoptic_format import CocoPanopticFormat
from vertebra.errors import DataError
from vertebra.evaluation import coco_evaluate, panoptic_evaluate
from vertebra_eval.evaluate_results import evaluate_result_files

BOX = {"bbox": [10, 10, 20, 20], "area": 400, "iscrowd": 0, "segmentation": [[10, 10, 30, 10, 30, 30]]}
POINTS = {"keypoints": [12, 12, 2, 20, 20, 1], "num_keypoints": 2}
RUNS = {"segmentation": {"size": [40, 60], "counts": [400, 20, 1980]}}
COCO = {
    "info": {"year": 2024},
    "images": [{"id": n, "file_name": f"{n}.png", "width": 60, "height": 40} for n in (1, 2)],
    "categories": [
        {"id": 1, "name": "a", "supercategory": "s", "keypoints": ["left", "right"], "skeleton": [[1, 2]]},
        {"id": 2, "name": "b", "keypoints": ["left", "right"]},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, **BOX, **POINTS},
        {"id": 2, "image_id": 2, "category_id": 2, **BOX, **POINTS, **RUNS},
        {"id": 3, "image_id": 2, "category_id": 1, **BOX, **POINTS, **RUNS, "iscrowd": 1},
    ],
}
RESULTS = [
    {"image_id": 1, "category_id": 1, "score": 0.9, "bbox": [10, 10, 20, 20], **RUNS, "keypoints": POINTS["keypoints"]},
    {"image_id": 2, "category_id": 2, "score": 0.8, "bbox": [9, 9, 20, 20], **RUNS, "keypoints": POINTS["keypoints"]},
]
PANOPTIC = {
    "images": COCO["images"],
    "categories": [{"id": 1, "name": "a", "isthing": 1}, {"id": 2, "name": "b", "isthing": 0, "color": [1, 2, 3]}],
    "annotations": [
        {
            "image_id": n,
            "file_name": f"{n}.png",
            "segments_info": [
                {"id": 1, "category_id": 1, "bbox": [0, 0, 60, 20], "area": 1200, "iscrowd": 0},
                {"id": 2, "category_id": 2, "bbox": [0, 20, 60, 20], "area": 1200, "iscrowd": 0},
            ],
        }
        for n in (1, 2)
    ],
}


pytestmark = pytest.mark.filterwarnings("ignore")  # NumPy warns of huge keypoints


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images, and PNG files of segments 1 and 2 in a folder `panoptic`."""
    folder = tmp_path_factory.mktemp("coco")
    (folder / "panoptic").mkdir()
    ids = np.zeros((40, 60, 3), np.uint8)
    ids[:20, :, 0], ids[20:, :, 0] = 1, 2
    for n in (1, 2):
        Image.new("RGB", (60, 40)).save(folder / f"{n}.png")
        Image.fromarray(ids).save(folder / "panoptic" / f"{n}.png")
    (folder / "truth.json").write_text(json.dumps(COCO))
    (folder / "panoptic.json").write_text(json.dumps(PANOPTIC))
    return folder


@bounded
@given(content=changed_json(COCO))
def test_coco_data(folder, content):
    (folder / "data.json").write_bytes(content)
    try:
        dataset = CocoFormat(annotations=str(folder / "data.json"), images=str(folder)).load(None)
    except DataError as err:
        assert "data.json" in str(err)
        return
    for record in dataset:
        for annotation in record["annotations"]:
            assert len(annotation["bbox"]) == 4 and np.isfinite(np.float64(annotation["bbox"])).all()
            assert 0 <= annotation["category_id"] < len(dataset.metadata.thing_classes)


@bounded
@given(task=st.sampled_from(["bbox", "segm", "keypoints"]), truth=changed_json(COCO), results=changed_json(RESULTS))
@pytest.mark.parametrize("which", ["truth", "results", "both"])
def test_coco_evaluation(folder, which, task, truth, results):
    (folder / "gt.json").write_bytes(truth if which != "results" else json.dumps(COCO).encode())
    (folder / "dt.json").write_bytes(results if which != "truth" else json.dumps(RESULTS).encode())
    try:
        found = evaluate_result_files(folder / "gt.json", folder / "dt.json", task)
    except DataError as err:
        assert "gt.json" in str(err) or "dt.json" in str(err)
        return
    numbers = [value for value in found.metrics.values() if value is not None]
    assert all(-1 < value <= 100 or value == value for value in numbers)


@bounded
@given(content=changed(RESULTS), task=st.sampled_from(["bbox", "segm", "keypoints"]))
def test_coco_results_as_objects(content, task):
    try:
        coco_evaluate(COCO, content, task=task)
    except (DataError, TypeError) as err:  # TypeError: what is given is neither a list nor a path
        assert isinstance(err, DataError) or not isinstance(content, list)


@bounded
@given(content=changed_json(PANOPTIC))
def test_panoptic_data(folder, content):
    (folder / "pan.json").write_bytes(content)
    form = CocoPanopticFormat(str(folder / "pan.json"), str(folder), panoptic_images=str(folder / "panoptic"))
    try:
        dataset = form.load(None)
    except DataError as err:
        assert "pan" in str(err)
        return
    assert all(type(one["category_id"]) is int for record in dataset for one in record["segments_info"])


@bounded
@given(truth=changed_json(PANOPTIC), predicted=changed_json(PANOPTIC))
@pytest.mark.parametrize("which", ["truth", "predicted", "both"])
def test_panoptic_pairs(folder, which, truth, predicted):
    (folder / "gt.json").write_bytes(truth if which != "predicted" else json.dumps(PANOPTIC).encode())
    (folder / "dt.json").write_bytes(predicted if which != "truth" else json.dumps(PANOPTIC).encode())
    pngs = folder / "panoptic"
    try:
        panoptic_evaluate(folder / "gt.json", pngs, folder / "dt.json", pngs, threads=1)
    except DataError as err:
        assert "gt.json" in str(err) or "dt.json" in str(err) or ".png" in str(err)


@bounded
@given(data=st.data())
def test_panoptic_png_files(folder, data):
    (folder / "broken").mkdir(exist_ok=True)
    whole = (folder / "panoptic" / "1.png").read_bytes()
    for n in (1, 2):
        (folder / "broken" / f"{n}.png").write_bytes(data.draw(changed_bytes(whole)))
    truth = folder / "panoptic.json"
    try:
        panoptic_evaluate(truth, folder / "panoptic", truth, folder / "broken", threads=1)
    except DataError as err:
        assert ".png" in str(err)
