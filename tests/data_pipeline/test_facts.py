from vertebra.data import CocoFormat
from vertebra.data.facts import describe_dataset
from vertebra.data.missing_classes import missing_objects


def test_a_description_counts_objects_by_class(coco_folder):
    images = {"a.png": (40, 60), "b.png": (50, 60)}
    boxes = [(1, 1, [0, 0, 5, 5]), (1, 1, [0, 0, 40, 40]), (1, 2, [0, 0, 5, 5])]
    crowd = {"image_id": 2, "category_id": 1, "bbox": [0, 0, 5, 5], "iscrowd": 1}
    text = describe_dataset(CocoFormat(*coco_folder(images, [*boxes, crowd])).load())
    for line in (
        "images     2 (1 without objects)",
        "size       60 to 60 x 40 to 50 pixels (width x height)",
        "objects    3 in 2 classes, 1.5 per image",
        "small 2, medium 1, large 0",
        "crowds     1",
    ):
        assert line in text
    assert text.splitlines()[-2].split() == ["cat", "2", "66.7%", "1"]


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
