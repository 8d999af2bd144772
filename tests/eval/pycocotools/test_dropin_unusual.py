"""What the drop-in leaves to pycocotools' own code: the same numbers, or the same error and printed lines."""

import contextlib
import io
import re

import numpy as np
import pytest

SIGMAS = np.linspace(1, 2, 5) * 0.3
CHANGES = {  # what is done to the ground truth's and the results' records, and which parameters are set
    "NaN score": lambda gt, dt: dt[0].update(score=float("nan")),
    "NaN box": lambda gt, dt: dt[0].update(bbox=[0.0, float("nan"), 5.0, 5.0]),
    "infinite box": lambda gt, dt: gt[0].update(bbox=[0.0, 0.0, float("inf"), 5.0]),
    "box beyond the square root of a double": lambda gt, dt: dt[0].update(bbox=[0.0, 0.0, 1e200, 1e200]),
    "score as text": lambda gt, dt: dt[0].update(score="0.5"),
    "score as byte": lambda gt, dt: dt[0].update(score=np.uint8(3)),  # its negative is 253
    "score missing": lambda gt, dt: dt[0].pop("score"),
    "box missing": lambda gt, dt: gt[0].pop("bbox"),
    "box of three numbers": lambda gt, dt: gt[0].update(bbox=[1.0, 2.0, 3.0]),
    "box as tuple": lambda gt, dt: gt[0].update(bbox=tuple(gt[0]["bbox"])),
    "area missing": lambda gt, dt: gt[0].pop("area"),
    "area of a crowd missing": lambda gt, dt: (gt[0].update(iscrowd=1), gt[0].pop("area")),
    "area as text": lambda gt, dt: gt[0].update(area="12"),
    "iscrowd missing": lambda gt, dt: gt[0].pop("iscrowd"),
    "iscrowd None": lambda gt, dt: gt[0].update(iscrowd=None),
    "iscrowd beyond a byte": lambda gt, dt: gt[0].update(iscrowd=300),
    "annotation id as text": lambda gt, dt: gt[0].update(id="first"),
    "annotation id as float": lambda gt, dt: gt[0].update(id=1000.5),
    "category missing": lambda gt, dt: gt[0].pop("category_id"),
    "unknown image": lambda gt, dt: dt[0].update(image_id=-5),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the negative of a byte
def test_odd_records(coco, scripts, name):
    gt, dt = coco.make_set(5, "bbox", first_id=1)
    assert gt["annotations"] and dt
    CHANGES[name](gt["annotations"], dt)
    _same_outcome(scripts, gt, dt, "bbox")


@pytest.mark.parametrize(
    "change",
    [
        {"imgIds": []},
        {"catIds": []},
        {"maxDets": []},
        {"maxDets": [0, 10, 100]},
        {"maxDets": [-1, 10, 100]},
        {"maxDets": [1.0, 10.5, 100.0]},
        {"iouThrs": np.array([0.5, np.nan])},
        {"iouThrs": np.array([0.5, 1.0], np.float32)},
        {"iouThrs": 0.5},
        {"recThrs": []},
        {"recThrs": 0.5},
        {"areaRng": []},
        {"areaRng": [[0], [0], [0], [0]]},
        {"areaRng": [["0", "1e10"]] * 4},
        {"useCats": 2},
        {"iouType": "area"},
        {"iouThrs": []},
        {"imgIds": None},
    ],
    ids=str,
)
def test_odd_parameters(coco, scripts, change):
    gt, dt = coco.make_set(5, "bbox", first_id=1)
    _same_outcome(scripts, gt, dt, "bbox", **change)


@pytest.mark.parametrize(
    "change",
    [
        {"useCats": 0},
        {"kpt_oks_sigmas": SIGMAS * 0},
        {"kpt_oks_sigmas": SIGMAS[:4]},
        {"kpt_oks_sigmas": SIGMAS.astype(np.float32)},
        {"kpt_oks_sigmas": SIGMAS.tolist()},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # pycocotools divides by 0
def test_odd_parameters_of_keypoints(coco, scripts, change):
    gt, dt = coco.make_set(4, "keypoints")
    _same_outcome(scripts, gt, dt, "keypoints", **({"kpt_oks_sigmas": SIGMAS} | change))


KEYPOINT_CHANGES = {
    "area 0": lambda gt, dt: gt[0].update(area=0),
    "area below 0": lambda gt, dt: gt[0].update(area=-4.0),
    "NaN": lambda gt, dt: dt[0]["keypoints"].__setitem__(0, float("nan")),
    "far away": lambda gt, dt: dt[0]["keypoints"].__setitem__(0, 10**10),
    "one point more": lambda gt, dt: dt[0]["keypoints"].extend([1.0, 2.0, 2]),
    "none": lambda gt, dt: gt[0].update(keypoints=[]),
    "no number of keypoints": lambda gt, dt: gt[0].pop("num_keypoints"),
    "no box": lambda gt, dt: gt[0].pop("bbox"),
    "bytes": lambda gt, dt: [
        record.update(keypoints=list(np.array(record["keypoints"]).astype(np.uint8))) for record in [*gt, *dt]
    ],
    "narrow floats": lambda gt, dt: dt[0].update(keypoints=np.array(dt[0]["keypoints"], np.float32)),
}


@pytest.mark.parametrize("name", KEYPOINT_CHANGES)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_odd_keypoints(coco, scripts, name):
    gt, dt = coco.make_set(4, "keypoints")
    KEYPOINT_CHANGES[name](gt["annotations"], dt)
    _same_outcome(scripts, gt, dt, "keypoints", kpt_oks_sigmas=SIGMAS)


@pytest.mark.parametrize(
    "segmentation",
    [[], [[1.0, 1.0, 2.0, 2.0]], None, {"size": [64, 64], "counts": [64 * 64]}, {"size": [128, 128], "counts": []}],
    ids=str,
)
@pytest.mark.parametrize("part", ["truth", "results"])
def test_odd_masks(coco, scripts, segmentation, part):
    gt, dt = coco.make_set(5, "segm", first_id=1)
    (gt["annotations"] if part == "truth" else dt)[1]["segmentation"] = segmentation
    _same_outcome(scripts, gt, dt, "segm")


@pytest.mark.parametrize("ids", [range(0, 100), range(-50, 50), [f"{i}" for i in range(100)], [1] * 100], ids=str)
def test_detections_with_ids_of_their_own(coco, scripts, ids):
    """A COCO object from a file instead of loadRes: an object matched by a detection of id 0 or below stays free."""
    gt, dt = coco.make_set(5, "bbox", first_id=1)

    def evaluate(package):
        truth, found = scripts.load(package, gt, dt)
        for record, own in zip(found.dataset["annotations"], ids, strict=False):
            record["id"] = own
        found.createIndex()
        tool = package.COCOeval(truth, found, "bbox")
        tool.evaluate()
        tool.accumulate()
        tool.summarize()
        return tool

    _same_result(scripts, evaluate)


def test_pooled_categories_that_are_named_twice(coco, scripts):
    gt, dt = coco.make_set(5, "bbox", first_id=1)
    categories = [category["id"] for category in gt["categories"]]
    scripts.run_both(gt, dt, "bbox", fast=False, useCats=0, catIds=categories * 2)
    scripts.run_both(gt, dt, "bbox", fast=True, useCats=0, catIds=categories[::-1])


def test_subclasses_that_override_a_step_are_heard(coco, scripts):
    def evaluate(package):
        class OnlyLarge(package.COCOeval):
            def computeIoU(self, imgId, catId):  # noqa: N802
                found = super().computeIoU(imgId, catId)
                return found if len(found) == 0 else np.asarray(found) * 0.9

        tool = OnlyLarge(*scripts.load(package, *coco.make_set(5, "bbox")), "bbox")
        tool.evaluate()
        tool.accumulate()
        tool.summarize()
        return tool

    _same_result(scripts, evaluate)


def test_a_step_replaced_in_one_object_is_heard(coco, scripts):
    def evaluate(package):
        tool = package.COCOeval(*scripts.load(package, *coco.make_set(5, "bbox")), "bbox")
        tool.computeIoU = lambda image, category: []
        tool.evaluate()
        tool.accumulate()
        tool.summarize()
        return tool

    _same_result(scripts, evaluate)
    assert evaluate(scripts.dropin).stats[0] == 0


def _same_outcome(scripts, gt, dt, task, **params):
    _same_result(scripts, lambda package: scripts.run(package, gt, dt, task, **params)[0])


def _same_result(scripts, evaluate):
    """Two runs give equal arrays, or errors of one type and text; and they print the same."""
    outcomes = []
    for package in (scripts.dropin, scripts.pycocotools):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            try:
                outcome = evaluate(package)
            except Exception as err:
                outcome = err
        outcomes.append((outcome, re.sub(r"t=\d+\.\d+s", "t=?s", printed.getvalue())))
    (own, text), (theirs, wanted) = outcomes
    assert text == wanted
    if isinstance(theirs, Exception):
        assert (type(own), str(own)) == (type(theirs), str(theirs))
    else:
        scripts.assert_same_tools(own, theirs)
