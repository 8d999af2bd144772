"""Full arrays equal to pycocotools', bit for bit: real sets and hundreds of generated ones."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

GENERATED = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
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


@pytest.mark.parametrize("task", ["bbox", "segm"])
@pytest.mark.parametrize("case", ["default", "without categories", "first 50 images", "two categories"])
def test_real_sample(coco, shared, task, case):
    folder = shared("data/cocoeval_sample/val2014_100")
    gt = json.loads((folder / "gt_instances.json").read_text())
    dt = json.loads((folder / f"det_{task}.json").read_text())
    ids, theirs, own = {}, {}, {}
    if case == "without categories":
        theirs, own = {"useCats": 0}, {"use_categories": False}
    elif case == "first 50 images":
        ids = {"image_ids": sorted(image["id"] for image in gt["images"])[:50]}
    elif case == "two categories":
        ids = {"category_ids": [1, 18]}
    coco.assert_equal(coco.ours(gt, dt, task, **ids, **own), coco.reference(gt, dt, task, **ids, **theirs))


def test_real_sample_has_the_published_numbers(coco, shared):
    folder = shared("data/cocoeval_sample")
    expected = json.loads((folder / "expected.json").read_text())["results"]
    for name, case in expected.items():
        params = case["params"]
        if set(params) - {"useCats", "imgIds"} or not (folder / case["gt"]).exists():
            continue
        gt, dt = (json.loads((folder / case[key]).read_text()) for key in ("gt", "det"))
        result = coco.ours(gt, dt, case["iouType"], use_categories=bool(params.get("useCats", 1)))
        if "imgIds" not in params:
            assert result.stats.tolist() == case["stats"], name


@pytest.mark.parametrize("subset", ["train", "val"])
def test_real_keypoints_with_shifted_copies_as_detections(coco, shared, subset):
    gt = json.loads((shared("data/coco_mini") / f"person_keypoints_{subset}.json").read_text())
    rng = np.random.default_rng(0)
    dt = []
    for record in gt["annotations"]:
        for spread in (0.0, 2.0, 6.0, 20.0):
            points = np.array(record["keypoints"], dtype=float).reshape(-1, 3)
            points[:, :2] += rng.normal(0, spread, (len(points), 2)).round(2) if spread else 0
            score = round(float(rng.random()), 1)
            dt.append({"image_id": record["image_id"], "category_id": 1, "score": score})
            dt[-1]["keypoints"] = points.reshape(-1).tolist()
    coco.assert_equal(coco.ours(gt, dt, "keypoints"), coco.reference(gt, dt, "keypoints"))
    with_boxes = [record | {"bbox": [0.0, 0.0, 40.0, 40.0]} for record in dt]  # then areas come from the boxes
    coco.assert_equal(coco.ours(gt, with_boxes, "keypoints"), coco.reference(gt, with_boxes, "keypoints"))


@GENERATED
@given(shape=st.fixed_dictionaries(SHAPES), max_dets=st.sampled_from([(1, 10, 100), (1, 2, 3), (2, 4, 1000)]))
def test_generated_boxes(coco, shape, max_dets):
    gt, dt = coco.make_set(task="bbox", **shape)
    coco.assert_equal(
        coco.ours(gt, dt, "bbox", max_dets=max_dets), coco.reference(gt, dt, "bbox", maxDets=list(max_dets))
    )


@settings(GENERATED, max_examples=100)
@given(shape=st.fixed_dictionaries(SHAPES), data=st.data())
def test_generated_boxes_with_any_parameters(coco, shape, data):
    gt, dt = coco.make_set(task="bbox", **shape)
    ious = data.draw(st.lists(st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0]), min_size=1, max_size=4))
    recalls = data.draw(st.lists(st.sampled_from([0.0, 0.2, 0.5, 1 / 3, 1.0, 1.5]), min_size=1, max_size=5))
    areas = data.draw(
        st.lists(st.sampled_from([(0, 1e10), (0, 1024), (1024, 9216), (30, 30)]), min_size=1, unique=True)
    )
    pooled = data.draw(st.booleans())
    result = coco.ours(
        gt,
        dt,
        "bbox",
        iou_thresholds=ious,
        recall_thresholds=recalls,
        area_ranges={str(limits): limits for limits in areas},
        use_categories=not pooled,
    )
    tool = coco.reference(
        gt,
        dt,
        "bbox",
        iouThrs=np.array(ious),
        recThrs=np.array(recalls),
        areaRng=[list(limits) for limits in areas],
        areaRngLbl=[str(limits) for limits in areas],
        useCats=int(not pooled),
    )
    tool.stats = []  # its summary has fixed names
    coco.assert_equal(result, tool)


@settings(GENERATED, max_examples=100)
@given(shape=st.fixed_dictionaries(SHAPES), pooled=st.booleans())
def test_generated_masks(coco, shape, pooled):
    gt, dt = coco.make_set(task="segm", **shape)
    coco.assert_equal(
        coco.ours(gt, dt, "segm", use_categories=not pooled), coco.reference(gt, dt, "segm", useCats=int(not pooled))
    )


@settings(GENERATED, max_examples=150)
@given(shape=st.fixed_dictionaries(SHAPES), sigma=st.sampled_from([0.05, 0.5, 3.0]))
def test_generated_keypoints(coco, shape, sigma):
    gt, dt = coco.make_set(task="keypoints", **shape)
    sigmas = np.linspace(1, 2, coco.num_keypoints) * sigma
    coco.assert_equal(
        coco.ours(gt, dt, "keypoints", sigmas=sigmas), coco.reference(gt, dt, "keypoints", kpt_oks_sigmas=sigmas)
    )


def test_results_for_another_task_than_they_were_made_for(coco):
    gt, dt = coco.make_set(3, "segm")
    coco.assert_equal(coco.ours(gt, dt, "bbox"), coco.reference(gt, dt, "bbox"))  # boxes around the masks
    for record in dt:
        record["bbox"] = [1.0, 2.0, 30.0, 40.0]
    coco.assert_equal(coco.ours(gt, dt, "segm"), coco.reference(gt, dt, "segm"))  # areas of the boxes
    boxes = [{key: value for key, value in record.items() if key != "segmentation"} for record in dt]
    coco.assert_equal(coco.ours(gt, boxes, "segm"), coco.reference(gt, boxes, "segm"))  # boxes as masks


def test_many_images_and_categories_need_more_than_one_digit_to_sort(coco):
    from vertebra_eval.coco.order import stable_argsort

    values = np.random.default_rng(0).integers(0, 2**34, 5000)
    values[::3] = values[0]
    assert np.array_equal(stable_argsort(values, 2**34), np.argsort(values, kind="stable"))


@pytest.mark.parametrize("task", ["bbox", "segm", "keypoints"])
@pytest.mark.parametrize("seed", range(8))
def test_infinite_scores_count(coco, task, seed):
    """Infinity ranks first and minus infinity last, whatever its detection hits; several tie as other scores do."""
    gt, dt = coco.make_set(seed, task, first_id=1)
    rng = np.random.default_rng(seed)
    for record in dt:
        record["score"] = float(rng.choice([record["score"], np.inf, -np.inf]))
    coco.assert_equal(*(run(gt, dt, task, **more) for run, more in _keypoint_sigmas(coco, task)))


def _keypoint_sigmas(coco, task):
    sigmas = np.full(coco.num_keypoints, 0.05)
    own, theirs = ({"sigmas": sigmas}, {"kpt_oks_sigmas": sigmas}) if task == "keypoints" else ({}, {})
    return (coco.ours, own), (coco.reference, theirs)
