"""What lies behind AP: confusion, kinds of errors, calibration, sizes, and how sure the numbers are."""

from vertebra.evaluation.analysis.calibration import Calibration, calibration
from vertebra.evaluation.analysis.compare import Comparison, Difference, compare_matches
from vertebra.evaluation.analysis.confusion import ConfusionMatrix, confusion_matrix
from vertebra.evaluation.analysis.errors import BACKGROUND_IOU, ERROR_MEANINGS, ErrorSplit, error_split
from vertebra.evaluation.analysis.intervals import bootstrap_intervals
from vertebra.evaluation.analysis.overlaps import Overlaps, overlaps
from vertebra.evaluation.analysis.sizes import SizeRow, by_size

__all__ = [
    "BACKGROUND_IOU",
    "ERROR_MEANINGS",
    "Calibration",
    "Comparison",
    "ConfusionMatrix",
    "Difference",
    "ErrorSplit",
    "Overlaps",
    "SizeRow",
    "bootstrap_intervals",
    "by_size",
    "calibration",
    "compare_matches",
    "confusion_matrix",
    "error_split",
    "overlaps",
]
