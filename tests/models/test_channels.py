"""Models of images with any number of channels, and of several images."""

import copy

import pytest
import torch
from torch import nn

from vertebra.config import ComponentSpec, load_recipe
from vertebra.data import Metadata
from vertebra.data.extra_fields import with_declared_images
from vertebra.errors import CheckpointError, DataError, ExportError, RecipeError
from vertebra.export.graph import ExportGraph
from vertebra.export.onnx_file import _pixels
from vertebra.models import Backbone, Model, ShapeSpec, build_model
from vertebra.models.channels import adapted_state, take_channels
from vertebra.models.inference import with_inference
from vertebra.models.pixels import Pixels
from vertebra.models.weights import load_weights


class Convolution(Backbone):
    def __init__(self, channels=3):
        super().__init__()
        self.first = nn.Conv2d(channels, 4, 3, padding=1)

    def output_shape(self):
        return {"map": ShapeSpec(4, 1)}

    def forward(self, images):
        return {"map": self.first(images)}


class Pair(Convolution):
    def forward(self, images, depth):
        return {"map": self.first(images) * depth}


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_weights_for_rgb_see_equal_channels_as_before(channels):
    backbone = Convolution()
    gray = torch.rand(1, 1, 8, 8)
    expected = backbone(gray.expand(1, 3, 8, 8))["map"]
    state = copy.deepcopy(backbone.state_dict())
    take_channels(backbone, channels)
    assert backbone.first.in_channels == channels
    if channels % 3 == 1 and channels > 1:  # one color has one channel more than the others
        assert backbone.first.weight.shape == (4, channels, 3, 3)
        assert torch.equal(backbone.first.weight[:, 0] * channels / 3, backbone.first.weight[:, 3] * channels / 3)
    equal = torch.equal(state["first.weight"][:, 0], backbone.first.weight[:, 0] * channels / 3) or channels == 1
    assert equal or torch.allclose(state["first.weight"][:, 0], backbone.first.weight[:, 0] * channels / 3)
    if channels == 1:
        assert torch.allclose(backbone(gray)["map"], expected, atol=1e-5)
    again = Convolution()
    take_channels(again, channels)
    load_weights(again, state)
    assert torch.equal(again.first.weight, backbone.first.weight)
    assert adapted_state(Convolution(), state) is state


def test_equal_weights_keep_the_sum_over_channels():
    backbone = Convolution()
    with torch.no_grad():
        backbone.first.weight.copy_(backbone.first.weight.mean(dim=1, keepdim=True))
    before = backbone.first.weight.sum(dim=1)
    take_channels(backbone, 7)
    assert torch.allclose(backbone.first.weight.sum(dim=1), before, atol=1e-6)


def test_a_backbone_without_such_a_convolution_is_named():
    with pytest.raises(RecipeError, match="Sequential: it has no convolution of 3 channels"):
        take_channels(nn.Sequential(nn.Conv2d(12, 4, 1)), 5)


def model_of(**settings) -> Model:
    return Model(Convolution(5), pixel_mean=[100.0] * 5, pixel_std=[50.0] * 5, dtype="uint16", **settings)


def test_the_pixel_range_is_for_8_bits():
    with pytest.raises(ExportError, match="the pixel range is for images of 8 bits"):
        ExportGraph(model_of(), "raw", 255)
    assert _pixels(Pixels((1.0,) * 5, (1.0,) * 5, "uint16"), 1) == {
        "channels": 5,
        "values": "uint16 as read, as float32",
    }
    assert _pixels(Pixels((1.0,) * 3, (1.0,) * 3), 255) == {"channels": "RGB", "range": [0, 255]}


def test_a_reader_that_a_dataset_declares_is_that_of_the_model():
    metadata = Metadata("m").set(
        thing_classes=["a", "b"],
        image_reader={"name": "Gray", "bits": 16},
        extra_fields={"depth": {"geometry": "image", "reader": {"name": "Gray"}}},
    )
    recipe = load_recipe("retinanet:retinanet_shapes_quick", ["model.pixel_mean=[9]", "model.pixel_std=[1]"])
    model = build_model(recipe, metadata=metadata)
    assert model.pixels == {"image": Pixels((9.0,), (1.0,), "uint16"), "depth": Pixels((9.0,), (1.0,), "uint8")}
    assert with_declared_images(recipe, metadata).data.image.arguments == {"bits": 16}
    assert with_declared_images(recipe, Metadata("n")) is recipe


def test_values_are_normalized_by_channel_in_one_place():
    model = model_of()
    image = torch.randint(0, 4000, (5, 6, 7), dtype=torch.int32)
    batch = model.make_batch([{"image": image}, {"image": image[:, :4]}])
    assert torch.allclose(batch.images[0], (image.float() - 100) / 50) and (batch.images[1, :, 4:] == 0).all()
    assert torch.allclose(model.normalize(image), batch.images[0], atol=1e-5)
    assert torch.equal(model.features(batch)["map"], model.features(batch.images)["map"])


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (torch.zeros(3, 4, 4, dtype=torch.int32), "'image' has shape (3, 4, 4); it must be (5, height, width)"),
        (torch.zeros(4, 4, 5, dtype=torch.int32), "image.permute(2, 0, 1) turns it"),
        (torch.zeros(5, 4, 4, dtype=torch.uint8), "'image' is torch.uint8; it must be torch.int32"),
    ],
)
def test_images_that_do_not_fit_are_named(image, text):
    with pytest.raises(DataError) as caught:
        model_of().make_batch([{"image": image}])
    assert text in str(caught.value)


def test_a_backbone_gets_the_further_images_that_it_names():
    model = Model(Pair(), images={"depth": Pixels((1.0,), (2.0,), "float32")})
    inputs = [{"image": torch.zeros(3, 4, 4, dtype=torch.uint8), "depth": torch.full((1, 4, 4), 5.0)}]
    batch = model.make_batch(inputs)
    assert batch.named_images["depth"].unique().tolist() == [2.0]
    assert torch.equal(model.features(batch)["map"], model.backbone.first(batch.images) * 2)
    with pytest.raises(DataError, match=r"an input is a dict with the key 'depth', but this one is/has 'image'"):
        model.make_batch([{"image": inputs[0]["image"]}])
    with pytest.raises(DataError, match=r"'depth' has \(3, 4\) pixels \(height, width\), but 'image' has \(4, 4\)"):
        model.make_batch([inputs[0] | {"depth": torch.zeros(1, 3, 4)}])
    with pytest.raises(ExportError, match=r"takes several images \(image, depth\)"):
        ExportGraph(model, "raw")
    with pytest.raises(RecipeError, match="SlidingWindow cuts and scales one image, but the model takes several"):
        with_inference(model, ComponentSpec("part", "SlidingWindow", {"size": [64, 64]}))


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["data.image={name: Gray}"], "model.pixel_mean has 3 values, but the image reader gives 1 channels"),
        (["model.pixel_mean=auto"], "model.pixel_mean is auto, which a training measures"),
        (["data.fields={d: {geometry: image, reader: {name: Gray}}}"], "data.fields.d.pixel_mean has 3 values"),
        (["data.image={name: SlidingWindow, size: [9, 9]}"], "is a part, but not a ImageReader"),
        (["data.fields={d: {geometry: box, reader: {name: Gray}}}"], "but it is for image; the geometry is box"),
    ],
)
def test_what_does_not_fit_together_is_said(overrides, text):
    with pytest.raises(RecipeError) as caught:
        build_model(load_recipe("retinanet:retinanet_shapes_quick", overrides), num_classes=2)
    assert text in str(caught.value)


class TwoBranches(Backbone):
    """A stem of two convolutions side by side, behind a table of positions."""

    def __init__(self):
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(1, 3, 4, 4))
        self.wide, self.narrow = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)

    def output_shape(self):
        return {"map": ShapeSpec(4, 1)}

    def forward(self, images):
        return {"map": self.wide(images) + self.narrow(images) + self.positions.sum()}


def test_all_convolutions_that_see_the_image_are_adapted_and_nothing_else():
    backbone, state = TwoBranches(), copy.deepcopy(TwoBranches().state_dict())
    take_channels(backbone, 4)
    assert backbone(torch.rand(1, 4, 8, 8))["map"].shape == (1, 4, 8, 8)
    load_weights(backbone, state)
    assert torch.equal(backbone.narrow.weight[:, 0], state["narrow.weight"][:, 0] * 3 / 4)
    with pytest.raises(CheckpointError, match=r"first\.weight: model"):  # these five channels are its own
        load_weights(Convolution(5), Convolution().state_dict())


def test_bgr_is_for_three_channels():
    overrides = ["data.image={name: Gray}", "model.pixel_mean=[1]", "model.pixel_std=[1]", "model.pixel_order=bgr"]
    with pytest.raises(RecipeError, match="pixel_order is bgr, which is for 3 channels, but the image reader gives 1"):
        build_model(load_recipe("retinanet:retinanet_shapes_quick", overrides), num_classes=2)

    with pytest.raises(ValueError, match="pixel_order is 'bgr', which is for 3 channels"):
        model_of(pixel_order="bgr")
