"""The format `semantic_folder`: pairs, classes, and what is wrong with them."""

import hashlib
import json

import numpy as np
import pytest

from vertebra.config import load_recipe
from vertebra.data import LabelReader, Mapper, SemanticFolderFormat, load_dataset
from vertebra.errors import DataError

LABELS = np.array([[0, 1, 2], [2, 1, 255]])
CLASSES = ["sky", "road", "car"]


def labels_of(dataset, row=0):
    return LabelReader(dataset.metadata).read(dataset[row]).tolist()


def test_files_of_one_name_are_a_pair(write_pair, tmp_path):
    write_pair("images/b.png", "masks/b.png", LABELS)
    write_pair("images/a.jpg", "masks/a.png", LABELS)
    write_pair("images/town/a.jpg", "masks/town/a.png", LABELS)
    dataset = SemanticFolderFormat("images", "masks", CLASSES).load(str(tmp_path))
    assert [item["image_id"] for item in dataset] == ["a", "b", "town/a"]
    assert dataset[0] == {
        "file_name": str(tmp_path / "images/a.jpg"),
        "sem_seg_file_name": str(tmp_path / "masks/a.png"),
        "image_id": "a",
        "height": 2,
        "width": 3,
    }
    assert dataset.metadata.stuff_classes == CLASSES
    assert dataset.fields == {"sem_seg_file_name"}


def test_the_mapper_gives_labels_from_0_and_255(write_pair, tmp_path):
    write_pair("images/a.png", "masks/a.png", LABELS + 1)
    form = SemanticFolderFormat("images", "masks", CLASSES, label_map={1: 0, 2: 1, 3: 2, 256: 255})
    dataset = form.load(str(tmp_path))
    mapped = Mapper([], training=True, metadata=dataset.metadata, fields=dataset.fields)(dataset[0])
    assert mapped["sem_seg"].tolist() == LABELS.tolist()
    assert "sem_seg_file_name" not in mapped
    assert "sem_seg" not in Mapper([], training=False, metadata=dataset.metadata)(dataset[0])


def test_endings_are_no_part_of_the_name(write_pair, tmp_path):
    write_pair("images/a_photo.png", "masks/a_L.png", LABELS)
    write_pair("images/b_photo.png", "masks/b_L.png", LABELS)
    write_pair("images/b.png", "masks/b_color.png", LABELS)
    form = SemanticFolderFormat("images", "masks", CLASSES, image_ending="_photo", mask_ending="_L")
    assert [item["image_id"] for item in form.load(str(tmp_path))] == ["a", "b"]


def test_a_list_chooses_images_and_their_order(write_pair, tmp_path):
    for name in "abc":
        write_pair(f"images/{name}.png", f"masks/{name}.png", LABELS)
    (tmp_path / "some.txt").write_text("# my choice\nc 7\n\na\n")
    dataset = SemanticFolderFormat("images", "masks", CLASSES, names="some.txt").load(str(tmp_path))
    assert [item["image_id"] for item in dataset] == ["c", "a"]


def test_files_without_a_partner_are_told_all_at_once_or_left_out(write_pair, tmp_path):
    write_pair("images/a.png", "masks/a.png", LABELS)
    write_pair("images/b.png", "elsewhere/b.png", LABELS)
    write_pair("elsewhere/c.png", "masks/c.png", LABELS)
    with pytest.raises(DataError) as caught:
        SemanticFolderFormat("images", "masks", CLASSES).load(str(tmp_path))
    text = str(caught.value)
    assert "2 faults" in text
    assert f"b.png: has no label file {tmp_path}/masks/b.png" in text
    assert f"{tmp_path}/masks/c.png: is a label file without an image c.*" in text
    form = SemanticFolderFormat("images", "masks", CLASSES, unpaired="leave_out")
    assert [item["image_id"] for item in form.load(str(tmp_path))] == ["a"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "images/a.jpg").write_bytes(b""), "two files have this name: a.jpg and a.png"),
        (lambda folder: (folder / "images/a.png").unlink(), "no image file there"),
        (lambda folder: (folder / "masks").rename(folder / "labels"), "masks: no such folder.*data.root"),
        (lambda folder: (folder / "some.txt").write_text("a\nz\n"), "z: there is no image z"),
        (lambda folder: (folder / "some.txt").write_text("\n"), "names no image"),
        (lambda folder: (folder / "images/a.png").write_bytes(b"no image"), "not an image"),
    ],
)
def test_folders_that_cannot_be(write_pair, tmp_path, change, words):
    write_pair("images/a.png", "masks/a.png", LABELS)
    (tmp_path / "some.txt").write_text("a\n")
    listed = {"names": "some.txt"} if "image z" in words or "names no" in words else {}
    change(tmp_path)
    with pytest.raises(DataError, match=words):
        SemanticFolderFormat("images", "masks", CLASSES, **listed).load(str(tmp_path))


def test_names_that_never_agree_are_told(write_pair, tmp_path):
    write_pair("images/a.png", "masks/b.png", LABELS)
    with pytest.raises(DataError, match="the names must agree"):
        SemanticFolderFormat("images", "masks", CLASSES, unpaired="leave_out").load(str(tmp_path))


def test_an_image_and_labels_of_two_sizes_are_told_when_they_are_read(write_pair, tmp_path):
    write_pair("images/a.png", "masks/a.png", LABELS)
    write_pair("other/a.png", "masks/a.png", LABELS.T)
    dataset = SemanticFolderFormat("images", "masks", CLASSES).load(str(tmp_path))
    with pytest.raises(DataError, match=r"masks/a\.png: the labels have 2x3 pixels .*their image 3x2"):
        Mapper([], training=True, metadata=dataset.metadata)(dataset[0])


def test_masks_of_colors_and_palettes(write_pair, tmp_path):
    colors = [[128, 0, 0], [0, 128, 0], [0, 0, 128]]
    palette = [0, 0, 0, *np.ravel(colors).tolist()]
    write_pair("images/a.png", "masks/a.png", np.array([*colors, [0, 0, 0]], np.uint8)[[[0, 1, 2], [2, 1, 3]]])
    form = SemanticFolderFormat("images", "masks", CLASSES, colors=colors, ignored_colors=[[0, 0, 0]])
    assert labels_of(form.load(str(tmp_path))) == LABELS.tolist()
    write_pair("images/a.png", "masks/a.png", [[1, 2, 3], [3, 2, 0]], palette=palette)
    assert labels_of(form.load(str(tmp_path))) == LABELS.tolist()  # by color
    form = SemanticFolderFormat("images", "masks", CLASSES, label_map={0: 255, 1: 0, 2: 1, 3: 2})
    assert labels_of(form.load(str(tmp_path))) == LABELS.tolist()  # by index


def test_classes_from_files(write_pair, tmp_path):
    write_pair("images/a.png", "masks/a.png", [[0, 50, 100], [100, 50, 9]])
    entries = [
        {"name": "sky", "mask_value": 0, "colour": [1, 2, 3]},
        {"name": "road", "mask_value": 50, "color": [4, 5, 6]},
        {"name": "car", "mask_value": 100, "colour": [7, 8, 9]},
        {"name": "void", "mask_value": 9, "ignore": True},
    ]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": entries}))
    dataset = SemanticFolderFormat("images", "masks", "classes.json").load(str(tmp_path))
    assert dataset.metadata.stuff_classes == CLASSES
    assert dataset.metadata.stuff_colors == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert labels_of(dataset) == LABELS.tolist()
    for file, text in (("names.txt", "sky\n\nroad\ncar\n"), ("names.json", json.dumps(CLASSES))):
        (tmp_path / file).write_text(text)
        assert SemanticFolderFormat("images", "masks", file).load(str(tmp_path)).metadata.stuff_classes == CLASSES


def test_colors_of_a_classes_file_may_be_those_in_the_masks(write_pair, tmp_path):
    write_pair("images/a.png", "masks/a.png", np.uint8([[[1, 2, 3], [4, 5, 6], [0, 0, 0]]]))
    entries = [{"name": "a", "colour": [1, 2, 3]}, {"name": "b", "colour": [4, 5, 6]}]
    entries.append({"name": "void", "colour": [0, 0, 0], "ignore": True})
    (tmp_path / "classes.json").write_text(json.dumps(entries))
    dataset = SemanticFolderFormat("images", "masks", "classes.json", colors=True).load(str(tmp_path))
    assert labels_of(dataset) == [[0, 1, 255]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"labels": []}', 'the list "classes"'),
        ('[{"title": "a"}, {"name": "b", "index": -1}]', "(?s)2 faults.*class 0.*class 1"),
        ('[{"name": "a", "colour": [1, 2]}]', r"its color is \[1, 2\], expected \[red"),
        ('[{"name": "a", "index": 1}, {"name": "b", "index": 3}]', r"numbers \[1, 3\].*without gaps"),
        ('{"classes": ["a"], "ignore_label": "x"}', "ignore_label is 'x'"),
        ("[", "not valid JSON"),
    ],
)
def test_class_files_that_cannot_be(write_pair, tmp_path, text, words):
    write_pair("images/a.png", "masks/a.png", LABELS)
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(DataError, match=f"classes.json.*{words}" if not words.startswith("(?s)") else words):
        SemanticFolderFormat("images", "masks", "classes.json").load(str(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"classes": []}, "0 classes"),
        ({"classes": list(map(str, range(300)))}, "300 classes; expected 1 to 255"),
        ({"label_map": {0: 3}}, "label_map has 0: 3; .*class, 0 to 2"),
        ({"label_map": {"one": 1}}, "label_map is .*as {0: 0, 255: 1}"),
        ({"label_map": {70000: 1}}, "label_map has 70000"),
        ({"colors": [[0, 0, 0]]}, "1 colors for 3 classes"),
        ({"colors": [[0, 0, 0], [1, 1, 1], [0, 0, 0]]}, "occurs twice"),
        ({"colors": True}, "0 colors for 3 classes"),
        ({"unpaired": "maybe"}, "unpaired is 'maybe'"),
    ],
)
def test_arguments_that_cannot_be(arguments, words):
    with pytest.raises(DataError, match=words):
        SemanticFolderFormat("images", "masks", **({"classes": CLASSES} | arguments)).load(None)


def test_camvid_from_its_recipe_file_is_read_and_left_as_it_is(shared, tmp_path):
    folder = shared("data/camvid")
    before = _digest(folder)
    dataset = _of_recipe(tmp_path, "camvid", folder, "train")
    assert len(dataset) == 120
    assert dataset.metadata.stuff_classes[0] == "Sky" and len(dataset.metadata.stuff_classes) == 11
    reader = LabelReader(dataset.metadata)
    found = np.unique(np.concatenate([np.unique(reader.read(item)) for item in dataset]))
    assert found.tolist() == [*range(11), 255]
    assert _digest(folder) == before


def test_membranes_become_two_classes(shared, tmp_path):
    folder = shared("data/membrane")
    dataset = _of_recipe(tmp_path, "membrane", folder, "val")
    counts = sum(np.bincount(LabelReader(dataset.metadata).read(item).ravel(), minlength=256) for item in dataset)
    assert len(dataset) == 6 and counts[2:].sum() == 0
    assert 0.15 < counts[0] / counts.sum() < 0.3  # membranes are the fewer


def _of_recipe(folder, name, root, split):
    text = "model: {backbone: {name: ResNet, depth: 18}, heads: {boxes: {name: RetinaNetHead}}}\n"
    (folder / "recipe.yaml").write_text(f'_base_: "datasets:{name}"\n{text}')
    recipe = load_recipe(folder / "recipe.yaml", [f"data.root={root}"])
    return load_dataset(getattr(recipe.data, split), recipe.data.root)


def _digest(folder):
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.rglob("*.png")))).hexdigest()
