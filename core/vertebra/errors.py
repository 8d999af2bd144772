"""The errors a user can cause. Each message says what, where, and how to fix it.

Library code raises these; only the command line prints them (one message, exit code 2).
"""

from vertebra._deprecation import former_names
from vertebra_eval.errors import DataError, VertebraError

__all__ = [
    "CheckpointError",
    "DataError",
    "ExportError",
    "PluginError",
    "RecipeError",
    "SetupError",
    "TrainingDiverged",
    "VertebraError",
]


class RecipeError(VertebraError):
    """A recipe, an override or a component's arguments are wrong; names file and line."""


class PluginError(VertebraError):
    """A plugin cannot be found, is ambiguous, cannot be imported, or breaks a contract; names it or its component."""


class CheckpointError(VertebraError):
    """A weights file or checkpoint cannot be read or does not fit the model; names the file."""


class ExportError(VertebraError):
    """A model cannot be exported as requested, or the outputs of the exported file differ from the model's."""


class SetupError(VertebraError):
    """The installation cannot work as it is (for example torch and torchvision do not fit)."""


class TrainingDiverged(VertebraError):
    """A loss became NaN or infinite; names the step and the losses."""


__getattr__ = former_names(__name__)
