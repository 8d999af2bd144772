from vertebra.testing import HeadConformance


class TestPanopticHead(HeadConformance):
    component = "PanopticHead"
    arguments = {
        "things": {"name": "CenterOffsetHead", "aspp_channels": 16, "decoder_channels": 16},
        "stuff": {"name": "PanopticDeepLabSemSegHead", "num_classes": 5, "aspp_channels": 16, "decoder_channels": 16},
        "merge": {"name": "GroupCenters"},
    }
    recipe = "panoptic:panoptic_deeplab_shapes_quick"


class TestSemSegFPNHead(HeadConformance):
    component = "SemSegFPNHead"
    recipe = "panoptic:semantic_fpn_shapes_quick"


class TestPanopticDeepLabSemSegHead(HeadConformance):
    component = "PanopticDeepLabSemSegHead"
    recipe = "panoptic:panoptic_deeplab_shapes_quick"


class TestCenterOffsetHead(HeadConformance):
    component = "CenterOffsetHead"
    recipe = "panoptic:panoptic_deeplab_shapes_quick"
