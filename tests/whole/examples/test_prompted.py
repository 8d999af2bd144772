"""docs/examples/prompted.py: the classes are words that are given with the image."""

import json
import sys

import pytest
import torch
from PIL import Image
from whole_path import EXAMPLES, code_lines, predicted, trained

from vertebra import FORMATS, DataError, Predictor, ShapeSpec, build_model, load_recipe
from vertebra.testing import HeadConformance

pytestmark = pytest.mark.usefixtures("clean_slate_per_file")
RECIPE = str(EXAMPLES / "prompted.yaml")
SMALL = ("model.neck.out_channels=32", "model.backbone.out_features=[res4, res5]", "model.heads.boxes.num_convs=1")
FEW = tuple(f"data.{split}.{what}=8" for split in ("train", "val") for what in ("images", "val_images"))


class TestPromptedHead(HeadConformance):
    component = "PromptedHead"
    recipe = RECIPE
    overrides = (*SMALL, *FEW)
    inputs = {"text": ["circle", "a square", "triangles"]}
    data = "recipe"


@pytest.fixture
def idea():
    """The module, as the recipe loads it."""
    load_recipe(RECIPE)
    return sys.modules[FORMATS.get("PromptedShapes").__module__]


@pytest.fixture
def head(idea):
    torch.manual_seed(0)
    return idea.PromptedHead({"p3": ShapeSpec(32, 8), "p4": ShapeSpec(32, 16)}, 2, num_convs=1).eval()


@pytest.fixture
def features():
    torch.manual_seed(1)
    return {"p3": torch.randn(2, 32, 4, 6), "p4": torch.randn(2, 32, 2, 3)}


def test_it_is_one_file_of_at_most_150_lines_of_code():
    assert code_lines(EXAMPLES / "prompted.py") <= 150


def test_the_ngrams_of_a_plural_and_a_phrase(idea):
    assert idea.ngrams("ab") == ["<ab", "<ab>", "ab>"]
    star, stars = set(idea.ngrams("star")), set(idea.ngrams("stars"))
    assert star == {"<star>", "<st", "sta", "tar", "ar>", "<sta", "star", "tar>", "<star", "star>"}
    assert star - stars == {"<star>", "ar>", "tar>", "star>"} and stars - star >= {"<stars>", "ars", "rs>"}
    assert idea.ngrams("a Star") == sorted({"<a>", *star}) == idea.ngrams("star A")


@torch.no_grad()
def test_words_that_share_ngrams_begin_alike(idea):
    torch.manual_seed(0)
    words = idea.TextEncoder(1024)
    words.mlp = torch.nn.Identity()  # the mean of the n-grams' random rows: the cosine is their share in common
    star, stars, a_star, circle = words(["star", "stars", "a star", "circle"])
    assert float(star @ a_star) == pytest.approx(10 / (10 * 11) ** 0.5, abs=0.1)
    assert float(star @ stars) == pytest.approx(6 / (10 * len(idea.ngrams("stars"))) ** 0.5, abs=0.1)
    assert float(star @ circle) == pytest.approx(0, abs=0.1)


def test_a_prompt_is_embedded_by_itself_alone(idea):
    torch.manual_seed(0)
    words = idea.TextEncoder(32)
    together = words(["star", "a", "big circle"])
    torch.testing.assert_close(together, torch.cat([words(["star"]), words(["a"]), words(["big circle"])]))
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))


def test_scores_follow_their_prompt_wherever_it_stands(head, features):
    """Lists of another order and length: each prompt has the same map, and what fills up a list is found nowhere."""
    with torch.no_grad():
        one = head(features, text=[["star", "circle", "disk"], ["circle"]])["scores"]
        other = head(features, text=[["disk", "star"], ["circle", "star"]])["scores"]
    torch.testing.assert_close(one[0, [2, 0]], other[0])
    torch.testing.assert_close(one[1, 0], other[1, 0])
    assert (one[1, 1:] == -50).all() and (one[0] > -20).all()


def test_the_nearest_center_in_reach_gets_a_cell(idea):
    centers = torch.tensor([[4.0, 4], [12, 4], [20, 4], [60, 60]])
    boxes = torch.tensor([[[1.0, 0, 11, 8], [14, 0, 24, 10], [55, 55, 65, 65]]])
    assert idea.assign(centers, boxes, torch.tensor([[True, True, False]]), radius=6.5).tolist() == [[0, 0, 1, -1]]


@pytest.mark.parametrize("text", [[], None, ["star", 3], {"star": 1}])
def test_what_is_no_list_of_names_is_refused(idea, text):
    with pytest.raises(DataError, match=r"expected the names of what to find: \[star, circle\]"):
        idea.prompts_of(text)


def test_one_prompt_may_be_a_text(idea):
    assert idea.prompts_of("big star") == ["big star"]


def test_fewer_prompts_than_classes_cannot_be_trained_with(head, features):
    raw = head(features, text=[["star"], ["circle"]])
    with pytest.raises(DataError, match="text has 1 prompts; training needs one for each of 2 classes"):
        head.losses(raw, None)


def test_the_data_have_phrases_to_train_and_names_to_evaluate(idea):
    shapes = FORMATS.get("PromptedShapes")
    train, val = (shapes(8, split, 2, size=48, num_classes=4).load(None) for split in ("train", "val"))
    assert all(record["text"] == val.metadata.thing_classes for record in val)
    spoken = [record["text"] for record in train]
    assert len({tuple(prompts) for prompts in spoken}) > 1
    for prompts in spoken:
        fits = [(name, *idea.SYNONYMS.get(name, ())) for name in train.metadata.thing_classes]
        assert all(any(word in prompt for word in words) for prompt, words in zip(prompts, fits, strict=True))


def test_classes_count_the_prompts(idea, tmp_path):
    recipe = load_recipe(RECIPE, [*SMALL, *FEW, "model.heads.boxes.score_threshold=0.0"])
    torch.save({"model": build_model(recipe).state_dict()}, tmp_path / "weights.pth")
    predictor = Predictor(recipe, tmp_path / "weights.pth", device="cpu")
    image = torch.randint(0, 256, (3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    found = predictor(image, text=["star", "circle", "zebra"])
    assert found["class_names"] == ["star", "circle", "zebra"]
    assert set(found["instances"].pred_classes.tolist()) <= {0, 1, 2} and len(found["instances"])
    assert set(predictor(image, text="star")["instances"].pred_classes.tolist()) == {0}


@pytest.mark.e2e
def test_the_whole_path(tmp_path):
    metrics = trained("prompted", tmp_path, *SMALL, "data.train.size=48", "data.val.size=48")
    assert {"bbox/AP", "bbox/AP50", "loss"} <= metrics.keys()
    Image.new("RGB", (70, 50), "gray").save(tmp_path / "gray.png")
    predicted(tmp_path, [str(tmp_path / "gray.png")], inputs={"text": ["big star"]}, score=0.0)
    assert (tmp_path / "predictions/gray.png").is_file()
    records = json.loads((tmp_path / "predictions/predictions.json").read_text())
    assert {one["category"] for one in records} <= {"big star"}
