"""YOLO v1, v2, v3, v5 and the NMS-free YOLOv10 head for Vertebra."""

from vertebra_yolo.csp_darknet import CSPDarknet
from vertebra_yolo.panet import PANet
from vertebra_yolo.v5_head import YOLOv5Head
from vertebra_yolo.v5_import import import_yolov5
from vertebra_yolo.v10_backbone import YOLOv10Backbone
from vertebra_yolo.v10_head import YOLOv10Head
from vertebra_yolo.v10_neck import YOLOv10Neck

__all__ = ["CSPDarknet", "PANet", "YOLOv5Head", "YOLOv10Backbone", "YOLOv10Head", "YOLOv10Neck", "import_yolov5"]
