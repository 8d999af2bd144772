"""ResNet, its normalizations, and the layouts of weights it starts from."""

import re

import pytest
import torch
import torchvision

from vertebra.errors import CheckpointError
from vertebra.models import ShapeSpec
from vertebra.models.backbones.layouts import resnet_names
from vertebra.models.backbones.resnet import ResNet
from vertebra.models.convolution import ConvNorm
from vertebra.models.norms import FrozenBatchNorm2d, get_norm

STAGES = ("res2", "res3", "res4", "res5")


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_parameters_are_as_many_as_torchvisions_without_the_classifier(depth):
    with torch.device("meta"):
        ours = ResNet(depth, norm="bn")
        theirs = getattr(torchvision.models, f"resnet{depth}")()
    count = sum(p.numel() for name, p in theirs.named_parameters() if not name.startswith("fc."))
    assert sum(p.numel() for p in ours.parameters()) == count


def test_resnext_101_32x8d_has_torchvisions_parameters():
    with torch.device("meta"):
        ours = ResNet(101, norm="bn", num_groups=32, width_per_group=8)
        theirs = torchvision.models.resnext101_32x8d()
    count = sum(p.numel() for name, p in theirs.named_parameters() if not name.startswith("fc."))
    assert sum(p.numel() for p in ours.parameters()) == count


@pytest.mark.parametrize("norm", ["bn", "frozen_bn", "gn", "none", "sync_bn"])
@pytest.mark.parametrize("size", [(64, 96), (65, 33), (1, 1)])
def test_any_size_gives_maps_of_the_strides_rounded_up(norm, size):
    backbone = ResNet(18, norm=norm).eval()
    with torch.no_grad():
        features = backbone(torch.rand(1, 3, *size))
    assert list(features) == list(STAGES)
    for name, spec in backbone.output_shape().items():
        assert features[name].shape == (1, spec.channels, -(-size[0] // spec.stride), -(-size[1] // spec.stride))


def test_the_first_convolution_is_a_feature_of_stride_2():
    """And what it gives, pooled, is the stem's; the features behind do not depend on its being requested."""
    torch.manual_seed(0)
    backbone = ResNet(18, norm="bn", out_features=["conv1", "stem", "res2"]).eval()
    assert {name: (s.channels, s.stride) for name, s in backbone.output_shape().items()} == {
        "conv1": (64, 2),
        "stem": (64, 4),
        "res2": (64, 4),
    }
    without = ResNet(18, norm="bn", out_features=["res2"]).eval()
    without.load_state_dict(backbone.state_dict())
    images = torch.rand(1, 3, 33, 46)
    with torch.no_grad():
        features = backbone(images)
        assert features["conv1"].shape == (1, 64, 17, 23)
        pooled = torch.nn.functional.max_pool2d(features["conv1"], 3, stride=2, padding=1)
        torch.testing.assert_close(features["stem"], pooled)
        torch.testing.assert_close(features["res2"], without(images)["res2"])


@pytest.mark.parametrize("depth", [18, 50])
def test_torchvisions_weights_load_and_give_torchvisions_features(depth, tmp_path):
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, f"resnet{depth}")().eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
            module.weight.data.uniform_(0.8, 1.2)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    images = torch.rand(2, 3, 64, 96)
    x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(images))))
    for norm in ("frozen_bn", "bn"):
        ours = ResNet(depth, norm=norm, weights=str(tmp_path / "theirs.pth")).eval()
        with torch.no_grad():
            features, want = ours(images), x
            for name, layer in zip(STAGES, (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4), strict=True):
                want = layer(want)
                torch.testing.assert_close(features[name], want, rtol=1e-4, atol=1e-4 * want.abs().max().item())


def test_stages_that_are_not_built_are_left_out_of_the_weights(tmp_path):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "theirs.pth")
    backbone = ResNet(18, out_features=["res3"], weights=str(tmp_path / "theirs.pth"))
    assert list(backbone.output_shape().items()) == [("res3", ShapeSpec(channels=128, stride=8))]
    assert not hasattr(backbone, "res4")


def test_msra_weights_without_statistics_load(tmp_path):
    """Caffe2 names; the norm is only scale and shift, so that the statistics stay the identity."""
    donor = ResNet(50, norm="frozen_bn", stride_in_1x1=True)
    branches = {"shortcut": "branch1", "conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}
    blobs = {"fc1000_w": torch.zeros(10, 20), "fc1000_b": torch.zeros(10)}
    for name, value in donor.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            continue
        kind = "bn_s" if name.endswith("norm.weight") else "bn_b" if name.endswith("norm.bias") else "w"
        parts = name.split(".")
        if parts[0] == "stem":
            blobs["conv1_w" if kind == "w" else f"res_conv1_{kind}"] = torch.rand_like(value)
        else:
            blobs[f"{parts[0]}_{parts[1]}_{branches[parts[2]]}_{kind}"] = torch.rand_like(value)
    torch.save(blobs, tmp_path / "R-50.pth")
    backbone = ResNet(50, norm="frozen_bn", stride_in_1x1=True, weights=str(tmp_path / "R-50.pth"))
    assert torch.equal(backbone.res4[5].conv3.norm.weight, blobs["res4_5_branch2c_bn_s"])
    assert torch.equal(backbone.stem.conv1.weight, blobs["conv1_w"])
    assert torch.equal(backbone.res2[0].shortcut.norm.bias, blobs["res2_0_branch1_bn_b"])
    scale = backbone.res2[0].conv1.norm
    torch.testing.assert_close(scale(torch.ones(1, 64, 1, 1))[0, :, 0, 0], scale.weight + scale.bias)


def test_detectron2s_names_with_and_without_prefix_are_ours():
    for prefix in ("backbone.bottom_up.", "backbone.", ""):
        assert resnet_names(f"{prefix}res2.0.conv1.norm.running_var") == "res2.0.conv1.norm.running_var"
    assert resnet_names("head.cls_score.weight") is resnet_names("backbone.fpn_lateral3.weight") is None
    pattern, replacement = ResNet.detectron2_names[0]
    assert re.sub(pattern, replacement, "backbone.bottom_up.stem.conv1.weight") == "stem.conv1.weight"


def test_weights_of_another_depth_or_of_something_else_are_refused(tmp_path):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "r18.pth")
    with pytest.raises(CheckpointError, match=r"r18.pth: the weights do not fit the ResNet(.|\n)*res2.0.conv3.weight"):
        ResNet(50, weights=str(tmp_path / "r18.pth"))
    torch.save({"encoder.weight": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"match no layout that ResNet knows; they begin with encoder.weight"):
        ResNet(50, weights=str(tmp_path / "other.pth"))


def test_dilation_keeps_res5_at_stride_16():
    backbone = ResNet(50, res5_dilation=2, out_features=["res4", "res5"]).eval()
    assert backbone.output_shape()["res5"] == ShapeSpec(channels=2048, stride=16) and backbone.size_divisibility == 16
    assert [block.conv2.dilation for block in backbone.res5] == [(2, 2)] * 3
    with torch.no_grad():
        features = backbone(torch.rand(1, 3, 64, 64))
    assert features["res5"].shape[-2:] == features["res4"].shape[-2:] == (4, 4)


def test_two_dilated_stages_stay_at_stride_8_and_basic_blocks_dilate_both_convolutions():
    backbone = ResNet(18, res4_dilation=2, res5_dilation=4, res5_multi_grid=[1, 2])
    assert [spec.stride for spec in backbone.output_shape().values()] == [4, 8, 8, 8]
    assert [[c.dilation[0] for c in (b.conv1, b.conv2)] for b in backbone.res5] == [[4, 4], [8, 8]]
    with torch.no_grad():
        assert backbone.eval()(torch.rand(1, 3, 33, 64))["res5"].shape[-2:] == (5, 8)


def test_dilation_as_torchvision_leaves_the_first_block_of_a_stage_the_dilation_before():
    """The convolutions of `resnet50(replace_stride_with_dilation=[False, True, True])`, layer by layer."""
    theirs = torchvision.models.resnet50(weights=None, replace_stride_with_dilation=[False, True, True])
    ours = ResNet(50, res4_dilation=2, res5_dilation=4, dilate_first_block=False)
    for mine, layer in ((ours.res4, theirs.layer3), (ours.res5, theirs.layer4)):
        for block, wanted in zip(mine, layer, strict=True):
            assert (block.conv2.dilation, block.conv2.stride, block.conv2.padding) == (
                wanted.conv2.dilation,
                wanted.conv2.stride,
                wanted.conv2.padding,
            )


def test_multi_grid_multiplies_the_dilation_of_each_block():
    backbone = ResNet(50, res5_dilation=2, res5_multi_grid=[1, 2, 4], stem="deeplab", stem_out_channels=128)
    assert [block.conv2.dilation for block in backbone.res5] == [(2, 2), (4, 4), (8, 8)]
    assert [c.out_channels for c in (backbone.stem.conv1, backbone.stem.conv2, backbone.stem.conv3)] == [64, 64, 128]
    assert backbone.output_shape()["res2"].stride == 4


def test_the_stride_is_where_it_was_asked_for():
    assert ResNet(50, stride_in_1x1=True).res3[0].conv1.stride == (2, 2)
    first = ResNet(50).res3[0]
    assert first.conv1.stride == (1, 1) and first.conv2.stride == (2, 2)


def test_freezing_stops_gradients_and_statistics_up_to_the_stage():
    backbone = ResNet(18, norm="bn", freeze_at=2)
    trained = {name.split(".")[0] for name, p in backbone.named_parameters() if p.requires_grad}
    assert trained == {"res3", "res4", "res5"}
    assert isinstance(backbone.res2[1].conv2.norm, FrozenBatchNorm2d)
    before = backbone.state_dict()["res2.0.conv1.norm.running_mean"].clone()
    backbone.train()(torch.rand(2, 3, 64, 64))["res5"].sum().backward()
    assert torch.equal(backbone.state_dict()["res2.0.conv1.norm.running_mean"], before)
    assert backbone.res3[0].conv1.weight.grad is not None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"depth": 20}, "depth is 20; it must be one of 18, 34, 50"),
        ({"out_features": ["res6"]}, r"out_features \['res6'\] must be some of conv1, stem, res2"),
        ({"out_features": []}, "must be some of"),
        ({"depth": 18, "num_groups": 2}, "need depth 50 or more"),
        ({"res4_dilation": 2}, "res4_dilation 2 and res5_dilation 1 do not go together.*2 and 4 stride 8"),
        ({"res5_multi_grid": [1, 2]}, r"res5_multi_grid is \[1, 2\]; depth 50 needs 3 factors of at least 1"),
        ({"stem": "big"}, "stem is 'big'; it must be 'plain' or 'deeplab'"),
        ({"freeze_at": 6}, "freeze_at is 6"),
        ({"norm": "batchnorm"}, "norm is 'batchnorm'.*'frozen_bn'"),
    ],
)
def test_wrong_arguments_are_explained(arguments, says):
    with pytest.raises(ValueError, match=says):
        ResNet(**arguments)


def test_frozen_norm_is_batch_norm_in_eval_mode_and_trains_nothing():
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm2d(4).eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    norm.weight.data.normal_()
    frozen = FrozenBatchNorm2d(4)
    frozen.load_state_dict(norm.state_dict())  # strictly: the counter of batches is passed over
    x = torch.randn(2, 4, 5, 6)
    torch.testing.assert_close(frozen.train()(x), norm(x))
    assert list(frozen.parameters()) == []
    assert frozen(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["frozen_bn", "bn"])
@pytest.mark.parametrize("size", [2, 20])  # 2: the norm after the convolution; 20: folded into its kernel
def test_folding_changes_neither_values_nor_gradients(kind, size):
    torch.manual_seed(0)
    layer = ConvNorm(3, 8, 3, norm=kind, relu=True).eval()
    layer.norm.running_mean.normal_()
    layer.norm.running_var.uniform_(0.5, 2)
    x = torch.randn(1, 3, size, size)
    layer(x).square().sum().backward()
    got = [p.grad.clone() for p in layer.parameters()]
    layer.zero_grad()
    plain = torch.nn.functional.conv2d(x, layer.weight, padding=1)
    want = torch.nn.functional.batch_norm(
        plain, layer.norm.running_mean, layer.norm.running_var, layer.norm.weight, layer.norm.bias
    ).relu()
    torch.testing.assert_close(layer(x), want, rtol=1e-5, atol=1e-5)
    want.square().sum().backward()
    for mine, parameter in zip(got, layer.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-4, atol=1e-3)


def test_group_norm_needs_a_multiple_of_32_channels():
    assert get_norm("gn", 64).num_groups == 32
    assert get_norm("", 7) is get_norm("none", 7) is None
    with pytest.raises(ValueError, match="multiple of 32 channels, got 48"):
        get_norm("gn", 48)
