"""R-CNN as it was before networks learned to propose: a small, documented baseline (`vertebra rcnn classic`)."""

from vertebra_rcnn.classic.detector import ClassicRCNN
from vertebra_rcnn.classic.linear import BoxRidges, LinearClassifiers
from vertebra_rcnn.classic.selective_search import selective_search

__all__ = ["BoxRidges", "ClassicRCNN", "LinearClassifiers", "selective_search"]
