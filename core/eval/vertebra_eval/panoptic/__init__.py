"""Panoptic segmentation: PQ, SQ and RQ from segment ids and from COCO's files."""
