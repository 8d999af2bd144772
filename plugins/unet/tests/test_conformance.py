"""The promises of every backbone, neck and head, kept by U-Net's."""

from vertebra.models import ShapeSpec
from vertebra.testing import BackboneConformance, HeadConformance, NeckConformance

FINE_LEVELS = {
    "a": ShapeSpec(channels=8, stride=1),
    "b": ShapeSpec(channels=16, stride=2),
    "c": ShapeSpec(channels=24, stride=4),
}


class TestUNetEncoder(BackboneConformance):
    component = "UNetEncoder"
    arguments = {"base_width": 4, "num_stages": 3}


class TestUNetDecoder(NeckConformance):
    """On a backbone's levels: strides 16 and 8 have features, 4 to 1 none."""

    component = "UNetDecoder"


class TestGatedDecoder(NeckConformance):
    component = "UNetDecoder"
    arguments = {"gate": {"name": "AttentionGate"}, "upsampling": {"name": "Interpolation", "mode": "bilinear"}}
    input_shape = FINE_LEVELS


class TestUNetPlusPlusDecoder(NeckConformance):
    component = "UNetPlusPlusDecoder"
    input_shape = FINE_LEVELS


class TestUNetHead(HeadConformance):
    component = "UNetHead"
    recipe = "unet:unet_shapes_quick"
    overrides = ("model.backbone.base_width=4", "model.backbone.num_stages=3")
    image_size = (40, 64)
    overfit_overrides = ("model.backbone.base_width=16",)
    overfit_lr = 3e-3


class TestUNetPlusPlusHead(HeadConformance):
    component = "UNetPlusPlusHead"
    recipe = "unet:unetpp_shapes_quick"
    overrides = ("model.backbone.base_width=4", "model.backbone.num_stages=3")
    image_size = (40, 64)
    overfit_overrides = ("model.backbone.base_width=8",)
    overfit_lr = 3e-3
