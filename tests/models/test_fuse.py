import copy

import pytest
import torch
from torch import nn

from vertebra.models import fuse_conv_bn
from vertebra.models.backbones.mobilenet import MobileNetV3
from vertebra.models.backbones.resnet import ResNet
from vertebra.models.backbones.vgg import VGG
from vertebra.models.norms import FrozenBatchNorm2d

NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d)


def with_statistics(model):
    """The model with norms that do something."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, NORMS):
            for name, low, high in (("weight", 0.5, 1.5), ("bias", -1, 1), ("running_mean", -1, 1)):
                getattr(module, name).data.uniform_(low, high)
            module.running_var.uniform_(0.5, 2)
    return model.eval()


@pytest.mark.parametrize(
    "make",
    [
        lambda: ResNet(18, norm="bn", freeze_at=0),
        lambda: ResNet(18, norm="frozen_bn"),
        lambda: VGG(11, batch_norm=True),
        lambda: MobileNetV3(),
    ],
)
@torch.no_grad()
def test_features_stay_and_norms_go(make):
    model = with_statistics(make())
    images = torch.randn(1, 3, 64, 64)
    before = model(images)
    fused = fuse_conv_bn(copy.deepcopy(model))
    assert not any(isinstance(module, NORMS) for module in fused.modules())
    for name, feature in fused(images).items():
        scale = before[name].abs().max().item()
        torch.testing.assert_close(feature, before[name], rtol=1e-3, atol=1e-4 * max(scale, 1))


@torch.no_grad()
def test_a_convolution_with_bias_is_folded_too():
    model = with_statistics(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    x = torch.randn(2, 3, 8, 8)
    before = model(x)
    torch.testing.assert_close(fuse_conv_bn(model)(x), before, rtol=1e-4, atol=1e-5)
    assert isinstance(model[1], nn.Identity)


@torch.no_grad()
def test_what_only_looks_alike_is_left_alone():
    class NormFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)
            self.norm = nn.BatchNorm2d(4)

        def forward(self, x):
            return self.conv(self.norm(x))

    class Backwards(nn.Sequential):
        def forward(self, x):
            for layer in reversed(self):
                x = layer(x)
            return x

    class NormAndMore(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x).relu()

    for make in (
        NormFirst,
        lambda: Backwards(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)),
        lambda: nn.Sequential(nn.Conv2d(4, 4, 1), NormAndMore(4)),
        lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)),
    ):
        model = with_statistics(make())
        x = torch.randn(2, 4, 5, 5)
        before = model(x)
        assert torch.equal(fuse_conv_bn(model)(x), before)


@torch.no_grad()
def test_a_module_folds_what_it_knows_after_its_parts():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))

        def fold_norm(self):
            assert isinstance(self.inner[1], nn.Identity)
            self.inner = self.inner[0]

    block = fuse_conv_bn(Block())
    assert isinstance(block.inner, nn.Conv2d) and block.inner.bias is not None
