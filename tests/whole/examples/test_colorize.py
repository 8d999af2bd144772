"""docs/examples/colorize.py: a generator of colors and its critic, an evaluator and a format of their own."""

import json
import math
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from whole_path import EXAMPLES, code_lines, predicted, trained

from vertebra import EVALUATORS, MODELS, build_model, load_recipe
from vertebra.data import read_image
from vertebra.testing import EvaluatorConformance, FormatConformance, ModelConformance
from vertebra.testing.inputs import make_input, make_metadata

pytestmark = pytest.mark.usefixtures("clean_slate_per_file")
RECIPE = str(EXAMPLES / "colorize.yaml")
NARROW = ("model.width=8", "model.depth=3")
SMALL = (*NARROW, "data.train.size=64", "data.val.size=64")


@pytest.fixture(scope="module", autouse=True)
def loaded(clean_slate_per_file, cache):
    return load_recipe(RECIPE, NARROW)


class TestColorizer(ModelConformance):
    component = "Colorizer"
    recipe = RECIPE
    overrides = NARROW


class TestColorEvaluator(EvaluatorConformance):
    component = "ColorEvaluator"
    higher_is_better = ("psnr", "colorfulness")

    def make_outputs(self):
        right = [torch.from_numpy(read_image(one["file_name"])).permute(2, 0, 1) for one in self.make_inputs()]
        gray = [one.float().mean(dim=0, keepdim=True).expand(3, -1, -1).to(torch.uint8) for one in right]
        shifted = [one.roll(5, dims=-1) for one in right]
        found = {"right": right, "shifted": shifted, "none": gray}
        return {name: [{"picture": one} for one in pictures] for name, pictures in found.items()}


class TestPictureFolder(FormatConformance):
    component = "PictureFolder"
    arguments = {"images": "pictures"}
    test_a_missing_image_is_named = None  # the folder's content is the dataset: nothing else names the files

    @pytest.fixture(autouse=True)
    def files(self, tmp_path):
        pictures(tmp_path / "pictures")
        type(self).root = str(tmp_path)


def pictures(folder, count=4):
    """Noise in colors, and a file that is not a picture."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    (folder / "notes.txt").write_text("not a picture")


@pytest.fixture(scope="module")
def example(loaded):
    return sys.modules[MODELS.get("Colorizer").__module__]


@pytest.fixture
def model(loaded):
    torch.manual_seed(0)
    return build_model(loaded, metadata=make_metadata()).train()


class Recorded:
    """A step that changes nothing."""

    number, total = 0, 1

    def __init__(self):
        self.losses = {}

    def minimize(self, name, loss):
        self.losses[name] = loss


def test_brightness_and_chroma_of_known_colors(example):
    colors = torch.tensor([[1.0, 1, 1], [0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0]]).T[..., None]  # (3, 5, 1)
    y, cb, cr = example.to_ycc(colors)[..., 0]
    assert y.tolist() == pytest.approx([1, 0, 0.114, 0.299, 0.886])
    assert cb.tolist() == pytest.approx([0, 0, 1, -2 * 0.299 / 1.772, -1], abs=1e-6)
    assert cr.tolist() == pytest.approx([0, 0, -2 * 0.114 / 1.402, 1, 2 * 0.114 / 1.402], abs=1e-6)
    torch.testing.assert_close(example.from_ycc(example.to_ycc(colors)), colors)


def test_only_brightness_is_seen(model):
    """Two pictures that differ in color alone get the same colors."""
    gray = torch.full((1, 3, 16, 16), 0.5)
    tinted = gray + torch.tensor([0.2, -0.2 * 0.299 / 0.587, 0.0])[:, None, None]
    normalized = [(one * 255 - model.pixel_mean) / model.pixel_std for one in (gray, tinted)]
    first, second = (model.eval().network(one) for one in normalized)
    torch.testing.assert_close(first["gray"], torch.full((1, 1, 16, 16), 0.5))
    torch.testing.assert_close(first["chroma"], second["chroma"], rtol=0, atol=1e-5)


def test_a_generator_that_knows_the_colors_gives_the_picture_back(model, monkeypatch):
    inputs = [make_input(0, (48, 64)), make_input(1, (40, 56), original=(80, 112))]
    batch = model.make_batch(inputs)
    true = model.pixels_of(batch.images)
    first, second = model.predict({"gray": true[:, :1], "chroma": true[:, 1:]}, batch)
    assert first["picture"].dtype == torch.uint8 and second["picture"].shape == (3, 80, 112)
    assert (first["picture"].int() - inputs[0]["image"].int()).abs().max() <= 1


def test_padding_is_in_no_loss(model, monkeypatch):
    """Beyond the image, neither the generator's colors nor the critic's answer count."""
    batch = model.make_batch([make_input(0, (64, 96)), make_input(1, (32, 48))])
    outside = batch.padding_mask[:, None]
    true = model.pixels_of(batch.images)
    raw = {"gray": true[:, :1], "chroma": true[:, 1:].masked_fill(outside, 0.7)}
    monkeypatch.setattr(model, "compute", lambda batch: raw)
    known = torch.nn.functional.interpolate((~outside).float(), (16, 24)) > 0
    monkeypatch.setattr(model.critic, "forward", lambda x: torch.where(known, 2.0, -50.0))
    step = Recorded()
    losses = model.training_step(batch, step)
    assert float(losses["pixels"]) == 0
    right, wrong = math.log1p(math.exp(-2)), math.log1p(math.exp(2))
    assert float(losses["fooled"]) == float(step.losses["generator"]) == pytest.approx(right, rel=1e-5)
    assert float(step.losses["critic"]) == pytest.approx((right + wrong) / 2, rel=1e-5)


def test_the_critic_sees_patches_of_26_pixels(example):
    critic = example.PatchCritic(4).eval()
    pixels = torch.zeros(1, 3, 64, 64, requires_grad=True)
    critic(pixels)[0, 0, 8, 8].backward()
    seen = pixels.grad.abs().sum(dim=1)[0] > 0
    assert seen.any(dim=0).sum() == seen.any(dim=1).sum() == 26


def test_colorfulness_by_hand(example):
    assert example.colorfulness(torch.full((3, 4, 4), 90.0)) == 0
    halves = torch.zeros(3, 2, 2)
    halves[0, 0], halves[1, 1] = 100, 100  # red above green: opponents +-100 and 50
    assert example.colorfulness(halves) == pytest.approx(100 + 0.3 * 50)


def test_metrics_by_hand(tmp_path):
    Image.fromarray(np.full((4, 4, 3), 100, np.uint8)).save(tmp_path / "a.png")
    evaluator = EVALUATORS.get("ColorEvaluator")()
    evaluator.reset()
    picture = torch.full((3, 4, 4), 100, dtype=torch.uint8)
    picture[2] += 10  # blue: a mean squared error of 100 / 3
    evaluator.process([{"file_name": str(tmp_path / "a.png")}], [{"picture": picture}])
    metrics = evaluator.evaluate()
    blue, red = (10 - 1.14) / 1.772, -1.14 / 1.402
    assert metrics["color/psnr"] == pytest.approx(10 * math.log10(255**2 * 3 / 100))
    assert metrics["color/chroma_error"] == pytest.approx((blue - red) / 2 / 255)
    assert metrics["color/colorfulness"] is None and "gray" in evaluator.reasons["color/colorfulness"]


def test_several_processes_give_the_numbers_of_one(example, monkeypatch, tmp_path):
    """Of shares of 1, 3 and no images, as a run of three processes sees them."""
    pictures(tmp_path / "photos")
    inputs = [{"file_name": str(tmp_path / "photos" / f"{number}.png")} for number in range(4)]
    outputs = [{"picture": torch.full((3, 40, 56), 60 * number, dtype=torch.uint8)} for number in range(4)]
    shares = []
    for rows in (slice(0, 4), slice(0, 1), slice(1, 4), slice(0, 0)):
        shares.append(EVALUATORS.get("ColorEvaluator")())
        shares[-1].reset()
        shares[-1].process(inputs[rows], outputs[rows])
    whole = shares.pop(0).evaluate()
    monkeypatch.setattr(example, "gather_to_main", lambda _: [one.rows for one in shares])
    assert shares[0].evaluate() == pytest.approx(whole)


def test_it_has_at_most_150_lines_of_code():
    assert code_lines(EXAMPLES / "colorize.py") <= 150


@pytest.mark.e2e
def test_the_whole_path(tmp_path):
    metrics = trained("colorize", tmp_path, *SMALL)
    assert metrics["color/psnr"] > 0 and metrics["color/chroma_error"] > 0
    logged = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[0])
    assert {"loss/pixels", "loss/fooled", "loss/critic"} <= logged.keys()
    pictures(tmp_path / "photos", count=2)
    written = predicted(tmp_path, [str(tmp_path / "photos" / f"{number}.png") for number in range(2)])
    assert {"0.png", "1.png", "arrays"} <= {path.name for path in written.files}
    array = np.load(tmp_path / "predictions/arrays/0.npz")["picture"]
    assert array.shape == (3, 40, 56) and array.dtype == np.uint8
    assert (np.asarray(Image.open(tmp_path / "predictions/0.png")).transpose(2, 0, 1) == array).all()


@pytest.mark.e2e
def test_photographs_without_annotations_train_it(tmp_path):
    pictures(tmp_path / "photos")
    data = {"format": "PictureFolder", "images": str(tmp_path / "photos")}
    metrics = trained("colorize", tmp_path, *NARROW, {"data.train": data, "data.val": data})
    assert metrics["color/colorfulness"] > 0
