"""The parts of YOLOv5 and YOLOv10 keep what every part of their kind promises."""

from vertebra.models import ShapeSpec
from vertebra.testing import BackboneConformance, HeadConformance, NeckConformance


class TestYOLOv5Head(HeadConformance):
    component = "YOLOv5Head"
    recipe = "yolo:yolov5n_shapes_quick"


class TestYOLOv5HeadWithMasks(HeadConformance):
    component = "YOLOv5Head"
    recipe = "yolo:yolov5n_masks_shapes_quick"


class TestYOLOv10Head(HeadConformance):
    component = "YOLOv10Head"
    recipe = "yolo:yolov10n_shapes_quick"


class TestCSPDarknet(BackboneConformance):
    component = "CSPDarknet"
    arguments = {"size": "n"}


class TestYOLOv10Backbone(BackboneConformance):
    component = "YOLOv10Backbone"
    arguments = {"size": "n"}


class TestPANet(NeckConformance):
    component = "PANet"


class TestYOLOv10Neck(NeckConformance):
    component = "YOLOv10Neck"
    arguments = {"size": "n"}
    input_shape = {
        "res3": ShapeSpec(channels=16, stride=8),
        "res4": ShapeSpec(channels=32, stride=16),
        "res5": ShapeSpec(channels=64, stride=32),
    }
