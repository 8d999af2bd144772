"""Seeded data for `benchmark_evaluation.py`: ground truth and results of each task, as files that all tools read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask

__all__ = ["make_coco_files", "make_panoptic_files", "make_records"]

CATEGORIES, HEIGHT, WIDTH, JOINTS = 80, 480, 640, 17
LVIS_CATEGORIES = 1203
PANOPTIC = [{"id": 10 * i + 1, "name": f"class {i}", "isthing": int(i < 80)} for i in range(133)]


def make_coco_files(folder: Path, task: str, images: int, per_image: int, seed: int = 0) -> None:
    """`gt.json` and `dt.json` of `make_records`."""
    for name, content in zip(("gt.json", "dt.json"), make_records(images, per_image, task, seed), strict=True):
        (folder / name).write_text(json.dumps(content))


def make_records(images: int, per_image: int, task: str, seed: int) -> tuple[dict, list[dict]]:
    """COCO ground truth and results, the same for everyone with the same seed.

    About 7 objects an image, of classes of uneven frequency; some detections are near objects, most have low scores.

    Args:
        task: bbox, segm, keypoints (one class) or lvis (1203 classes and what was searched for in each image).
    """
    rng = np.random.default_rng(seed)
    classes = {"keypoints": 1, "lvis": LVIS_CATEGORIES}.get(task, CATEGORIES)
    counts = rng.poisson(7.3, images)
    image = np.repeat(np.arange(images), counts)
    category = (classes * rng.random(len(image)) ** 2.2).astype(int)  # a few frequent, many rare
    size = np.exp(rng.normal(4, 1, (len(image), 2))).clip(4, [WIDTH * 0.9, HEIGHT * 0.9])
    boxes = np.concatenate([rng.random((len(image), 2)) * ([WIDTH, HEIGHT] - size), size], axis=1).round(2)
    area = (boxes[:, 2] * boxes[:, 3] * rng.uniform(0.4, 0.8, len(image))).round(2)
    crowd = (rng.random(len(image)) < 0.01) & (task != "lvis")
    columns = (image, category, boxes, area, crowd)
    annotations = [
        {"id": row + 1, "image_id": i + 1, "category_id": c + 1, "bbox": b, "area": a, "iscrowd": int(o)}
        for row, (i, c, b, a, o) in enumerate(zip(*(column.tolist() for column in columns), strict=True))
    ]
    found_image = np.repeat(np.arange(images), per_image)
    number, have = np.tile(np.arange(per_image), images), np.repeat(counts, per_image)
    near = number < 4 * have
    source = (np.repeat(np.cumsum(counts) - counts, per_image) + number % np.maximum(have, 1))[near]
    found_category = rng.integers(0, classes, len(found_image))
    found_category[near] = np.where(rng.random(near.sum()) < 0.85, category[source], found_category[near])
    size = np.exp(rng.normal(4, 1, (len(found_image), 2))).clip(4, [WIDTH * 0.9, HEIGHT * 0.9])
    found = np.concatenate([rng.random((len(found_image), 2)) * ([WIDTH, HEIGHT] - size), size], axis=1)
    found[near] = boxes[source] + rng.normal(0, 0.12, (near.sum(), 4)) * np.tile(boxes[source][:, 2:], 2)
    found[:, 2:] = np.maximum(found[:, 2:], 1)
    score = np.where(near, rng.beta(2, 2, len(near)), rng.beta(1, 8, len(near))).round(3)
    columns = (found_image, found_category, found.round(2), score)
    results = [
        {"image_id": i + 1, "category_id": c + 1, "bbox": b, "score": s}
        for i, c, b, s in zip(*(column.tolist() for column in columns), strict=True)
    ]
    listed = [{"id": i + 1, "height": HEIGHT, "width": WIDTH, "file_name": f"{i}.jpg"} for i in range(images)]
    categories = [{"id": c + 1, "name": f"class {c}"} for c in range(classes)]
    if task == "segm":
        _add_masks(annotations, results, rng)
    elif task == "keypoints":
        _add_keypoints(annotations, results, rng)
        categories[0]["keypoints"] = [f"point {j}" for j in range(JOINTS)]
    elif task == "lvis":
        _add_federation(listed, categories, image, category, rng)
    return {"images": listed, "annotations": annotations, "categories": categories}, results


def _add_masks(annotations: list[dict], results: list[dict], rng: np.random.Generator) -> None:
    """Wobbly outlines of 24 corners in the boxes: polygons for objects, run lengths for detections."""
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    for record in [*annotations, *results]:
        x, y, w, h = record["bbox"]
        radius = rng.uniform(0.35, 0.5, 24)
        corners = np.stack([x + w / 2 + w * radius * np.cos(angle), y + h / 2 + h * radius * np.sin(angle)], axis=1)
        polygon = corners.clip(0, [WIDTH, HEIGHT]).round(2).reshape(-1).tolist()
        if "score" in record:
            encoded = mask.frPyObjects([polygon], HEIGHT, WIDTH)[0]
            record["segmentation"] = {"size": encoded["size"], "counts": encoded["counts"].decode()}
            del record["bbox"]
        else:
            record["segmentation"] = [polygon]


def _add_keypoints(annotations: list[dict], results: list[dict], rng: np.random.Generator) -> None:
    """Points in the boxes, at places that are a person's own; some objects have none that are labeled."""
    places = rng.random((JOINTS, 2))
    for record in [*annotations, *results]:
        x, y, w, h = record["bbox"]
        points = np.ones((JOINTS, 3)) * 2
        points[:, :2] = [x, y] + places * [w, h] + rng.normal(0, 0.03, (JOINTS, 2)) * [w, h]
        if "score" not in record:
            points[rng.random(JOINTS) < 0.3] = 0
            if rng.random() < 0.1:
                points[:] = 0
            record["num_keypoints"] = int((points[:, 2] > 0).sum())
        else:
            del record["bbox"]
        record["keypoints"] = points.round(1).reshape(-1).tolist()


def _add_federation(
    images: list[dict], categories: list[dict], image: np.ndarray, category: np.ndarray, rng: np.random.Generator
) -> None:
    """LVIS' lists of categories in each image, and how frequent each category is."""
    of_image: list[set[int]] = [set() for _ in images]
    for i, c in zip(image.tolist(), category.tolist(), strict=True):
        of_image[i].add(c + 1)
    for record, there in zip(images, of_image, strict=True):
        absent = set(rng.integers(1, LVIS_CATEGORIES + 1, 8).tolist()) - there
        record["neg_category_ids"] = sorted(absent)
        record["not_exhaustive_category_ids"] = sorted(there)[: int(rng.integers(0, 3))]
    shown = np.bincount(np.unique(np.stack([category, image]), axis=1)[0], minlength=LVIS_CATEGORIES)
    for record, count in zip(categories, shown.tolist(), strict=True):
        record.update(image_count=count, frequency="r" if count <= 10 else "c" if count <= 100 else "f")


def make_panoptic_files(
    folder: Path, images: int, distinct: int = 50, segments: int = 20, size: tuple[int, int] = (HEIGHT, WIDTH)
) -> None:
    """`gt.json`, `dt.json` and folders `gt`, `dt` of PNG files as Pillow writes them by itself.

    Ground truth with wavy regions, void and crowds; predictions with moved borders and some wrong classes.

    Args:
        distinct: pictures of each kind that are made; several images name one file.
    """
    rng = np.random.default_rng(0)
    truth, predicted = [], []
    for part in ("gt", "dt"):
        (folder / part).mkdir(parents=True)
    for image in range(min(images, distinct)):
        ys, xs = np.mgrid[: size[0], : size[1]].astype(np.float64)
        wave = _wave(rng, size)
        centers = rng.random((segments, 2)) * size
        ids = 1 + rng.choice(2**24 - 2, size=segments, replace=False)
        true_row = _nearest(centers, ys + 6 * wave[0], xs + 6 * wave[1])
        wave = _wave(rng, size)
        pred_row = _nearest(centers + rng.normal(0, 4, centers.shape), ys + 6 * wave[0], xs + 6 * wave[1])
        classes = rng.integers(len(PANOPTIC), size=segments)
        guesses = np.where(rng.random(segments) < 0.8, classes, rng.integers(len(PANOPTIC), size=segments))
        row_of = {int(i): row for row, i in enumerate(ids)}
        for part, rows, labels, records in (("gt", true_row, classes, truth), ("dt", pred_row, guesses, predicted)):
            pixels = ids[rows]
            pixels[(wave[0] > 1.2) & (rows % 3 == 0)] = 0
            present, areas = np.unique(pixels[pixels > 0], return_counts=True)
            infos = [
                {
                    "id": i,
                    "category_id": PANOPTIC[labels[row_of[i]]]["id"],
                    "area": area,
                    "iscrowd": int(part == "gt" and row_of[i] == 0),
                }
                for i, area in zip(present.tolist(), areas.tolist(), strict=True)
            ]
            colors = np.stack([pixels & 255, pixels >> 8 & 255, pixels >> 16], axis=-1).astype(np.uint8)
            Image.fromarray(colors).save(folder / part / f"{image}.png")
            records.append({"image_id": image, "file_name": f"{image}.png", "segments_info": infos})
    for records in (truth, predicted):
        records += [{**records[image % len(records)], "image_id": image} for image in range(len(records), images)]
    listed = [{"id": i, "height": size[0], "width": size[1], "file_name": f"{i}.jpg"} for i in range(images)]
    (folder / "gt.json").write_text(json.dumps({"images": listed, "annotations": truth, "categories": PANOPTIC}))
    (folder / "dt.json").write_text(json.dumps({"annotations": predicted}))


def _wave(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """(2, H, W): smooth noise about 0, of size about 1."""
    ys, xs = np.mgrid[: size[0], : size[1]] / 40.0
    waves = [
        sum(np.sin(f * (a * ys + b * xs) + c) for f, a, b, c in rng.normal(1, 1, (4, 4))) / 2**0.5 for _ in range(2)
    ]
    return np.stack(waves)


def _nearest(centers: np.ndarray, ys: np.ndarray, xs: np.ndarray) -> np.ndarray:
    distances = [(ys - y) ** 2 + (xs - x) ** 2 for y, x in centers]
    return np.argmin(distances, axis=0)
