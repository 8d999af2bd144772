"""The heads, backbones and necks of YOLOv1, v2 and v3 keep what every one promises."""

from vertebra.testing import BackboneConformance, HeadConformance, NeckConformance


class TestYOLOv3Head(HeadConformance):
    component = "YOLOv3Head"
    recipe = "yolo:yolov3_tiny_shapes"
    overrides = ("model.backbone.width=8", "model.neck.width=32")


class TestDarknet53(BackboneConformance):
    component = "Darknet53"
    arguments = {"width": 4, "depths": (1, 1, 2, 1, 1)}


class TestTinyDarknet(BackboneConformance):
    component = "TinyDarknet"
    arguments = {"width": 4}


class TestDarknet19(BackboneConformance):
    component = "Darknet19"
    arguments = {"width": 4}


class TestYOLOv3Neck(NeckConformance):
    component = "YOLOv3Neck"
    arguments = {"channels": [8, 16, 32]}


class TestYOLOv3TinyNeck(NeckConformance):
    component = "YOLOv3TinyNeck"
    arguments = {"width": 16, "in_features": ["res4", "res5"]}
    recipe = "yolo:yolov3_tiny_shapes"


class TestYOLOv1Head(HeadConformance):
    component = "YOLOv1Head"
    recipe = "yolo:yolov1_fast_shapes"
    overrides = (
        "model.backbone.width=0.0625",
        "model.backbone.image_size=128",
        "model.heads.boxes.image_size=128",
        "model.heads.boxes.hidden=[64]",
    )


class TestYOLOv2Head(HeadConformance):
    component = "YOLOv2Head"
    recipe = "yolo:yolov2_shapes"
    overrides = ("model.backbone.width=8", "model.neck.width=32")


class TestYOLOv1Backbone(BackboneConformance):
    component = "YOLOv1Backbone"
    arguments = {"width": 0.03125, "image_size": 64}


class TestFastYOLOv1Backbone(BackboneConformance):
    component = "FastYOLOv1Backbone"
    arguments = {"width": 0.0625, "image_size": 64}


class TestYOLOv2Neck(NeckConformance):
    component = "YOLOv2Neck"
    arguments = {"width": 16, "passthrough": 8, "in_features": ["res4", "res5"]}
    recipe = "yolo:yolov2_shapes"
