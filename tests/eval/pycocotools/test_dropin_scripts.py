"""Scripts as people write them, run with the drop-in and with pycocotools: they print and compute the same."""

import contextlib
import copy
import importlib
import io
import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pycocotools.coco
import pycocotools.mask
import pytest

PACKAGES = ("pycocotools", "vertebra_eval.pycocotools")
DEMO = """
import numpy as np
from {package}.coco import COCO
from {package}.cocoeval import COCOeval

cocoGt = COCO(annotations)
cocoDt = cocoGt.loadRes(results)
imgIds = sorted(cocoGt.getImgIds())[0:100]
cocoEval = COCOeval(cocoGt, cocoDt, task)
cocoEval.params.imgIds = imgIds
cocoEval.evaluate()
cocoEval.accumulate()
cocoEval.summarize()
"""


def _run(text, **names):
    """What a script prints without the seconds, and the names it leaves."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(text, names)
    return re.sub(r"t=\d+\.\d+s", "t=?s", printed.getvalue()), names


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_demo_of_pycocotools(scripts, shared, task):
    """The cells of pycocoEvalDemo: files, a subset of 100 images, the twelve lines."""
    folder = shared("data/cocoeval_sample/val2014_100")
    files = {"annotations": str(folder / "gt_instances.json"), "results": str(folder / f"det_{task}.json")}
    (wanted, theirs), (printed, own) = (_run(DEMO.format(package=name), task=task, **files) for name in PACKAGES)
    assert printed == wanted
    assert printed.count("Average") == 12
    scripts.assert_same_tools(own["cocoEval"], theirs["cocoEval"])


def test_demo_has_the_published_lines(shared):
    folder = shared("data/cocoeval_sample/val2014_100")
    published = [line for line in (folder / "val2014_fake_eval_res.txt").read_text().splitlines() if "Average" in line]
    for place, task in enumerate(("segm", "bbox")):  # the order in that file
        files = {"annotations": str(folder / "gt_instances.json"), "results": str(folder / f"det_{task}.json")}
        printed, _ = _run(DEMO.format(package=PACKAGES[1]), task=task, **files)
        numbers = [line.split("=")[-1] for line in printed.splitlines() if "Average" in line]
        assert numbers == [line.split("=")[-1] for line in published][12 * place : 12 * place + 12]


def test_batches_of_images_gathered_by_hand(coco, scripts):
    """As torchvision's references evaluate: a few images at a time, `evalImgs` joined, then accumulated."""
    gt, dt = coco.make_set(21, "bbox", images=6)
    wanted, _ = scripts.run(scripts.pycocotools, gt, dt, "bbox")
    truth, _ = scripts.load(scripts.pycocotools, gt, dt)  # a data set's own object
    tool = scripts.dropin.COCOeval(truth, iouType="bbox")
    parts, images = [], sorted(image["id"] for image in gt["images"])
    for batch in (images[:2], images[2:3], images[3:]):
        records = [record for record in copy.deepcopy(dt) if record["image_id"] in batch]
        tool.cocoDt = scripts.dropin.COCO.loadRes(truth, records) if records else scripts.dropin.COCO()
        tool.params.imgIds = list(batch)
        tool.evaluate()
        shape = (-1, len(tool.params.areaRng), len(tool.params.imgIds))
        parts.append(np.asarray(tool.evalImgs).reshape(shape))
    tool.evalImgs = list(np.concatenate(parts, 2).flatten())
    tool.params.imgIds = images
    tool._paramsEval = copy.deepcopy(tool.params)
    tool.accumulate()
    tool.summarize()
    scripts.assert_same_eval(tool, wanted)
    assert np.array_equal(tool.stats, wanted.stats)


def test_class_wise_table_and_other_limits(coco, scripts):
    """As Detectron2 evaluates: precision by category out of `eval`, and a summary of its own for other limits."""
    gt, dt = coco.make_set(22, "bbox")
    own, theirs = scripts.run_both(gt, dt, "bbox", maxDets=[1, 10, 500], imgIds=[gt["images"][0]["id"]])
    for tool in (own, theirs):
        precision = tool.eval["precision"]
        assert precision.shape[2] == len(tool.cocoGt.getCatIds())
        tool.by_class = [precision[:, :, k, 0, -1].mean() for k in range(precision.shape[2])]
    assert own.by_class == theirs.by_class


@pytest.mark.parametrize("name", ["coco", "cocoeval", "mask"])
def test_modules_have_the_public_names_of_pycocotools(name):
    own, theirs = (importlib.import_module(f"{package}.{name}") for package in PACKAGES[::-1])
    wanted = {"coco": ["COCO"], "cocoeval": ["COCOeval", "Params"]}.get(name)
    for public in wanted or [key for key in vars(theirs) if not key.startswith("_") and callable(vars(theirs)[key])]:
        assert public in own.__all__
        assert hasattr(own, public)


def test_loaded_results_are_of_the_same_class(coco, scripts):
    truth, found = scripts.load(scripts.dropin, *coco.make_set(5, "bbox"))
    assert type(truth) is type(found) is scripts.dropin.COCO
    assert isinstance(found, pycocotools.coco.COCO)


@pytest.mark.parametrize("task", ["bbox", "segm", "keypoints"])
@pytest.mark.parametrize("form", ["path", "list"])
def test_index_and_results_equal_pycocotools(coco, scripts, tmp_path, task, form, capsys):
    gt, dt = coco.make_set(9, task)
    (tmp_path / "gt.json").write_text(json.dumps(gt | {"info": {"year": 2014}}))
    (tmp_path / "dt.json").write_text(json.dumps(dt))
    heard = []
    for package in (scripts.dropin, scripts.pycocotools):
        truth = package.COCO(str(tmp_path / "gt.json"))
        found = truth.loadRes(str(tmp_path / "dt.json") if form == "path" else copy.deepcopy(dt))
        truth.info()
        heard.append((truth, found, re.sub(r"t=\d+\.\d+s", "t=?s", capsys.readouterr().out)))
    assert heard[0][2] == heard[1][2]
    for own, theirs in zip(heard[0][:2], heard[1][:2], strict=True):
        assert list(vars(own)) == list(vars(theirs))
        for name, wanted in vars(theirs).items():
            assert str(getattr(own, name)) == str(wanted), name
            assert type(getattr(own, name)) is type(wanted)


def test_queries_of_annotations(coco, scripts):
    gt, dt = coco.make_set(9, "segm")
    for number, category in enumerate(gt["categories"]):
        category["supercategory"] = "odd" if number % 2 else "even"
    own, theirs = (scripts.load(package, gt, dt)[0] for package in (scripts.dropin, scripts.pycocotools))
    images, categories = [image["id"] for image in gt["images"]], [c["id"] for c in gt["categories"]]
    for arguments in (
        {},
        {"imgIds": images[0]},
        {"imgIds": images[:2], "catIds": categories[:1]},
        {"catIds": categories[1]},
        {"catIds": np.array(categories)},
        {"catIds": list(np.array(categories)), "iscrowd": False},
        {"areaRng": [30, 3000], "iscrowd": True},
        {"imgIds": [12345], "catIds": [999]},
    ):
        assert own.getAnnIds(**arguments) == theirs.getAnnIds(**arguments)
    assert own.getAnnIds(images[:2], categories[:2]) == theirs.getAnnIds(images[:2], categories[:2])
    assert own.getCatIds(supNms=["odd"]) == theirs.getCatIds(supNms=["odd"])
    assert own.getImgIds(catIds=categories[:1]) == theirs.getImgIds(catIds=categories[:1])
    for load, ids in (("loadAnns", own.getAnnIds()), ("loadCats", categories), ("loadImgs", images[0])):
        assert getattr(own, load)(ids) == getattr(theirs, load)(ids)
    for record in own.dataset["annotations"]:
        assert np.array_equal(own.annToMask(record), theirs.annToMask(record))


def test_annotations_are_drawn(coco, scripts):
    plt.switch_backend("Agg")
    truth, _ = scripts.load(scripts.dropin, *coco.make_set(9, "segm"))
    truth.showAnns(truth.loadAnns(truth.getAnnIds()), draw_bbox=True)
    assert plt.gca().collections
    plt.close()


@pytest.mark.parametrize("results", [[{"image_id": -1}], {}, [], "no such file.json"], ids=str)
def test_results_that_cannot_be_loaded_fail_as_in_pycocotools(coco, scripts, results):
    errors = []
    for package in (scripts.dropin, scripts.pycocotools):
        truth, _ = scripts.load(package, coco.make_set(5, "bbox")[0], [])
        with pytest.raises(Exception) as error:
            truth.loadRes(results)
        errors.append((type(error.value), str(error.value)))
    assert errors[0] == errors[1]


def test_download_without_a_folder_answers_as_pycocotools(scripts, capsys):
    assert scripts.dropin.COCO().download() == -1
    assert "specify target directory" in capsys.readouterr().out


def test_mask_functions_are_those_of_pycocotools():
    from vertebra_eval.pycocotools import mask

    assert mask.encode is pycocotools.mask.encode
