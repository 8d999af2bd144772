"""Windows, scales and mirror images, around small models whose answers can be said beforehand."""

import math

import pytest
import torch
from torch.nn import functional as F

from vertebra.errors import RecipeError
from vertebra.models.inference import InferenceMode, MultiScaleFlip, SlidingWindow, with_inference


class Pointwise:
    """Scores of a pixel from that pixel alone: the same whatever else is seen. Counts what it is asked."""

    def __init__(self):
        self.calls, self.sizes = [], []

    def __call__(self, inputs):
        self.calls.append(len(inputs))
        outputs = []
        for sample in inputs:
            self.sizes.append(tuple(sample["image"].shape[-2:]))
            pixels = sample["image"].float() / 255  # (3, h, w)
            scores = torch.stack((pixels.sum(0), pixels[0] * pixels[1] - pixels[2]))
            size = sample.get("height", pixels.shape[1]), sample.get("width", pixels.shape[2])
            outputs.append({"sem_seg": F.interpolate(scores[None], size, mode="bilinear", align_corners=False)[0]})
        return outputs


class Valid:
    """A 3x3 and a dilated 3x3 convolution without padding: 3 pixels at each edge are repeated from the inside."""

    margin = 3

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.first = torch.randn(4, 3, 3, 3, generator=generator) / 255
        self.second = torch.randn(2, 4, 3, 3, generator=generator)

    def inner(self, images):
        """(N, 3, h, w) to (N, 2, h - 6, w - 6)."""
        return F.conv2d(F.conv2d(images.float(), self.first).relu(), self.second, dilation=2)

    def __call__(self, inputs):
        return [
            {"sem_seg": F.pad(self.inner(sample["image"][None]), (self.margin,) * 4, mode="replicate")[0]}
            for sample in inputs
        ]


def picture(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {"image": torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)}


def plain(model, sample):
    return model([sample])[0]["sem_seg"]


SIZES = [(1, 1), (1, 9), (7, 1), (8, 8), (9, 8), (8, 23), (31, 40), (64, 3)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("blending", ["uniform", "gaussian"])
@pytest.mark.parametrize("borders", ["shift", "mirror"])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.8])
def test_windows_of_a_model_that_sees_each_pixel_alone_change_nothing(size, blending, borders, overlap):
    model, sample = Pointwise(), picture(*size)
    mode = SlidingWindow(8, overlap=overlap, blending=blending, borders=borders)
    scores = mode(model, [sample])[0]["sem_seg"]
    torch.testing.assert_close(scores, plain(model, sample), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (5, 40), (20, 20), (33, 50)])
@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_overlap_tile_is_the_whole_mirrored_image_through_a_network_without_padding(size, overlap):
    model, sample = Valid(), picture(*size)
    scores = SlidingWindow([20, 17], borders="mirror", margin=3, overlap=overlap)(model, [sample])[0]["sem_seg"]
    rows, columns = (mirrored_by_hand(side, 3) for side in size)
    whole = model.inner(sample["image"][:, rows][:, :, columns][None])[0]
    torch.testing.assert_close(scores, whole)


def mirrored_by_hand(side, margin):
    """-3, -2, -1, 0, 1, ... walked along the pixels and back again at both ends."""
    walk = [*range(side), *range(side - 2, 0, -1)] or [0]
    return [walk[place % len(walk)] for place in range(-margin, side + margin)]


def test_mirrored_windows_all_have_the_full_size_and_others_lie_inside_the_image():
    model = Pointwise()
    SlidingWindow([8, 16], borders="mirror", margin=2)(model, [picture(5, 40)])
    assert set(model.sizes) == {(8, 16)}
    model = Pointwise()
    SlidingWindow([8, 16])(model, [picture(5, 40)])
    assert set(model.sizes) == {(5, 16)}


@pytest.mark.parametrize("mode", [SlidingWindow(8, blending="gaussian"), MultiScaleFlip([1.0], flip=False)])
def test_a_mode_with_nothing_to_do_asks_the_model_plainly(mode):
    model = Pointwise()
    sample = picture(8, 5) | {"height": 16, "width": 9, "file_name": "a.jpg"}
    assert torch.equal(mode(model, [sample])[0]["sem_seg"], plain(model, sample))
    assert model.sizes == [(8, 5), (8, 5)]


def test_windows_go_through_the_model_in_batches_one_image_at_a_time():
    model = Pointwise()
    mode = SlidingWindow(8, overlap=0.0, batch_size=4)
    mode(model, [picture(24, 24), picture(8, 20)])
    assert model.calls == [4, 4, 1, 3]


def test_where_windows_overlap_their_scores_are_averaged():
    def by_place(inputs):
        """The score of a pixel is where it lies in its window."""
        return [{"sem_seg": torch.arange(4.0).expand(1, 1, 4)} for _ in inputs]

    sample = picture(1, 6)
    even = SlidingWindow([1, 4], overlap=0.5)(by_place, [sample])[0]["sem_seg"]
    assert even.flatten().tolist() == [0, 1, (2 + 0) / 2, (3 + 1) / 2, 2, 3]
    middle = SlidingWindow([1, 4], overlap=0.5, blending="gaussian")(by_place, [sample])[0]["sem_seg"].flatten()
    weight = [math.exp(-0.5 * (place / 0.5) ** 2) for place in (-1.5, -0.5, 0.5, 1.5)]
    want = (2 * weight[2] + 0 * weight[0]) / (weight[2] + weight[0])
    assert middle[2].item() == pytest.approx(want)


def test_scores_come_in_the_size_that_is_asked_for():
    sample = picture(20, 30) | {"height": 41, "width": 59}
    for mode in (SlidingWindow(8), MultiScaleFlip([0.5, 1.0])):
        assert mode(Pointwise(), [sample])[0]["sem_seg"].shape == (2, 41, 59)


@pytest.mark.parametrize("mode", [SlidingWindow(8), MultiScaleFlip([0.5, 1.0])])
def test_padding_of_the_evaluation_transforms_is_taken_off_first(mode):
    sample = picture(20, 30) | {"height": 20, "width": 30}
    padded = {**sample, "image": F.pad(sample["image"], (0, 7, 0, 5)), "content_size": (20, 30)}
    assert torch.equal(mode(Pointwise(), [padded])[0]["sem_seg"], mode(Pointwise(), [sample])[0]["sem_seg"])


def test_flips_undo_what_they_did():
    model, sample = Pointwise(), picture(9, 6)
    mode = MultiScaleFlip([1.0], flip=True, vertical_flip=True)
    torch.testing.assert_close(mode(model, [sample])[0]["sem_seg"], plain(model, sample), rtol=0, atol=1e-6)
    assert model.calls[0] == 4


def test_scales_are_averaged_over_the_models_own_answers():
    flat = {"image": torch.full((3, 10, 12), 51, dtype=torch.uint8)}
    model = Pointwise()
    scores = MultiScaleFlip([0.5, 1.0, 2.0])(model, [flat])[0]["sem_seg"]
    torch.testing.assert_close(scores, plain(model, flat))  # an even picture looks the same at every scale
    assert model.sizes[:6] == [(5, 6)] * 2 + [(10, 12)] * 2 + [(20, 24)] * 2


def test_mean_probabilities_come_back_by_a_softmax():
    answers = iter([torch.tensor([0.0, 0.0]), torch.tensor([0.0, math.log(3.0)])])

    def model(inputs):
        return [{"sem_seg": next(answers).reshape(2, 1, 1)} for _ in inputs]

    scores = MultiScaleFlip([1.0], flip=True, average="probabilities")(model, [picture(1, 1)])[0]["sem_seg"]
    assert scores.softmax(0).flatten().tolist() == pytest.approx([(0.5 + 0.25) / 2, (0.5 + 0.75) / 2])


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (30, 20)])
def test_modes_go_around_each_other(size):
    sample = picture(*size)
    model = Pointwise()
    windows, scales = SlidingWindow(8, overlap=0.25), MultiScaleFlip([0.5, 1.0])
    both = scales(lambda inputs: windows(model, inputs), [sample])[0]["sem_seg"]
    torch.testing.assert_close(both, scales(model, [sample])[0]["sem_seg"], rtol=0, atol=1e-5)


def test_the_first_mode_of_a_recipe_is_the_outermost(tmp_path):
    recipe = _recipe(tmp_path, "[{name: MultiScaleFlip, scales: [2.0], flip: false}, {name: SlidingWindow, window: 8}]")
    model = Pointwise()
    with_inference(model, recipe.evaluate.inference)([picture(10, 10)])
    assert set(model.sizes) == {(8, 8)} and len(model.sizes) == 16  # of an image of 20 x 20
    assert with_inference(model, None) is model


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("{name: SlidingWindow}", "evaluate.inference.window is missing"),
        ("{name: SlidingWindow, window: 8, strides: 4}", "no such argument"),
        ("Matcher", "Matcher is a part, but not a InferenceMode"),
        ("{name: SlidingWindows}", "SlidingWindow"),
        ("7", "evaluate.inference is 7"),
    ],
)
def test_a_recipe_is_checked_before_anything_is_built(tmp_path, written, words):
    with pytest.raises(RecipeError, match=words):
        _recipe(tmp_path, written)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"window": 0}, "window is 0"),
        ({"window": [4, 4, 4]}, "window is"),
        ({"window": 8, "overlap": 1.0}, "overlap is 1"),
        ({"window": 8, "batch_size": 0}, "batch_size 0"),
        ({"window": 8, "margin": 2}, "0 for borders 'shift'"),
        ({"window": 8, "margin": 4, "borders": "mirror"}, "less than half"),
        ({"window": 8, "blending": "linear"}, "blending is 'linear'"),
    ],
)
def test_windows_that_cannot_be(arguments, words):
    with pytest.raises(ValueError, match=words):
        SlidingWindow(**arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"scales": []}, "at least one"), ({"scales": [0.0]}, "above 0"), ({"average": "votes"}, "average is 'votes'")],
)
def test_scales_that_cannot_be(arguments, words):
    with pytest.raises(ValueError, match=words):
        MultiScaleFlip(**arguments)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ({"instances": 1}, "gives instances"),
        ({"sem_seg": torch.zeros(2, 8, 8), "instances": 1}, "SlidingWindow joins"),
        ({"sem_seg": torch.zeros(8, 8)}, r"labels of shape \(8, 8\)"),
        ({"sem_seg": torch.zeros(2, 4, 4)}, "requested 8 x 8 pixels"),
    ],
)
def test_what_cannot_be_joined_is_told(output, words):
    with pytest.raises(RecipeError, match=words):
        SlidingWindow(8)(lambda inputs: [output for _ in inputs], [picture(9, 9)])


def test_any_class_that_derives_from_the_contract_will_do(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from vertebra.models.inference import InferenceMode\n"
        "from vertebra.registry import PARTS\n"
        "@PARTS.register()\n"
        "class Twice(InferenceMode):\n"
        "    def __call__(self, predict, inputs):\n"
        "        predict(inputs)\n"
        "        return predict(inputs)\n"
    )
    recipe = _recipe(tmp_path, "Twice", plugins="plugins: [./mine.py]")
    model = Pointwise()
    with_inference(model, recipe.evaluate.inference)([picture(2, 2)])
    assert model.calls == [1, 1]
    assert issubclass(SlidingWindow, InferenceMode)


def _recipe(folder, inference, plugins=""):
    from vertebra.config import load_recipe

    text = "model: {backbone: {name: ResNet, depth: 18}, heads: {boxes: {name: RetinaNetHead}}}\n"
    (folder / "recipe.yaml").write_text(f"{plugins}\n{text}evaluate: {{inference: {inference}}}\n")
    return load_recipe(folder / "recipe.yaml")
