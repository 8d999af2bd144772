"""Ways to predict an image other than in one piece: windows, several scales, mirror images."""

from vertebra.models.inference.mode import InferenceMode, Predict, with_inference
from vertebra.models.inference.multi_scale import MultiScaleFlip
from vertebra.models.inference.sliding_window import SlidingWindow

__all__ = ["InferenceMode", "MultiScaleFlip", "Predict", "SlidingWindow", "with_inference"]
