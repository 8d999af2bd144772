"""What docs/semantic.md shows works as it stands, and names nothing that is not there."""

import re

import numpy as np
import pytest
import torch

from vertebra import load_recipe
from vertebra.data import LabelReader, SemanticFolderFormat
from vertebra.errors import DataError
from vertebra.models.inference import with_inference
from vertebra.registry import PARTS, TRANSFORMS

MODEL = "model: {backbone: {name: ResNet, depth: 18}, heads: {boxes: {name: RetinaNetHead}}}\n"


@pytest.fixture(scope="module")
def page(repository):
    return (repository / "docs" / "semantic.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def blocks(page):
    return re.findall(r"^```(\w+)\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)


def test_the_recipes_of_the_page_are_valid(blocks, tmp_path):
    recipes = [text for language, text in blocks if language == "yaml"]
    assert len(recipes) == 3
    for text in recipes:
        (tmp_path / "recipe.yaml").write_text(text if "model:" in text else MODEL + text)
        assert load_recipe(tmp_path / "recipe.yaml")


def test_the_way_to_predict_of_the_page_works(blocks, tmp_path):
    (code,) = (text for language, text in blocks if language == "python")
    (tmp_path / "mine.py").write_text(code)
    (tmp_path / "recipe.yaml").write_text(f"plugins: [./mine.py]\n{MODEL}evaluate: {{inference: Sharpened}}\n")
    try:
        mode = load_recipe(tmp_path / "recipe.yaml").evaluate.inference
        predict = with_inference(lambda inputs: [{"sem_seg": torch.ones(2, 1, 1)} for _ in inputs], mode)
        assert predict([{}])[0]["sem_seg"].tolist() == [[[2.0]], [[2.0]]]
    finally:
        PARTS._obj_map.pop("Sharpened", None)


def test_the_transforms_of_the_table_are_there(page):
    table = page[page.index("| transform |") : page.index("Padding gets")]
    names = re.findall(r"`([A-Z]\w+)`", table)
    assert len(names) >= 10
    assert all(TRANSFORMS.get(name) for name in names)


def test_the_error_of_the_page_is_the_one_that_is_given(page, write_pair, tmp_path):
    (line,) = re.findall(r"^    masks/a\.png: (.*)$", page, flags=re.MULTILINE)
    labels = np.zeros((28, 29), np.uint8)
    labels.reshape(-1)[:812] = 3
    labels[-1, -1] = 2
    write_pair("images/a.png", "masks/a.png", labels)
    dataset = SemanticFolderFormat("images", "masks", ["sky", "road", "car"]).load(str(tmp_path))
    with pytest.raises(DataError) as caught:
        LabelReader(dataset.metadata).read(dataset[0])
    said = str(caught.value).splitlines()[0].removeprefix(f"{tmp_path}/masks/a.png: ")
    assert said == line.replace("812", str((labels == 3).sum()))
