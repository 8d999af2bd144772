"""Predictor: images, folders, videos and cameras in, predictions out, for notebooks and for `vertebra predict`."""

from vertebra.predictor.pictures import PictureWriter, draw_prediction
from vertebra.predictor.predictor import Prediction, Predictor
from vertebra.predictor.run import SAVED, WrittenPredictions, predict_files
from vertebra.predictor.sources import Frame
from vertebra.predictor.timing import StageTimes

__all__ = [
    "SAVED",
    "Frame",
    "PictureWriter",
    "Prediction",
    "Predictor",
    "StageTimes",
    "WrittenPredictions",
    "draw_prediction",
    "predict_files",
]
