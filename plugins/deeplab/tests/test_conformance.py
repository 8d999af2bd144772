"""The heads keep what every head promises."""

from vertebra.testing import HeadConformance


class TestDeepLabV2Head(HeadConformance):
    component = "DeepLabV2Head"
    recipe = "deeplab:deeplab_v2_shapes_quick"
    overfit_size = (64, 96)
    overfit_overrides = ("model.backbone.out_features=[res4]",)  # res5 at stride 8 would take most of the time
    overfit_lr = 2e-3


class TestDeepLabV3Head(HeadConformance):
    component = "DeepLabV3Head"
    recipe = "deeplab:deeplab_v3_shapes_quick"
    overfit_size = (64, 96)
    overfit_overrides = ("model.backbone.out_features=[res4]",)  # res5 at stride 8 would take most of the time
    overfit_lr = 2e-3


class TestDeepLabV3PlusHead(HeadConformance):
    component = "DeepLabV3PlusHead"
    recipe = "deeplab:deeplab_v3plus_shapes_quick"
