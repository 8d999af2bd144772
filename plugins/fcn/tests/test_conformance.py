"""The heads of this package keep what every head promises."""

from vertebra.testing import HeadConformance


class TestFCNHead(HeadConformance):
    component = "FCNHead"
    recipe = "fcn:fcn_shapes_quick"


class TestFCNConvHead(HeadConformance):
    component = "FCNConvHead"
    recipe = "fcn:fcn_conv_shapes_quick"


class TestFCNLightHead(HeadConformance):
    component = "FCNLightHead"
    recipe = "fcn:fcn_light_shapes_quick"


class TestFCNSumHead(HeadConformance):
    component = "FCNSumHead"
    arguments = {"conv_channels": 32}  # 4096 by default: 120 million parameters
    recipe = "fcn:fcn_light_shapes_quick"
    overrides = ("model.heads.labels={name: FCNSumHead, conv_channels: 32}",)
