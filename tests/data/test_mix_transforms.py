"""Mosaic, MixUp, RandomAffine, HSVJitter: pixels, boxes, masks and classes stay together, and nothing depends on chance
beyond the seed."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from vertebra.config import load_recipe
from vertebra.data import CocoFormat, Mapper, Sample
from vertebra.data.build import build_mapper, build_train_loader, load_dataset
from vertebra.data.loader import TrainLoader
from vertebra.data.transforms import HSVJitter, MixUp, Mosaic, RandomAffine, RandomFlip, ResizeLetterbox
from vertebra.errors import DataError, RecipeError
from vertebra.structures import BitMasks, PolygonMasks

COLORS = ((250, 20, 20), (20, 250, 20), (20, 20, 250), (250, 250, 20))  # of the classes
BACK = 90


@pytest.fixture
def colored(tmp_path):
    """A COCO set of images with two rectangles each, in the color of their class, on gray; with polygons."""

    def write(count=6, keypoints=False):
        rng = np.random.default_rng(0)
        images, annotations = [], []
        for i in range(count):
            height, width = 60 + 4 * i, 80
            pixels = np.full((height, width, 3), BACK, np.uint8)
            images.append({"id": i + 1, "file_name": f"{i}.png", "height": height, "width": width})
            for x, y in ((5, 6), (45, 30)):
                w, h, kind = (int(value) for value in (*rng.integers(14, 28, 2), rng.integers(0, 4)))
                pixels[y : y + h, x : x + w] = COLORS[kind]
                outline = [x, y, x + w, y, x + w, y + h, x, y + h]
                record = {"image_id": i + 1, "category_id": kind + 1, "bbox": [x, y, w, h], "segmentation": [outline]}
                if keypoints:
                    record["keypoints"] = [x + w / 2, y + h / 2, 2]
                annotations.append({"id": len(annotations) + 1, "iscrowd": 0, **record})
            Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        categories = [{"id": k + 1, "name": name} for k, name in enumerate("abcd")]
        if keypoints:
            categories[0] |= {"keypoints": ["middle"], "skeleton": []}
        content = {"images": images, "annotations": annotations, "categories": categories}
        (tmp_path / "data.json").write_text(json.dumps(content))
        return CocoFormat(str(tmp_path / "data.json"), str(tmp_path)).load()

    return write


def make_mapper(dataset, transforms, **settings):
    settings = {"training": True, "others": dataset.dicts} | settings
    return Mapper(transforms, metadata=dataset.metadata, fields=dataset.fields, **settings)


def check_colors(result):
    """Most pixels of every mask, many of every box, are nearest to the color of its class. The number of objects."""
    image, found = result["image"].permute(1, 2, 0).numpy().astype(int), result["instances"]
    palette = np.array([*COLORS, (BACK,) * 3, (114,) * 3])
    nearest = np.abs(image[:, :, None] - palette).sum(axis=-1).argmin(axis=-1)  # (H, W)
    masks = found.gt_masks
    if isinstance(masks, PolygonMasks):
        masks = BitMasks.from_polygon_masks(masks, *found.image_size)
    for box, kind, mask in zip(found.gt_boxes.tensor, found.gt_classes.tolist(), masks.tensor.numpy(), strict=True):
        x0, y0, x1, y1 = box.round().int().tolist()
        assert (nearest[y0:y1, x0:x1] == kind).mean() > 0.25
        assert (nearest[mask] == kind).mean() > 0.6
    return len(found)


PIPELINES = {
    "mosaic": [Mosaic()],
    "mosaic and affine": [Mosaic(), RandomAffine(96, degrees=20, shear=5, scale=(0.7, 1.3))],
    "perspective": [RandomAffine(96, perspective=0.001)],
    "all": [
        ResizeLetterbox(96, pad=False),
        Mosaic(0.7),
        RandomAffine(96, degrees=10, translate=0.2, scale=(0.5, 1.5)),
        RandomFlip(0.5, vertical=True),
    ],
}


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_every_box_keeps_its_object_and_class(colored, name, mask_format):
    dataset = colored()
    mapper = make_mapper(dataset, PIPELINES[name], mask_format=mask_format)
    seen = sum(check_colors(mapper(dataset[i], epoch, i)) for epoch in range(4) for i in range(len(dataset)))
    assert seen > 40


def test_four_images_meet_in_one_point(colored):
    dataset = colored()
    result = make_mapper(dataset, [Mosaic(fill=7)])(dataset[0])
    height, width = result["image"].shape[1:]
    assert width == 160 and height % 2 == 0 and 120 <= height <= 160  # twice the largest
    assert len(result["instances"]) >= 4
    corners = result["image"][:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert set(corners.flatten().tolist()) <= {7, BACK} | {value for color in COLORS for value in color}
    centered = make_mapper(dataset, [Mosaic(center=0.0)])(dataset[5])  # all of the size of the largest touch the middle
    assert centered["image"][:, height // 2, width // 2] is not None


def test_a_mosaic_around_an_edge_drops_what_is_cut_off(colored):
    dataset = colored()
    mapper = make_mapper(dataset, [Mosaic(center=1.0)])
    for epoch in range(30):  # the point may lie on the border of the canvas
        check_colors(mapper(dataset[1], epoch, 1))


def test_mixup_is_the_weighted_mean_with_the_objects_of_both(colored):
    dataset = colored()
    result = make_mapper(dataset, [MixUp(1.0, alpha=1e6)])(dataset[5])  # half and half
    assert len(result["instances"]) == 4
    assert result["image"][:, 0, 0].tolist() == [BACK] * 3
    assert make_mapper(dataset, [MixUp(0.0)])(dataset[5])["image"].shape == (3, 80, 80)


def test_equal_arguments_give_equal_samples_and_others_others(colored):
    dataset = colored()
    first = make_mapper(dataset, PIPELINES["all"], seed=5)(dataset[2], 3, 2)
    again = make_mapper(dataset, PIPELINES["all"], seed=5)(dataset[2], 3, 2)
    assert torch.equal(first["image"], again["image"])
    assert torch.equal(first["instances"].gt_boxes.tensor, again["instances"].gt_boxes.tensor)
    for seed, *key in ((6, 3, 2), (5, 4, 2), (5, 3, 1), (5, 3, 2, 1)):
        other = make_mapper(dataset, PIPELINES["all"], seed=seed)(dataset[2], *key)
        assert not torch.equal(first["image"], other["image"])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_that_starts_later_gives_the_same_mosaics(colored, workers):
    dataset = colored()
    mapper = make_mapper(dataset, PIPELINES["all"])

    def images(workers, start, count):
        batches = TrainLoader(dataset, mapper, 2, workers=workers).batches(start)
        return [one["image"] for _, batch in zip(range(count), batches, strict=False) for one in batch]

    whole, rest = images(0, 0, 6), images(workers, 4, 2)
    assert all(torch.equal(a, b) for a, b in zip(whole[8:], rest, strict=True))


def test_the_last_epochs_do_not_mix(colored):
    dataset = colored()
    mapper = make_mapper(dataset, [Mosaic()], mix_epochs=2)
    assert [mapper(dataset[0], epoch)["image"].shape[2] for epoch in range(4)] == [160, 160, 80, 80]


def test_the_recipe_says_when_mixing_ends(colored, tmp_path):
    colored()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "model: {backbone: ResNet, neck: FPN, heads: {boxes: RetinaNetHead}}\n"
        f"data: {{root: {tmp_path}, train: {{format: coco, annotations: data.json, images: .}},\n"
        "  train_transforms: [Mosaic], close_mixing_epochs: 3, workers: 0}\n"
        "train: {epochs: 10, batch_size: 2}\n"
    )
    loaded = load_recipe(str(recipe))
    dataset = load_dataset(loaded.data.train, loaded.data.root)
    assert build_mapper(loaded, dataset, training=True).mix_epochs == 7
    by_steps = load_recipe(str(recipe), ["train.epochs=null", "train.steps=30"])  # 6 images, 2 a step
    assert build_mapper(by_steps, dataset, training=True).mix_epochs == 7
    assert build_train_loader(loaded).mapper.others
    with pytest.raises(RecipeError, match="close_mixing_epochs"):
        load_recipe(str(recipe), ["data.close_mixing_epochs=-1"])


def test_evaluation_never_mixes(colored):
    dataset = colored()
    result = make_mapper(dataset, [Mosaic()], training=False, others=None)(dataset[0])
    assert result["image"].shape == (3, 60, 80)


def test_a_damaged_image_is_named_not_the_one_it_was_drawn_for(colored, tmp_path):
    dataset = colored(6)
    (tmp_path / "2.png").write_bytes(b"no image")
    mapper = make_mapper(dataset, [Mosaic()])
    with pytest.raises(DataError, match=r"2\.png"):
        for epoch in range(20):
            mapper(dataset[0], epoch, 0)
    loader = TrainLoader(dataset, mapper, 2, max_bad_images=1)
    for _, batch in zip(range(10), loader.batches(), strict=False):
        assert len(batch) == 2  # one bad image, however often it is drawn


def test_affine_without_amounts_brings_the_middle_to_the_middle():
    pixels = torch.randint(0, 255, (3, 20, 30), dtype=torch.uint8)
    sample = Sample(pixels.clone(), boxes=np.array([[10.0, 5, 20, 15]]), rows=np.arange(1))
    still = RandomAffine(translate=0, scale=(1.0, 1.0))(sample, np.random.default_rng(0))
    assert torch.equal(still.image, pixels) and still.boxes.tolist() == [[10, 5, 20, 15]]
    larger = RandomAffine([40, 50], translate=0, scale=(1.0, 1.0), fill=9)(still, np.random.default_rng(0))
    assert torch.equal(larger.image[:, 10:30, 10:40], pixels) and (larger.image[:, :10] == 9).all()
    assert larger.boxes.tolist() == [[20, 15, 30, 25]]


def test_affine_drops_what_is_hardly_left():
    sample = Sample(torch.zeros(3, 100, 100, dtype=torch.uint8))
    sample.boxes = np.array([[0.0, 0, 30, 30], [45, 45, 55, 55], [22, 40, 28, 60]])
    sample.rows = np.arange(3)
    cut = RandomAffine(50, translate=0, scale=(1.0, 1.0), min_visible=0.1)(sample, np.random.default_rng(0))
    assert cut.rows.tolist() == [1, 2]  # 25 of 900 square pixels of the first are left, half of the last
    assert cut.boxes.tolist() == [[20, 20, 30, 30], [0, 15, 3, 35]]


def test_keypoints_and_labels_go_along():
    labels = torch.zeros(40, 40, dtype=torch.uint8)
    labels[10:20, 10:20] = 3
    sample = Sample(torch.zeros(3, 40, 40, dtype=torch.uint8), sem_seg=labels)
    sample.boxes, sample.rows = np.array([[10.0, 10, 20, 20]]), np.arange(1)
    sample.keypoints = np.array([[[15.0, 15, 2], [39, 39, 2]]])
    quarter = np.array([[0.0, -1, 40], [1, 0, 0], [0, 0, 1]])  # (x, y) to (40 - y, x)
    turned = sample.warp(quarter, 40, 40)
    assert turned.boxes.tolist() == [[20, 10, 30, 20]]
    assert turned.keypoints[0].tolist() == [[25, 15, 2], [1, 39, 2]]
    assert (turned.sem_seg[10:20, 20:30] == 3).all() and (turned.sem_seg == 3).sum() == 100
    shifted = turned.warp(np.array([[1.0, 0, 0], [0, 1, 15], [0, 0, 1]]), 40, 40)
    assert (shifted.sem_seg[:15] == 255).all()
    assert shifted.keypoints[0, 1, 2] == 0  # below the border: not labeled


def test_hsv_keeps_places_and_does_nothing_without_amounts():
    pixels = torch.randint(0, 255, (3, 20, 30), dtype=torch.uint8)
    same = HSVJitter(0, 0, 0)(Sample(pixels.clone()), np.random.default_rng(0))
    assert torch.equal(same.image, pixels)
    gray = HSVJitter(0.5, 0.5, 0.0)(Sample(torch.full((3, 8, 8), 120, dtype=torch.uint8)), np.random.default_rng(0))
    assert (gray.image == 120).all()  # gray has neither hue nor saturation
    bright = HSVJitter(0, 0, 0.5)(Sample(torch.full((3, 8, 8), 100, dtype=torch.uint8)), np.random.default_rng(0))
    assert bright.image.unique().numel() == 1 and 50 <= int(bright.image[0, 0, 0]) <= 150


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Mosaic(prob=2), "prob"),
        (lambda: MixUp(alpha=0), "alpha above 0"),
        (lambda: RandomAffine(scale=(2.0, 1.0)), "scale"),
        (lambda: RandomAffine(0), "size"),
        (lambda: RandomAffine(shear=90), "shear"),
        (lambda: HSVJitter(hue=2), "hue=2"),
    ],
)
def test_settings_that_make_no_sense_are_told(make, words):
    with pytest.raises(ValueError, match=words):
        make()
