"""Semantic labels inside Vertebra: classes from 0, and one number for pixels that have none."""

__all__ = ["IGNORED_LABEL"]

IGNORED_LABEL = 255
"""Label of pixels without a class in every tensor of labels, whatever a dataset's files have (Detectron2's value)."""
