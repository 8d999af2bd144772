"""Plugins: found by their metadata, imported so that they harm nothing else, described from source."""

from vertebra.plugins import discovery
from vertebra.plugins.discovery import *  # noqa: F403  one list of names, its own

__all__ = discovery.__all__
