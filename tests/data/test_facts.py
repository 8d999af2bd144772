import re
from pathlib import Path

import numpy as np
from PIL import Image

from vertebra.data import CocoFormat
from vertebra.data.facts import describe_dataset
from vertebra.data.images.survey import survey_images
from vertebra.data.missing_classes import missing_objects


def test_a_description_counts_objects_by_class(coco_folder):
    images = {"a.png": (40, 60), "b.png": (50, 60)}
    boxes = [(1, 1, [0, 0, 5, 5]), (1, 1, [0, 0, 40, 40]), (1, 2, [0, 0, 5, 5])]
    crowd = {"image_id": 2, "category_id": 1, "bbox": [0, 0, 5, 5], "iscrowd": 1}
    text = describe_dataset(CocoFormat(*coco_folder(images, [*boxes, crowd])).load())
    for line in (
        "images     2 (1 without objects, first: ",
        "size       60 to 60 x 40 to 50 pixels (width x height)",
        "objects    3 in 2 classes, 1.5 per image",
        "small 2, medium 1, large 0",
        "crowds     1 (first: ",
    ):
        assert line in text
    assert text.splitlines()[-2].split() == ["cat", "2", "66.7%", "1"]


def test_a_sample_of_the_images_is_opened(coco_folder):
    names = ("good.png", "clear.png", "other_size.png", "turned.jpg", "turned_wrong.jpg", "deep.png", "text.png")
    annotations, folder = coco_folder({name: (4, 6) for name in names}, [(1, 1, [0, 0, 3, 3])])
    folder = Path(folder)
    pixels = np.full((4, 6, 3), 100, np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.dstack([pixels, pixels[..., 0]])).save(folder / "clear.png")
    Image.fromarray(pixels[:3]).save(folder / "other_size.png")
    Image.fromarray(pixels.transpose(1, 0, 2)).save(folder / "turned.jpg", exif=exif)
    Image.fromarray(pixels).save(folder / "turned_wrong.jpg", exif=exif)
    Image.fromarray(np.full((4, 6), 5000, np.uint16)).save(folder / "deep.png")
    (folder / "text.png").write_text("no image")
    text = describe_dataset(CocoFormat(annotations, str(folder)).load())
    assert "opened     7 of 7 images, 1 of them cannot be read\n" in text
    assert "warning: 1 of 7 images cannot be read:\n" in text and "text.png: not an image" in text
    for what in (
        "clear.png has transparent pixels",
        "deep.png has 16 bits a channel",
        "other_size.png is not as high and wide as its record says",
        "turned_wrong.jpg has the sides that its record says only before its EXIF orientation",
    ):
        assert re.search(rf"note: 1 of 7 images: \S*{what}", text), what
    assert re.search(r"note: 2 of 7 images: \S*turned.jpg is turned upright by its EXIF orientation", text)


def test_of_many_images_some_all_over_the_dataset_are_opened(coco_folder):
    dataset = CocoFormat(*coco_folder({f"{n}.png": (4, 6) for n in range(25)}, [])).load()
    for number in (0, 9, 24):
        open(dataset[number]["file_name"], "w").close()
    survey = survey_images(dataset, most=10)
    assert (survey.opened, survey.images, len(survey.unreadable)) == (10, 25, 1)
    assert survey_images([], most=10).opened == 0


def test_a_dataset_without_objects_is_described_too(coco_folder):
    assert "objects    0 in 2 classes" in describe_dataset(CocoFormat(*coco_folder({"a.png": (4, 6)}, [])).load())


def test_classes_without_objects_are_named_with_the_remedy(coco_folder):
    crowd = {"image_id": 2, "category_id": 0, "bbox": [0, 0, 5, 5], "iscrowd": 1}
    categories = ((0, "background"), (1, "cat"), (2, "dog"))
    files = coco_folder({"a.png": (9, 9), "b.png": (9, 9)}, [(1, 1, [0, 0, 5, 5]), crowd], categories)
    dataset = CocoFormat(*files).load()
    found = missing_objects(dataset)
    assert "no object has the class background, dog." in found.text and "classes: [cat] (format coco)" in found.text
    assert not found.nothing
    assert describe_dataset(dataset).endswith(f"\n\nwarning: {found.text}")
    assert missing_objects(CocoFormat(*files, classes=["cat"]).load()) is None


def test_a_dataset_without_any_object_is_named(coco_folder):
    found = missing_objects(CocoFormat(*coco_folder({"a.png": (4, 6)}, [])).load())
    assert found.nothing and "none of its 1 images has an object (cat, dog)" in found.text
