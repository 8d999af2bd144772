"""Public semantic datasets in the folders in which they are distributed, a few pixels of each."""

import re

import numpy as np
import pytest

from vertebra.config import find_recipe, list_recipes, load_recipe
from vertebra.config.bases import read_with_bases
from vertebra.data import LabelReader, load_dataset
from vertebra.errors import DataError
from vertebra.evaluation import SemSegEvaluator
from vertebra.registry import FORMATS
from vertebra_datasets import (
    ADE20KFormat,
    CityscapesFormat,
    CocoStuffFormat,
    OxfordPetsFormat,
    VOCSegmentationFormat,
)
from vertebra_datasets.class_names import ADE20K, COCO_STUFF

BASES = [
    "ade20k",
    "camvid",
    "cityscapes",
    "coco_stuff",
    "membrane",
    "oxford_pets",
    "oxford_pets_trimap",
    "shapes_semantic",
    "voc_segmentation",
]


def labels_of(dataset, row=0):
    return LabelReader(dataset.metadata).read(dataset[row]).tolist()


def test_cityscapes_ids_become_train_ids(write_pair, tmp_path):
    write_pair(
        "leftImg8bit/val/ulm/ulm_000000_000019_leftImg8bit.png",
        "gtFine/val/ulm/ulm_000000_000019_gtFine_labelIds.png",
        [[0, 3, 7, 8, 11], [26, 29, 31, 33, 6]],
    )
    write_pair("rest/x.png", "gtFine/val/ulm/ulm_000000_000019_gtFine_color.png", [[0]])
    dataset = CityscapesFormat("val").load(str(tmp_path))
    assert [item["image_id"] for item in dataset] == ["ulm/ulm_000000_000019"]
    assert labels_of(dataset) == [[255, 255, 0, 1, 2], [13, 255, 16, 18, 255]]
    names = dataset.metadata.stuff_classes
    assert len(names) == 19 and (names[0], names[13], names[18]) == ("road", "car", "bicycle")
    assert dataset.metadata.stuff_colors[10] == [70, 130, 180]


def test_ade20k_counts_from_one_and_ignores_zero(write_pair, tmp_path):
    write_pair("images/training/ADE_1.jpg", "annotations/training/ADE_1.png", [[0, 1, 2, 150]])
    dataset = ADE20KFormat("training").load(str(tmp_path))
    assert labels_of(dataset) == [[255, 0, 1, 149]]
    assert len(set(ADE20K)) == 150
    assert [ADE20K[number] for number in (0, 1, 20, 149)] == ["wall", "building", "car", "flag"]


def test_voc_takes_the_images_of_a_list_and_the_indices_of_palettes(write_pair, tmp_path):
    for name in ("2007_1", "2007_2"):
        palette = list(range(256)) * 3
        write_pair(f"JPEGImages/{name}.jpg", f"SegmentationClass/{name}.png", [[0, 15, 20, 255]], palette=palette)
    write_pair("JPEGImages/2008_1.jpg", "SegmentationObject/2008_1.png", [[0]])
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("2007_2\n")
    dataset = VOCSegmentationFormat("val").load(str(tmp_path))
    assert [item["image_id"] for item in dataset] == ["2007_2"]
    assert labels_of(dataset) == [[0, 15, 20, 255]]
    assert dataset.metadata.stuff_classes[15] == "person"
    (lists / "train.txt").write_text("2008_1\n")
    with pytest.raises(DataError, match=r"2008_1.jpg: has no label file .*SegmentationClass"):
        VOCSegmentationFormat("train").load(str(tmp_path))


def test_coco_stuff_has_no_gaps(write_pair, tmp_path):
    write_pair("val2017/000000000001.jpg", "stuffthingmaps/val2017/000000000001.png", [[0, 10, 12, 89, 91, 181, 255]])
    dataset = CocoStuffFormat("val2017").load(str(tmp_path))
    names = dataset.metadata.stuff_classes
    assert len(names) == 171 and len(set(names)) == 171
    assert labels_of(dataset) == [[0, 10, 11, 79, 80, 170, 255]]
    expected = ["person", "fire hydrant", "stop sign", "toothbrush", "banner", "wood"]
    assert [names[label] for label in labels_of(dataset)[0][:-1]] == expected
    assert [number + 1 for number, name in enumerate(COCO_STUFF) if name == "-"] == [
        12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91,
    ]  # fmt: skip
    write_pair("val2017/000000000001.jpg", "stuffthingmaps/val2017/000000000001.png", [[11]])
    with pytest.raises(DataError, match="labels 11 on 1 pixels belong to no class"):
        labels_of(CocoStuffFormat("val2017").load(str(tmp_path)))


@pytest.fixture
def pets(write_pair, tmp_path):
    for name in ("Abyssinian_100", "yorkshire_terrier_7"):
        write_pair(f"images/{name}.jpg", f"annotations/trimaps/{name}.png", [[2, 3, 1, 1, 3, 2]])
    (tmp_path / "annotations" / "trimaps" / "._Abyssinian_100.png").write_bytes(b"left by a Mac")
    (tmp_path / "annotations" / "test.txt").write_text("Abyssinian_100 1 1 1\nyorkshire_terrier_7 37 2 25\n")
    return tmp_path


def test_a_pets_pixels_are_its_breed(pets):
    dataset = OxfordPetsFormat("test", "breeds").load(str(pets))
    assert labels_of(dataset, 0) == [[0, 255, 1, 1, 255, 0]]
    assert labels_of(dataset, 1) == [[0, 255, 37, 37, 255, 0]]
    names = dataset.metadata.stuff_classes
    assert len(names) == 38 and (names[0], names[1], names[37]) == ("background", "Abyssinian", "Yorkshire Terrier")


def test_an_evaluator_reads_each_pets_own_labels(pets):
    import torch

    dataset = OxfordPetsFormat("test", "breeds").load(str(pets))
    evaluator = SemSegEvaluator(dataset, boundary_iou="off")
    for item, label in zip(dataset, (1, 37), strict=True):
        evaluator.process([item], [{"sem_seg": torch.tensor([[0, 5, label, label, 5, 0]])}])
    assert evaluator.evaluate()["sem_seg/mIoU"] == 1


def test_trimaps_are_three_classes(pets):
    dataset = OxfordPetsFormat("test", "trimap").load(str(pets))
    assert labels_of(dataset) == [[1, 2, 0, 0, 2, 1]]
    assert dataset.metadata.stuff_classes == ["pet", "background", "border"]


@pytest.mark.parametrize("line", ["Abyssinian_100 38 1 1", "Abyssinian_100", "Abyssinian_100 cat"])
def test_lists_of_pets_without_breeds_are_told(pets, line):
    (pets / "annotations" / "test.txt").write_text(line + "\n")
    with pytest.raises(DataError, match=r"test\.txt: Abyssinian_100.*expected the breed, 1 to 37"):
        OxfordPetsFormat("test").load(str(pets))
    assert len(OxfordPetsFormat("test", "trimap").load(str(pets))) == 1


def test_a_missing_download_is_told_with_the_way_to_name_it(tmp_path):
    for form in (CityscapesFormat(), ADE20KFormat(), CocoStuffFormat()):
        with pytest.raises(DataError, match=r"no such folder.*data\.root=DIR"):
            form.load(str(tmp_path))
    for form in (VOCSegmentationFormat(), OxfordPetsFormat()):
        with pytest.raises(DataError, match="list of images cannot be read"):
            form.load(str(tmp_path))


def test_the_readme_names_every_base_and_its_format(repository):
    page = (repository / "plugins/datasets/README.md").read_text(encoding="utf-8")
    bases = dict(re.findall(r"`datasets:(\w+)` \| `(\w+)`", page))
    assert {f"datasets:{name}" for name in bases} == {name for name in list_recipes() if name.startswith("datasets:")}
    for name, form in bases.items():
        data = read_with_bases(find_recipe(f"datasets:{name}", repository)).plain()["data"]
        assert (data["train"]["format"], data["val"]["format"]) == (form, form)
        assert FORMATS.get(form)


@pytest.mark.parametrize("name", BASES)
def test_every_dataset_base_makes_a_recipe(name, tmp_path, repository):
    model = "model: {backbone: {name: ResNet, depth: 18}, heads: {boxes: {name: RetinaNetHead}}}\n"
    (tmp_path / "one.yaml").write_text(f'_base_: "datasets:{name}"\n{model}')
    (tmp_path / "two.yaml").write_text(f"_base_: {repository}/configs/bases/{name}.yaml\n{model}")
    one, two = load_recipe(tmp_path / "one.yaml"), load_recipe(tmp_path / "two.yaml")
    assert (one.data, one.evaluate) == (two.data, two.evaluate)
    assert [spec.name for spec in one.evaluate.evaluators] == ["SemSegEvaluator"]
    assert all(spec.build() for spec in (*one.data.train_transforms, *one.data.eval_transforms))
    assert type(one.data.train.build()) is type(one.data.val.build())


def test_shapes_have_a_label_for_every_pixel(tmp_path, monkeypatch):
    monkeypatch.setenv("VERTEBRA_CACHE", str(tmp_path / "cache"))
    model = "model: {backbone: {name: ResNet, depth: 18}, heads: {boxes: {name: RetinaNetHead}}}\n"
    (tmp_path / "one.yaml").write_text(f'_base_: "datasets:shapes_semantic"\n{model}')
    recipe = load_recipe(tmp_path / "one.yaml", ["data.train.images=4", "data.val.images=4"])
    dataset = load_dataset(recipe.data.train)
    labels = np.array(labels_of(dataset))
    assert set(np.unique(labels)) <= {*range(len(dataset.metadata.stuff_classes)), 255}
