"""`vertebra_eval.pycocotools` beside pycocotools: everything a script can read or see is equal."""

import copy
import datetime
from unittest import mock

import numpy as np
import pycocotools.cocoeval
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

GENERATED = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
SHAPES = {
    "seed": st.integers(0, 2**32 - 1),
    "images": st.integers(1, 6),
    "categories": st.integers(1, 4),
    "per_image": st.integers(1, 8),
    "crowded": st.sampled_from([0.0, 0.2, 1.0]),
    "grid": st.sampled_from([2, 4, 16]),
    "first_id": st.sampled_from([0, 1, 7]),
    "score_levels": st.sampled_from([1, 3, 50]),
}
AREAS = [[0, 1e10], [0, 1024], [1024, 9216], [30, 30], (0.5, 5000.5)]
SIGMAS = np.linspace(1, 2, 5) * 0.3


@GENERATED
@given(shape=st.fixed_dictionaries(SHAPES), data=st.data())
def test_boxes_with_any_parameters(coco, scripts, shape, data):
    gt, dt = coco.make_set(task="bbox", **shape)
    scripts.run_both(gt, dt, "bbox", **_drawn_params(data, gt))


@settings(GENERATED, max_examples=40)
@given(shape=st.fixed_dictionaries(SHAPES), data=st.data())
def test_masks_with_any_parameters(coco, scripts, shape, data):
    gt, dt = coco.make_set(task="segm", **shape)
    scripts.run_both(gt, dt, "segm", **_drawn_params(data, gt))


@settings(GENERATED, max_examples=60)
@given(shape=st.fixed_dictionaries(SHAPES), data=st.data())
def test_keypoints_with_any_parameters(coco, scripts, shape, data):
    gt, dt = coco.make_set(task="keypoints", **shape)
    params = _drawn_params(data, gt) | {"kpt_oks_sigmas": SIGMAS}
    scripts.run_both(gt, dt, "keypoints", fast=bool(params.get("useCats", 1)), **params)


def _drawn_params(data, gt):
    """Some parameters that differ from COCO's; also a category or an image that the ground truth does not have."""
    images = [image["id"] for image in gt["images"]] + [10_000]
    categories = [category["id"] for category in gt["categories"]] + [999]
    iou = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.75, 1.0])
    drawn = {
        "imgIds": st.lists(st.sampled_from(images), min_size=1),
        "catIds": st.lists(st.sampled_from(categories), min_size=1, unique=True),
        "iouThrs": st.lists(iou, min_size=1, max_size=4).map(np.array),
        "recThrs": st.lists(st.sampled_from([0.0, 0.2, 1 / 3, 1.0, 1.5]), min_size=1, max_size=4),
        "maxDets": st.lists(st.sampled_from([1, 2, 3, 10, 100]), min_size=1, max_size=4),
        "areaRng": st.lists(st.sampled_from(AREAS), min_size=3, max_size=4),
        "useCats": st.sampled_from([0, 1, True]),
    }
    params = {name: data.draw(values) for name, values in drawn.items() if data.draw(st.booleans())}
    if "areaRng" in params:
        params["areaRngLbl"] = ["all", "medium", "large", "small"][: len(params["areaRng"])]
    return params


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_real_sample_has_the_numbers_and_lines_of_pycocotools(scripts, sample, task):
    scripts.run_both(*sample(task), task)


@GENERATED
@given(shape=st.fixed_dictionaries(SHAPES), data=st.data())
def test_parameters_changed_between_evaluate_and_accumulate(coco, scripts, shape, data):
    gt, dt = coco.make_set(task="bbox", **shape)
    own, theirs = scripts.run_both(gt, dt, "bbox", maxDets=[1, 5, 100])
    own.evaluate()  # comparing has read evalImgs
    changes = {
        "maxDets": st.lists(st.sampled_from([1, 5, 100]), max_size=3),
        "recThrs": st.sampled_from([[0.5], [0.0, 0.3, 1.0]]),
        "areaRng": st.just(theirs.params.areaRng[:2]),
        "imgIds": st.just(theirs.params.imgIds[:1]),
        "catIds": st.just(theirs.params.catIds[1:]),
        "useCats": st.just(0),
    }
    name = data.draw(st.sampled_from(sorted(changes)))
    value = data.draw(changes[name])
    as_argument = data.draw(st.booleans())
    for tool in (own, theirs):
        params = copy.deepcopy(tool.params) if as_argument else tool.params
        setattr(params, name, value)
        tool.accumulate(params if as_argument else None)
    scripts.assert_same_eval(own, theirs)


def test_dropped_limits_are_read_off_without_the_slow_way(coco, scripts):
    own, theirs = scripts.run_both(*coco.make_set(5, "bbox"), "bbox")
    own.evaluate()
    with mock.patch.object(pycocotools.cocoeval.COCOeval, "accumulate", side_effect=AssertionError):
        own.params.maxDets = [100, 1]
        own.accumulate()
    theirs.params.maxDets = [100, 1]
    theirs.accumulate()
    scripts.assert_same_eval(own, theirs)


@pytest.mark.parametrize("pooled", [0, 1])
def test_evaluating_again_with_other_parameters(coco, scripts, pooled):
    gt, dt = coco.make_set(11, "bbox", images=6)
    own, theirs = scripts.run_both(gt, dt, "bbox", useCats=pooled)
    for tool in (own, theirs):
        tool.params.imgIds = tool.params.imgIds[:2]
        tool.params.iouThrs = tool.params.iouThrs[:3]
        tool.evaluate()
        tool.accumulate()
    scripts.assert_same_tools(own, theirs)


@pytest.mark.parametrize("value", [0, 1])
def test_deprecated_use_segm_still_chooses(coco, scripts, value):
    gt, dt = coco.make_set(3, "segm")
    scripts.run_both(gt, dt, "segm" if not value else "bbox", useSegm=value)


def test_results_with_boxes_evaluated_as_masks_and_the_same_objects_twice(coco, scripts):
    gt, dt = coco.make_set(3, "bbox", categories=2)
    for record in gt["annotations"]:
        x, y, w, h = record["bbox"]
        record["segmentation"] = [[x, y, x, y + h + 1, x + w + 1, y + h + 1, x + w + 1, y]]
    scripts.run_both(gt, dt, "segm")
    tools = []
    for package in (scripts.dropin, scripts.pycocotools):
        loaded = scripts.load(package, gt, dt)
        for task in ("bbox", "segm", "bbox"):
            tools.append(package.COCOeval(*loaded, task))
            tools[-1].evaluate()
            tools[-1].accumulate()
    for own, theirs in zip(tools[:3], tools[3:], strict=True):
        scripts.assert_same_tools(own, theirs)
    for name in ("cocoGt", "cocoDt"):  # what evaluation leaves in the annotations
        for own, theirs in zip(
            *(getattr(tool, name).dataset["annotations"] for tool in (tools[1], tools[4])), strict=True
        ):
            assert str({key: own[key] for key in theirs if key != "_ignore"}) == str(
                {key: value for key, value in theirs.items() if key != "_ignore"}
            )


def test_objects_of_pycocotools_itself_are_evaluated(coco, scripts):
    gt, dt = coco.make_set(7, "bbox")
    theirs, _ = scripts.run(scripts.pycocotools, gt, dt, "bbox")
    own = scripts.dropin.COCOeval(*scripts.load(scripts.pycocotools, gt, dt), "bbox")
    with mock.patch.object(pycocotools.cocoeval.COCOeval, "evaluate", side_effect=AssertionError):
        own.evaluate()
    own.accumulate()
    own.summarize()
    scripts.assert_same_tools(own, theirs)


@pytest.mark.parametrize("seed", range(6))
def test_annotation_ids_of_0_and_ids_used_twice(coco, scripts, seed):
    gt, dt = coco.make_set(seed, "bbox", images=3, per_image=8)
    for number, record in enumerate(gt["annotations"]):
        record["id"] = number // 2
    scripts.run_both(gt, dt, "bbox")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_as_an_array(coco, scripts, dtype):
    gt, dt = coco.make_set(19, "bbox")
    rows = [[r["image_id"], *r["bbox"], r["score"], r["category_id"]] for r in dt]
    scripts.run_both(gt, np.array(rows, dtype), "bbox")
    ranges = [[0, 1e10], [0, 1024.1], [1024.1, 9216], [9216, 1e10]]  # no float32 holds 1024.1
    scripts.run_both(gt, np.array(rows, dtype), "bbox", areaRng=ranges, fast=dtype is np.float64)


def test_ignore_flags_and_negative_boxes_count_as_in_pycocotools(coco, scripts):
    gt, dt = coco.make_set(4, "bbox")
    rng = np.random.default_rng(0)
    for record in gt["annotations"]:
        record["ignore"] = int(rng.integers(0, 2))  # pycocotools overwrites it by iscrowd
    for record in [*gt["annotations"], *dt][::3]:
        record["bbox"][2] *= -1
    scripts.run_both(gt, dt, "bbox")


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_infinite_scores_rank_first_and_last(coco, scripts, task):
    gt, dt = coco.make_set(4, task)
    rng = np.random.default_rng(0)
    for record in dt:
        record["score"] = float(rng.choice([record["score"], np.inf, -np.inf]))
    scripts.run_both(gt, dt, task)


def test_ids_that_are_texts(coco, scripts):
    gt, dt = coco.make_set(4, "bbox")
    for record in [*gt["annotations"], *dt]:
        record["image_id"] = f"image {record['image_id']}"
    for image in gt["images"]:
        image["id"] = f"image {image['id']}"
    scripts.run_both(gt, dt, "bbox")


def test_steps_that_scripts_call_by_hand(coco, scripts):
    gt, dt = coco.make_set(4, "bbox")
    own, theirs = scripts.run_both(gt, dt, "bbox")
    own.evaluate()
    for image in theirs.params.imgIds:
        for category in theirs.params.catIds:
            assert np.array_equal(own.computeIoU(image, category), theirs.computeIoU(image, category))
            pair = [[tool.evaluateImg(image, category, [0, 1024], 10)] for tool in (own, theirs)]
            scripts.assert_same_images(*pair)
    own, theirs = scripts.run_both(*coco.make_set(4, "keypoints"), "keypoints", kpt_oks_sigmas=SIGMAS)
    for image, category in theirs.ious:
        assert np.array_equal(own.computeOks(image, category), theirs.computeOks(image, category))


def test_date_is_written_as_pycocotools_writes_it(coco, scripts):
    own, _ = scripts.run(scripts.dropin, *coco.make_set(4, "bbox"), "bbox")
    assert abs(datetime.datetime.strptime(own.eval["date"], "%Y-%m-%d %H:%M:%S") - datetime.datetime.now()).days == 0


def test_images_that_were_read_and_changed_are_what_is_accumulated(coco, scripts):
    own, theirs = scripts.run_both(*coco.make_set(5, "bbox"), "bbox")
    for tool in (own, theirs):
        tool.evaluate()
        for image in filter(None, tool.evalImgs):
            image["dtScores"] = [score / 2 for score in image["dtScores"]]
        tool.accumulate()
    scripts.assert_same_eval(own, theirs)
    assert own.eval["scores"].max() < 0.5


@pytest.mark.parametrize("call", ["accumulate", "summarize"])
def test_calls_in_the_wrong_order_fail_as_in_pycocotools(coco, scripts, call, capsys):
    heard = []
    for package in (scripts.dropin, scripts.pycocotools):
        tool = package.COCOeval(*scripts.load(package, *coco.make_set(5, "bbox")), "bbox")
        capsys.readouterr()
        with pytest.raises(Exception) as error:
            getattr(tool, call)()
        heard.append((type(error.value), str(error.value), capsys.readouterr().out))
    assert heard[0] == heard[1]
