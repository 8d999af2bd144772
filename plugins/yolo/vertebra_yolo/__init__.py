"""YOLO v1, v2, v3, v5 and the NMS-free YOLOv10 head for Vertebra."""

from vertebra_yolo.csp_darknet import CSPDarknet
from vertebra_yolo.darknet import Darknet19, Darknet53, TinyDarknet
from vertebra_yolo.import_darknet import import_darknet
from vertebra_yolo.panet import PANet
from vertebra_yolo.prototypes import PrototypeMasks
from vertebra_yolo.v1_backbone import FastYOLOv1Backbone, YOLOv1Backbone
from vertebra_yolo.v1_head import YOLOv1Head
from vertebra_yolo.v2_head import YOLOv2Head
from vertebra_yolo.v2_neck import YOLOv2Neck
from vertebra_yolo.v3_head import YOLOv3Head
from vertebra_yolo.v3_neck import YOLOv3Neck, YOLOv3TinyNeck
from vertebra_yolo.v5_head import YOLOv5Head
from vertebra_yolo.v5_import import import_yolov5
from vertebra_yolo.v10_backbone import YOLOv10Backbone
from vertebra_yolo.v10_head import YOLOv10Head
from vertebra_yolo.v10_neck import YOLOv10Neck

__all__ = [
    "CSPDarknet",
    "Darknet19",
    "Darknet53",
    "FastYOLOv1Backbone",
    "PANet",
    "PrototypeMasks",
    "TinyDarknet",
    "YOLOv1Backbone",
    "YOLOv1Head",
    "YOLOv2Head",
    "YOLOv2Neck",
    "YOLOv3Head",
    "YOLOv3Neck",
    "YOLOv3TinyNeck",
    "YOLOv5Head",
    "YOLOv10Backbone",
    "YOLOv10Head",
    "YOLOv10Neck",
    "import_darknet",
    "import_yolov5",
]
