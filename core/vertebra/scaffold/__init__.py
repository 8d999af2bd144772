"""Scaffold: writes the source of a new plugin that installs, passes its tests and trains at once."""

from vertebra.scaffold.write import SCAFFOLD_KINDS, NewPlugin, new_plugin

__all__ = ["SCAFFOLD_KINDS", "NewPlugin", "new_plugin"]
