"""VGG, MobileNet and timm as backbones."""

import pytest
import torch
import torchvision

from vertebra.errors import CheckpointError
from vertebra.models import ShapeSpec
from vertebra.models.backbones.mobilenet import MobileNetV2, MobileNetV3
from vertebra.models.backbones.timm import TimmBackbone
from vertebra.models.backbones.vgg import VGG

MOBILE = ("stage1", "stage2", "stage3", "stage4", "stage5", "last")


def check_shapes(backbone, size):
    """The features of an image of that size are what `output_shape` says, sizes rounded up."""
    with torch.no_grad():
        features = backbone.eval()(torch.rand(1, 3, *size))
    assert list(features) == list(backbone.output_shape())
    for name, spec in backbone.output_shape().items():
        assert features[name].shape[1] == spec.channels
        for got, side in zip(features[name].shape[2:], size, strict=True):
            assert -(-side // spec.stride) <= got <= -(-side // 32) * 32 // spec.stride, name
    return features


@pytest.mark.parametrize("size", [(64, 96), (77, 45), (3, 5)])
@pytest.mark.parametrize(
    "make",
    [
        lambda: VGG(11, out_features=("conv1", "conv2", "conv3", "conv4", "conv5", "pool5")),
        lambda: VGG(16, batch_norm=True, out_features=("conv4", "conv5")),
        lambda: MobileNetV2(out_features=MOBILE),
        lambda: MobileNetV3("large", out_features=MOBILE),
        lambda: MobileNetV3("small", width=0.5),
        lambda: TimmBackbone("resnet18", out_indices=[2, 3, 4]),
        lambda: TimmBackbone("convnext_atto"),
    ],
)
def test_features_are_as_announced_at_any_size(make, size):
    check_shapes(make(), size)


@pytest.mark.parametrize(("depth", "batch_norm"), [(11, False), (13, True)])
def test_vgg_has_torchvisions_features(depth, batch_norm, tmp_path):
    torch.manual_seed(0)
    layers = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["A" if depth == 11 else "B"], batch_norm)
    state = {f"features.{name}": value for name, value in layers.state_dict().items()}
    torch.save(state | {"classifier.0.weight": torch.ones(2)}, tmp_path / "vgg.pth")
    ours = VGG(depth, batch_norm, out_features=["conv2", "pool5"], weights=str(tmp_path / "vgg.pth")).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images)["pool5"], layers.eval()(images))
    assert list(ours.output_shape().values()) == [ShapeSpec(channels=128, stride=2), ShapeSpec(channels=512, stride=32)]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda **k: MobileNetV2(**k), torchvision.models.mobilenet_v2),
        (lambda **k: MobileNetV3("small", **k), torchvision.models.mobilenet_v3_small),
    ],
)
def test_mobilenets_have_torchvisions_features(ours, theirs, tmp_path):
    torch.manual_seed(0)
    theirs = theirs().eval()
    torch.save(theirs.state_dict(), tmp_path / "mobile.pth")
    images = torch.rand(1, 3, 64, 64)
    backbone = ours(out_features=["stage2", "last"], weights=str(tmp_path / "mobile.pth")).eval()
    with torch.no_grad():
        torch.testing.assert_close(backbone(images)["last"], theirs.features(images))
    # layers behind the last feature are neither built nor asked of the weights
    short = ours(out_features=["stage2"], weights=str(tmp_path / "mobile.pth"))
    assert len(short.state_dict()) < len(backbone.state_dict())


def test_weights_of_another_net_are_refused(tmp_path):
    torch.save(torchvision.models.mobilenet_v3_small().state_dict(), tmp_path / "small.pth")
    with pytest.raises(CheckpointError, match=r"small.pth: the weights do not fit the MobileNetV2"):
        MobileNetV2(weights=str(tmp_path / "small.pth"))


def test_features_that_the_net_does_not_have_are_named():
    with pytest.raises(ValueError, match=r"MobileNetV2: out_features \['res5'\] must be some of stage1, stage2"):
        MobileNetV2(out_features=["res5"])
    with pytest.raises(ValueError, match="VGG: depth is 12"):
        VGG(12)


def test_timm_takes_options_and_gives_channels_first():
    backbone = TimmBackbone("swin_tiny_patch4_window7_224", out_indices=[0, 1], img_size=(64, 96), depths=(1, 1, 1, 1))
    features = check_shapes(backbone, (64, 96))
    assert features["stage0"].shape == (1, 96, 16, 24)


def test_timm_says_what_it_cannot_do():
    with pytest.raises(ValueError, match=r"no model 'resnett18'. Nearest: resnet18"):
        TimmBackbone("resnett18")
    with pytest.raises(ValueError, match=r"timm cannot make 'resnet18'.*out_indices \[9\]"):
        TimmBackbone("resnet18", out_indices=[9])
