"""YOLO v1, v2, v3, v5 and the NMS-free YOLOv10 head for Vertebra."""
