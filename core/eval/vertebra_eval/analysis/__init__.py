"""What lies behind AP: confusion, kinds of errors, calibration, sizes, and how sure the numbers are."""

from vertebra_eval.analysis.calibration import Calibration, calibration
from vertebra_eval.analysis.compare import Comparison, Difference, compare_matches, compare_measured
from vertebra_eval.analysis.confusion import ConfusionMatrix, confusion_matrix
from vertebra_eval.analysis.errors import BACKGROUND_IOU, ERROR_MEANINGS, ErrorSplit, error_split
from vertebra_eval.analysis.image_sums import ImageSums
from vertebra_eval.analysis.intervals import Intervals, bootstrap_intervals, measured_intervals
from vertebra_eval.analysis.overlaps import Overlaps, overlaps
from vertebra_eval.analysis.sizes import SizeRow, by_size

__all__ = [
    "BACKGROUND_IOU",
    "ERROR_MEANINGS",
    "Calibration",
    "Comparison",
    "ConfusionMatrix",
    "Difference",
    "ErrorSplit",
    "ImageSums",
    "Intervals",
    "Overlaps",
    "SizeRow",
    "bootstrap_intervals",
    "by_size",
    "calibration",
    "compare_matches",
    "compare_measured",
    "confusion_matrix",
    "error_split",
    "measured_intervals",
    "overlaps",
]
