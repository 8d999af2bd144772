"""The oracle (pycocotools) and a maker of small, awkward data sets."""

import contextlib
import copy
import io
import json
import re
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vertebra_eval import pycocotools as dropin
from vertebra_eval.coco import CocoParams, evaluate_columns, read_detections, read_ground_truth

NUM_KEYPOINTS = 5
PYCOCOTOOLS = SimpleNamespace(COCO=COCO, COCOeval=COCOeval)


def reference(gt, dt, task, *, image_ids=None, category_ids=None, **params):
    """pycocotools' COCOeval after evaluate and accumulate; `params` are its own."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(gt)
        truth.createIndex()
        if dt:
            found = truth.loadRes(copy.deepcopy(dt))
        else:  # loadRes cannot read an empty list
            found = COCO()
            found.dataset = {"images": gt["images"], "categories": gt["categories"], "annotations": []}
            found.createIndex()
        tool = COCOeval(truth, found, task)
        if image_ids is not None:
            tool.params.imgIds = list(image_ids)
        if category_ids is not None:
            tool.params.catIds = list(category_ids)
        for name, value in params.items():
            setattr(tool.params, name, value)
        tool.evaluate()
        tool.accumulate()
        with contextlib.suppress(IndexError):  # with fewer than three limits it cannot summarize
            tool.summarize()
    return tool


def ours(gt, dt, task, *, image_ids=None, category_ids=None, **params):
    """The same by `evaluate_columns`; `params` are CocoParams'."""
    truth = read_ground_truth(gt, task, image_ids=image_ids, category_ids=category_ids)
    return evaluate_columns(truth, read_detections(dt, truth, task), task, CocoParams.for_task(task, **params))


def assert_equal(result, tool):
    """The full arrays are equal, to the last bit."""
    for name in ("precision", "recall", "scores"):
        wanted, got = tool.eval[name], getattr(result, name)
        assert got.shape == wanted.shape, name
        assert np.array_equal(got, wanted), f"{name} differs at {np.argwhere(got != wanted)[:3].tolist()}"
    if len(tool.stats):
        assert np.array_equal(result.stats, tool.stats)


def make_set(seed, task, *, images=4, categories=3, per_image=6, crowded=0.2, grid=8, first_id=0, score_levels=4):
    """A random data set full of ties: boxes on a coarse grid, few distinct scores, ids with gaps.

    Some images and categories stay empty; areas are drawn apart from boxes; annotation ids begin at `first_id`.
    """
    rng = np.random.default_rng(seed)
    size = 128
    image_ids = (rng.permutation(images * 3)[:images] + rng.integers(0, 2)).tolist()
    category_ids = (rng.permutation(categories * 2)[:categories] + 1).tolist()
    gt = {
        "images": [{"id": i, "height": size, "width": size} for i in image_ids],
        "categories": [{"id": c, "name": f"c{c}"} for c in category_ids],
        "annotations": [],
    }
    dt = []
    for number in range(rng.integers(0, images * per_image + 1)):
        box = _box(rng, size, grid)
        area = float(rng.choice([box[2] * box[3], 30.0, 32.0**2, 96.0**2, 5000.5]))
        record = {
            "id": first_id + number,
            "image_id": int(rng.choice(image_ids)),
            "category_id": int(rng.choice(category_ids)),
            "bbox": box,
            "area": area,
            "iscrowd": int(rng.random() < crowded),
        }
        gt["annotations"].append(record | _shape(rng, task, box, size, truth=True))
    sources = gt["annotations"] or [None]
    for _ in range(rng.integers(0, 2 * images * per_image + 1)):
        source = sources[rng.integers(len(sources))]
        image, category, box = int(rng.choice(image_ids)), int(rng.choice(category_ids)), _box(rng, size, grid)
        points = None
        if source is not None and rng.random() < 0.7:
            image, box, points = source["image_id"], list(source["bbox"]), source.get("keypoints")
            category = source["category_id"] if rng.random() < 0.9 else category
            if rng.random() < 0.5:
                box[int(rng.integers(4))] += float(rng.choice([0.5, 1.0, 4.0]))
        score = float(rng.integers(0, score_levels)) / score_levels
        record = {"image_id": image, "category_id": category, "score": score}
        shape = _shape(rng, task, box, size, truth=False, points=points)
        dt.append(record | ({"bbox": box} if task == "bbox" else shape))
    return gt, dt


def _box(rng, size, grid):
    x, y = (rng.integers(0, grid, 2) * (size // grid)).tolist()
    w, h = (rng.integers(0, grid + 1, 2) * (size // grid)).tolist()
    return [float(x), float(y), float(min(w, size - x)), float(min(h, size - y))]


def _shape(rng, task, box, size, *, truth, points=None):
    """Segmentation or keypoints of an object or a detection."""
    x, y, w, h = box
    if task == "segm":
        if truth and rng.random() < 0.5:
            return {"segmentation": [[x, y, x, y + h + 1, x + w + 1, y + h + 1, x + w + 1, y]]}
        mask = np.zeros((size, size), np.uint8, order="F")
        mask[int(y) : int(y + h), int(x) : int(x + w)] = 1
        if rng.random() < 0.3:
            mask[:: int(rng.integers(2, 5))] = 0
        if truth and rng.random() < 0.4:  # uncompressed
            flat = mask.reshape(-1, order="F")
            edges = np.flatnonzero(np.diff(flat, prepend=0)).tolist()
            counts = np.diff([0, *edges, len(flat)]).tolist()
            return {"segmentation": {"size": [size, size], "counts": counts}}
        encoded = coco_mask.encode(mask)
        return {"segmentation": {"size": encoded["size"], "counts": encoded["counts"].decode()}}
    if task == "keypoints":
        if points is None:
            points = np.stack(
                [x + rng.random(NUM_KEYPOINTS) * w, y + rng.random(NUM_KEYPOINTS) * h, [2] * NUM_KEYPOINTS], 1
            )
        else:
            points = np.array(points, dtype=float).reshape(-1, 3)
            points[:, :2] += rng.choice([0, 0, 1.5, 6], 2)
        points = np.round(points, int(rng.integers(0, 3)))
        if truth:
            points[:, 2] = rng.choice([0, 1, 2], NUM_KEYPOINTS) * (rng.random() < 0.85)
            number = int(np.count_nonzero(points[:, 2]))
            flat = [int(v) if v == int(v) else v for v in points.reshape(-1).tolist()]
            return {"keypoints": flat, "num_keypoints": number if rng.random() < 0.9 else 0}
        return {"keypoints": points.reshape(-1).tolist()}
    return {}


def load(tools, gt, dt):
    """Ground truth and results, loaded by one package (the drop-in or `PYCOCOTOOLS`) from copies."""
    truth = tools.COCO()
    truth.dataset = copy.deepcopy(gt)
    truth.createIndex()
    if len(dt):
        return truth, truth.loadRes(copy.deepcopy(dt))
    found = tools.COCO()  # loadRes cannot read an empty list
    found.dataset = {"images": gt["images"], "categories": gt["categories"], "annotations": []}
    found.createIndex()
    return truth, found


def run_script(tools, gt, dt, task, **params):
    """What a script does: the COCOeval, and the text it printed without the seconds."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        tool = tools.COCOeval(*load(tools, gt, dt), task)
        for name, value in params.items():
            setattr(tool.params, name, copy.deepcopy(value))
        tool.evaluate()
        tool.accumulate()
        with contextlib.suppress(IndexError):  # with fewer than three limits it cannot summarize
            tool.summarize()
    return tool, re.sub(r"t=\d+\.\d+s", "t=?s", printed.getvalue())


def run_both(gt, dt, task, *, fast=True, **params):
    """The drop-in beside pycocotools, everything a script can read compared; returns both.

    Args:
        fast: the drop-in must do it, or must not do it, without pycocotools' `evaluate`.
    """
    with mock.patch.object(COCOeval, "evaluate", autospec=True, side_effect=COCOeval.evaluate) as slow:
        own, printed = run_script(dropin, gt, dt, task, **params)
    assert slow.called is not fast
    theirs, wanted = run_script(PYCOCOTOOLS, gt, dt, task, **params)
    assert printed == wanted
    assert_same_tools(own, theirs)
    return own, theirs


def assert_same_tools(own, theirs):
    """Everything a script can read of two COCOeval is equal."""
    assert_same_eval(own, theirs)
    assert np.array_equal(own.stats, theirs.stats)
    assert_same_images(own.evalImgs, theirs.evalImgs)
    assert list(own.ious) == list(theirs.ious)
    for key, wanted in theirs.ious.items():
        assert np.array_equal(own.ious[key], wanted, equal_nan=True), key
        assert np.shape(own.ious[key]) == np.shape(wanted), key


def assert_same_eval(own, theirs):
    assert list(own.eval) == list(theirs.eval)
    assert own.eval["counts"] == theirs.eval["counts"]
    assert_same_params(own.eval["params"], theirs.eval["params"])
    assert_same_params(own.params, theirs.params)
    for name in ("precision", "recall", "scores"):
        wanted, got = theirs.eval[name], own.eval[name]
        assert (got.shape, got.dtype) == (wanted.shape, wanted.dtype), name
        assert np.array_equal(got, wanted, equal_nan=True), name


def assert_same_params(own, theirs):
    assert list(vars(own)) == list(vars(theirs))
    for name, wanted in vars(theirs).items():
        np.testing.assert_array_equal(getattr(own, name), wanted, name)


def assert_same_images(own, theirs):
    """Lists of `evalImgs` are equal."""
    assert len(own) == len(theirs)
    for number, (got, wanted) in enumerate(zip(own, theirs, strict=True)):
        assert (got is None) == (wanted is None), number
        for key in wanted or ():
            np.testing.assert_array_equal(got[key], wanted[key], f"{number} {key}")  # NaN equals NaN
            assert np.shape(got[key]) == np.shape(wanted[key]), (number, key)
            assert isinstance(got[key], np.ndarray) == isinstance(wanted[key], np.ndarray), (number, key)
        assert got is None or list(got) == list(wanted)


@pytest.fixture
def scripts():
    """pycocotools and the drop-in side by side."""
    return SimpleNamespace(
        dropin=dropin,
        pycocotools=PYCOCOTOOLS,
        load=load,
        run=run_script,
        run_both=run_both,
        assert_same_tools=assert_same_tools,
        assert_same_eval=assert_same_eval,
        assert_same_images=assert_same_images,
    )


@pytest.fixture
def coco():
    """The helpers of this file, for tests to use."""
    return SimpleNamespace(
        reference=reference, ours=ours, assert_equal=assert_equal, make_set=make_set, num_keypoints=NUM_KEYPOINTS
    )


@pytest.fixture
def sample(shared):
    """Ground truth and results for a task: pycocotools' 100 images of val2014 with fake results."""

    def read(task):
        folder = shared("data/cocoeval_sample/val2014_100")
        return tuple(json.loads((folder / name).read_text()) for name in ("gt_instances.json", f"det_{task}.json"))

    return read


@pytest.fixture
def by_hand_masks(tmp_path):
    """A dataset of one image with one square, and a model's output that has it."""
    import torch

    from vertebra.data import Dataset, Metadata
    from vertebra.structures import Boxes, BoxMode, Instances

    annotation = {"bbox": [5, 5, 45, 45], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "iscrowd": 0}
    annotation["segmentation"] = [[5, 5, 45, 5, 45, 45, 5, 45]]
    record = {
        "file_name": str(tmp_path / "a.png"),
        "image_id": 1,
        "height": 60,
        "width": 60,
        "annotations": [annotation],
    }
    dataset = Dataset([record], Metadata("square").set(thing_classes=["cat"], missing_images="leave"))
    found = Instances((60, 60))
    found.pred_boxes, found.scores = Boxes(torch.tensor([[5.0, 5, 45, 45]])), torch.tensor([0.9])
    found.pred_classes, found.pred_masks = torch.tensor([0]), torch.zeros(1, 60, 60, dtype=torch.bool)
    found.pred_masks[0, 5:45, 5:45] = True
    return dataset, {"instances": found}
