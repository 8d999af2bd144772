"""Plugins: found by their metadata, imported so that they harm nothing else, described from source."""

from vertebra.plugins.discovery import (
    ALLOW,
    CORE,
    DISABLE,
    GROUPS,
    KINDS,
    Offer,
    PluginInfo,
    canonical,
    core,
    disable,
    installed_plugins,
    offers,
    rescan,
    switched_off,
    unknown_in_switches,
)

__all__ = [
    "ALLOW",
    "CORE",
    "DISABLE",
    "GROUPS",
    "KINDS",
    "Offer",
    "PluginInfo",
    "canonical",
    "core",
    "disable",
    "installed_plugins",
    "offers",
    "rescan",
    "switched_off",
    "unknown_in_switches",
]
