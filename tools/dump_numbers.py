"""All numbers of evaluation on real and generated data, as one file; two such files can be compared.

    python tools/dump_numbers.py before.json            # in a work tree of the commit to compare with
    python tools/dump_numbers.py after.json --against before.json

A guard for changes that must not change a number. Predictions are the ground truth, moved, dropped, doubled and scored
by a seeded generator, and a model that returns such predictions is evaluated with a report. Real data are looked for
in the folder that VERTEBRA_SHARED names (default: `shared` beside the source tree), subfolder `data`; what is not
there is named and left undone. Arrays are kept as SHA-256 of their bytes, dtype and shape, and all else as it is.
"""

from __future__ import annotations

import argparse
import hashlib
import html
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask

import vertebra.evaluation as evaluation
from vertebra import FORMATS
from vertebra.config import load_recipe
from vertebra.data.annotations import fill_sample, instances_of
from vertebra.data.panoptic_labels import with_panoptic_masks
from vertebra.data.transforms.sample import Sample
from vertebra.structures import Boxes, Instances

DATA = Path(os.environ.get("VERTEBRA_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data"
SETS = {  # name: (ground truth, tasks)
    "coco_mini": ("coco_mini/instances_val.json", ("bbox", "segm")),
    "coco_mini persons": ("coco_mini/person_keypoints_val.json", ("bbox", "segm", "keypoints")),
    "val2014": ("cocoeval_sample/val2014_100/gt_instances.json", ("bbox", "segm")),
    "bccd": ("bccd/val.json", ("bbox",)),
    "nuclei": ("nuclei/val.json", ("bbox", "segm")),
    "nuclei polygons": ("nuclei/val_polygons.json", ("bbox", "segm")),
}
RECIPE = """
model:
  backbone: {{name: ResNet, depth: 18, norm: frozen_bn, out_features: [res5], weights: null}}
  heads: {{boxes: {{name: RetinaNetHead, num_convs: 0}}}}
data:
  val: {{format: shapes, images: 40, val_images: 30, split: val, size: "96-128", seed: {seed},
         labels: [keypoints, semantic, panoptic]}}
  eval_transforms: []
  workers: 0
evaluate:
  evaluators: [COCOEvaluator, VOCEvaluator, SemSegEvaluator, PanopticEvaluator]
  pictures: 3
  amp: "off"
"""


def digest(value: Any) -> Any:
    """What JSON holds of a value: arrays and tensors by their bytes, floats to the last bit."""
    if isinstance(value, torch.Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        content = np.ascontiguousarray(value)
        return f"{content.dtype} {content.shape} {hashlib.sha256(content.tobytes()).hexdigest()[:16]}"
    if isinstance(value, (float, np.floating)):
        return float(value).hex()
    if isinstance(value, dict):
        return {str(key): digest(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [digest(inner) for inner in value]
    return (
        value
        if value is None or isinstance(value, (str, bool))
        else int(value)
        if isinstance(value, np.integer)
        else str(value)
    )


def predictions(truth: dict, seed: int) -> list[dict]:
    """COCO results near a ground truth: of each object up to two, moved and scored at random, some of another class."""
    rng = np.random.default_rng(seed)
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    categories = [category["id"] for category in truth["categories"]]
    results = []
    for record in truth["annotations"]:
        for _ in range(rng.integers(0, 3)):
            height, width = sizes[record["image_id"]]
            box = np.asarray(record["bbox"], float) + rng.normal(0, 0.06, 4) * max(*record["bbox"][2:], 1)
            box = [float(number) for number in (*box[:2], *np.maximum(box[2:], 0.5))]
            found = {
                "image_id": record["image_id"],
                "category_id": record["category_id"] if rng.random() < 0.9 else int(rng.choice(categories)),
                "bbox": [round(number, 2) for number in box],
                "score": round(float(rng.beta(3, 2)), 3),  # equal ones occur
                "segmentation": moved_mask(record.get("segmentation"), box, height, width),
            }
            if record.get("keypoints"):
                points = np.asarray(record["keypoints"], float).reshape(-1, 3)
                points[:, :2] += rng.normal(0, 2, (len(points), 2))
                found["keypoints"] = [round(float(number), 2) for number in points.ravel()]
            results.append(found)
    return results


def moved_mask(segmentation: Any, box: list[float], height: int, width: int) -> dict:
    """The mask of an object, or its box where it has none, shifted by a pixel, as run lengths."""
    mask = np.zeros((height, width), np.uint8, order="F")
    if isinstance(segmentation, list) and segmentation:
        runs = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
        mask[1:] = coco_mask.decode(runs)[:-1]
    elif isinstance(segmentation, dict):
        runs = segmentation
        if isinstance(runs["counts"], list):
            runs = coco_mask.frPyObjects(runs, height, width)
        mask[1:] = coco_mask.decode(runs)[:-1]
    else:
        x, y, w, h = (int(max(number, 0)) for number in box)
        mask[y : y + h, x : x + w] = 1
    runs = coco_mask.encode(np.asfortranarray(mask))
    return {"size": [height, width], "counts": runs["counts"].decode()}


def numbers_of(found: Any) -> dict:
    """Metrics, reasons, notes and arrays of an evaluation of files."""
    dump = {"metrics": dict(found), "reasons": found.reasons, "notes": found.notes}
    result = getattr(found, "result", None)
    for name in ("precision", "recall", "scores", "num_truth", "num_ignored", "num_detections", "stats"):
        if hasattr(result, name):
            dump[name] = getattr(result, name)
    if hasattr(result, "matches"):
        dump["matches"] = [result.matches.matched(area) for area in range(3)]
    return dump


def of_coco(path: Path, tasks: tuple[str, ...], seed: int = 0) -> dict:
    truth = json.loads(path.read_text())
    for number, record in enumerate(truth["annotations"]):
        record.setdefault("id", number + 1)
    results = predictions(truth, seed)
    dump: dict[str, Any] = {"number of results": len(results)}
    for task in tasks:
        dump[task] = numbers_of(evaluation.coco_evaluate(truth, results, task))
        dump[f"{task} 500"] = numbers_of(evaluation.coco_evaluate(truth, results, task, max_dets=(1, 10, 500)))
    dump["no categories"] = numbers_of(evaluation.coco_evaluate(truth, results, "bbox", use_categories=False))
    half = [image["id"] for image in truth["images"]][::2]
    dump["half"] = numbers_of(evaluation.coco_evaluate(truth, results, "bbox", image_ids=half))
    dump["voc"] = numbers_of(evaluation.voc_evaluate(truth, results))
    federated = {**truth, "categories": [{"frequency": "frc"[i % 3], **c} for i, c in enumerate(truth["categories"])]}
    for image in federated["images"]:
        image |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    for task in set(tasks) & {"bbox", "segm"}:
        dump[f"lvis {task}"] = numbers_of(evaluation.lvis_evaluate(federated, results, task))
    return dump


def of_panoptic_sample() -> dict:
    folder = DATA / "panoptic_sample"
    dump = {}
    for path in sorted((folder / "predictions").glob("*.json")):
        found = evaluation.panoptic_evaluate(
            folder / "panoptic_examples.json", folder / "panoptic_examples", path, path.with_suffix("")
        )
        dump[path.stem] = {"metrics": dict(found.metrics), "reasons": dict(found.reasons), "notes": list(found.notes)}
    return dump


def objects_of(record: dict, metadata: Any) -> dict:
    """The arrays that a training makes of an image's annotations."""
    annotations = [one for one in record.get("annotations", ()) if not one.get("iscrowd")]
    if any("panoptic_id" in one for one in annotations):
        annotations = with_panoptic_masks(annotations, record["pan_seg_file_name"])
    if not annotations:
        return {}
    sample = Sample(torch.zeros(3, record["height"], record["width"], dtype=torch.uint8))
    has_masks = any(one.get("segmentation") for one in annotations)
    fill_sample(sample, annotations, record["file_name"], has_masks, len(metadata.get("keypoint_names") or ()))
    objects = instances_of(sample, np.array([one["category_id"] for one in annotations]), "bitmask")
    return {name: getattr(value, "tensor", value) for name, value in objects.get_fields().items()}


def of_training_sets() -> dict:
    """Every record of the sets as a training reads them."""
    sets = {
        "coco_mini": ("coco", {"annotations": "coco_mini/instances_train.json", "images": "coco_mini/images"}),
        "persons": ("coco", {"annotations": "coco_mini/person_keypoints_train.json", "images": "coco_mini/images"}),
        "bccd": ("coco", {"annotations": "bccd/train.json", "images": "bccd/images"}),
        "dirty": ("coco", {"annotations": "bccd/dirty.json", "images": "bccd/images"}),
        "nuclei": ("coco", {"annotations": "nuclei/train.json", "images": "nuclei/images"}),
        "panoptic": (
            "coco_panoptic",
            {
                "panoptic": "nuclei/panoptic_train.json",
                "panoptic_images": "nuclei/panoptic_train",
                "images": "nuclei/images",
            },
        ),
        "camvid": (
            "semantic_folder",
            {"images": "camvid/train/images", "masks": "camvid/train/masks", "classes": "camvid/classes.json"},
        ),
        "membrane": (
            "semantic_folder",
            {
                "images": "membrane/train/images",
                "masks": "membrane/train/masks",
                "classes": ["membrane", "cell"],
                "label_map": {0: 0, 255: 1},
            },
        ),
    }
    dump = {}
    for name, (form, arguments) in sets.items():
        dataset = FORMATS.get(form)(**arguments).load(str(DATA))
        records = json.loads(json.dumps(list(dataset), default=str).replace(str(DATA), ""))
        facts = {key: value for key, value in vars(dataset.metadata).items() if not key.startswith("_")}
        text = json.dumps([record | {"annotations": None} for record in records], sort_keys=True)
        dump[name] = {
            "records": len(records),
            "objects": digest([objects_of(record, dataset.metadata) for record in dataset]),
            "sha256": hashlib.sha256(text.encode()).hexdigest()[:16],
            "facts": json.loads(json.dumps(facts, default=str, sort_keys=True).replace(str(DATA), "")),
        }
    return dump


class Oracle(torch.nn.Module):
    """Predicts what stands in the records of a dataset, moved by a seeded generator."""

    def __init__(self, dataset: Any, seed: int) -> None:
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))
        self.metadata = dataset.metadata
        self.records = {record["image_id"]: record for record in dataset}
        self.seed = seed

    def forward(self, inputs: list[dict]) -> list[dict]:
        return [self.predict(self.records[one["image_id"]]) for one in inputs]

    def predict(self, record: dict) -> dict:
        rng = np.random.default_rng([self.seed, int(record["image_id"])])
        height, width = record["height"], record["width"]
        kept = [one for one in record["annotations"] if rng.random() < 0.85 and not one.get("iscrowd")]
        found = Instances((height, width))
        boxes = np.array([one["bbox"] for one in kept], float).reshape(-1, 4)
        boxes = boxes + np.concatenate((boxes[:, :2] * 0, boxes[:, :2]), 1) + rng.normal(0, 1.5, boxes.shape)  # xywh
        found.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32))
        found.scores = torch.tensor(rng.random(len(kept)).round(2), dtype=torch.float32)
        found.pred_classes = torch.tensor([one["category_id"] for one in kept], dtype=torch.int64)
        masks = [coco_mask.decode(moved_mask(one["segmentation"], one["bbox"], height, width)) for one in kept]
        found.pred_masks = torch.tensor(np.array(masks).reshape(-1, height, width), dtype=torch.bool)
        count = len(self.metadata.keypoint_names)
        points = np.array([one["keypoints"] for one in kept], float).reshape(len(kept), count, 3)
        points[..., :2] += rng.normal(0, 1, points[..., :2].shape)
        found.pred_keypoints = torch.tensor(points, dtype=torch.float32)
        labels = np.array(Image.open(record["sem_seg_file_name"])).astype(np.int64)
        labels = np.where(rng.random(labels.shape) < 0.1, 0, np.minimum(labels, len(self.metadata.stuff_classes) - 1))
        scores = torch.nn.functional.one_hot(torch.tensor(labels), len(self.metadata.stuff_classes))
        ids = np.array(Image.open(record["pan_seg_file_name"])).astype(np.int64)
        ids = np.roll(ids[..., 0] + 256 * ids[..., 1] + 65536 * ids[..., 2], 1, axis=0)
        present = set(np.unique(ids).tolist())
        segments = [
            {key: one[key] for key in ("id", "category_id", "isthing")}
            for one in record["segments_info"]
            if one["id"] in present
        ]
        ids = np.where(np.isin(ids, [one["id"] for one in segments]), ids, 0)
        return {
            "instances": found,
            "sem_seg": scores.permute(2, 0, 1).float(),
            "panoptic_seg": (torch.tensor(ids), segments),
        }


def of_evaluation(seed: int) -> dict:
    """A whole evaluation with a report, of a generated dataset with labels of every kind."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "recipe.yaml")
        path.write_text(RECIPE.format(seed=seed))
        recipe = load_recipe(path)
        from vertebra.data import load_split

        dataset = load_split(recipe)
        found = evaluation.evaluate(Oracle(dataset, seed), recipe, dataset=dataset, output_dir=Path(folder, "out"))
        page = Path(folder, "out", "report.html").read_text()
        tables = [re.sub(r"\s+", " ", html.unescape(re.sub("<[^>]*>", " ", table))) for table in _tables(page)]
        timed = re.compile(r"second|image|version|torch|device|folder")
        written = {}
        for file in sorted(Path(folder, "out").rglob("*.json")):
            content = json.loads(file.read_text())
            if isinstance(content, dict):
                content = {key: value for key, value in content.items() if not timed.search(key) and key != "info"}
            text = json.dumps(content, sort_keys=True).replace(folder, "")
            written[str(file.relative_to(folder))] = hashlib.sha256(text.encode()).hexdigest()[:16]
        return {
            "metrics": found.metrics,
            "reasons": found.reasons,
            "notes": [note.replace(folder, "") for note in found.notes],
            "intervals": found.intervals,
            "tables": [table for table in tables if not timed.search(table.lower())],
            "files": written,
        }


def _tables(page: str) -> list[str]:
    return re.findall(r"<table.*?</table>", page, flags=re.DOTALL)


def all_numbers() -> dict[str, Any]:
    work: dict[str, Callable[[], dict]] = {}
    for name, (path, tasks) in SETS.items():
        if (DATA / path).is_file():
            work[name] = lambda path=path, tasks=tasks: of_coco(DATA / path, tasks)
        else:
            print(f"{name}: {DATA / path} is not there: not done", file=sys.stderr)
    if (DATA / "panoptic_sample").is_dir():
        work |= {"panoptic": of_panoptic_sample, "training sets": of_training_sets}
    else:
        print(f"{DATA} is not there: panoptic pairs and training sets are not done", file=sys.stderr)
    work |= {f"evaluation, seed {seed}": lambda seed=seed: of_evaluation(seed) for seed in (0, 1)}
    dump = {}
    for name, make in work.items():
        print(name, file=sys.stderr, flush=True)
        dump[name] = digest(make())
    return dump


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        keys = list(dict.fromkeys([*before, *after]))
        return [line for key in keys for line in differences(before.get(key), after.get(key), f"{path}/{key}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [line for i, (a, b) in pairs for line in differences(a, b, f"{path}/{i}")]
    return [] if before == after else [f"{path}: {str(before)[:150]} -> {str(after)[:150]}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="JSON file to write")
    parser.add_argument("--against", type=Path, help="such a file of another commit; exit code 1 where they differ")
    options = parser.parse_args()
    torch.manual_seed(0)
    dump = all_numbers()
    options.output.write_text(json.dumps(dump, indent=1))
    if options.against:
        found = differences(json.loads(options.against.read_text()), json.loads(options.output.read_text()))
        print("\n".join(found) or "no difference")
        sys.exit(bool(found))


if __name__ == "__main__":
    main()
