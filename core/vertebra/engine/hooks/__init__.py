"""Hooks: all of a training that is optional, one idea each.

The default list and its order stand in `defaults.py`; a recipe adds its own with `train.hooks`.
"""

from vertebra.engine.hook import Hook

__all__ = ["Hook"]
