"""`requires`: the distributions whose components and recipes a recipe names, and whether they are installed.

requires: [my-datasets, "my-heads>=0.2"]
"""

from __future__ import annotations

import shlex
from importlib import metadata

from vertebra.config.scalars import show
from vertebra.config.yaml_reader import Node
from vertebra.errors import PluginError, RecipeError
from vertebra.plugins import canonical, installed_plugins

__all__ = ["REQUIRES", "RequirementError", "check_requires", "join_requires"]

REQUIRES = "requires"


class RequirementError(PluginError):
    """Distributions that a recipe requires are not here; `reason` says which, without the recipe's place."""

    reason = ""


def check_requires(node: Node | None) -> None:
    """Checks the list that a recipe's file has, before any of its bases is opened.

    Raises:
        RecipeError: it is not a list of distributions, each perhaps with version bounds.
        RequirementError: one of them is not installed, has another version, or cannot be used; names all of them.
    """
    if node is None:
        return
    if not isinstance(node.value, list):
        raise RecipeError(f"{node.where}: {REQUIRES} is {show(node)}, expected a list: {REQUIRES}: [my-plugin]")
    faults = {item: fault for item in node.value if (fault := _fault(item)) is not None}
    if faults:
        err = RequirementError("\n".join(f"{item.where}: {REQUIRES}: {fault}" for item, fault in faults.items()))
        err.reason = "; ".join(fault.splitlines()[0].rstrip(".") for fault in faults.values())
        raise err


def join_requires(below: Node, above: Node) -> Node:
    """The union of a base's list and of the list of what builds on it."""
    known = {item.value for item in below.value}
    return Node([*below.value, *(item for item in above.value if item.value not in known)], above.where, above.folder)


def _fault(item: Node) -> str | None:
    """Why a required distribution cannot be used, or None."""
    from packaging.requirements import Requirement  # 20 ms that a recipe without this list need not spend

    try:
        required = Requirement(item.value if isinstance(item.value, str) else "")
        if required.extras or required.url or required.marker:
            raise ValueError
    except ValueError as err:  # packaging's InvalidRequirement
        raise RecipeError(
            f"{item.where}: {REQUIRES}: {show(item)} is not the name of a distribution, perhaps with version bounds, "
            "such as my-plugin or my-plugin>=0.2"
        ) from err
    install = f"\n  Install it: pip install {shlex.quote(item.value)}"
    plugins = {canonical(plugin.distribution): plugin for plugin in installed_plugins()}
    plugin = plugins.get(canonical(required.name))
    try:
        version = plugin.version if plugin is not None else metadata.version(required.name)
    except metadata.PackageNotFoundError:
        return f"{required.name} is not installed.{install}"
    if plugin is not None and plugin.problem:
        return f"{plugin} cannot be used: {plugin.problem}"
    try:
        fits = not required.specifier or required.specifier.contains(version, prereleases=True)
    except ValueError:  # the metadata are damaged and have no version
        fits = False
    if not fits:
        return f"{required.name} {version} is installed, expected {required.specifier}.{install}"
    return None
