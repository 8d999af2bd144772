"""The names of a new plugin: its distribution, its package and its class, all made from one and checked."""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from vertebra.errors import PluginError
from vertebra.plugins import canonical, installed_plugins, offers
from vertebra.plugins.locate import locate_module, locate_package

__all__ = ["PluginNames", "plugin_names"]

_FORM = re.compile(r"[A-Za-z][A-Za-z0-9]*([-_.][A-Za-z0-9]+)*")
_LONGEST = 60


@dataclass(frozen=True)
class PluginNames:
    """`my-head` (distribution, and prefix of its recipes), `my_head` (package), `MyHead` (class)."""

    distribution: str
    package: str
    class_name: str


def plugin_names(name: str, kind: str) -> PluginNames:
    """All names of a plugin that is called `name`.

    Raises:
        PluginError: the name cannot be a distribution's or a package's, or is taken; all problems are reported.
    """
    if not _FORM.fullmatch(name) or len(name) > _LONGEST:
        raise PluginError(
            f"{name!r} cannot be a plugin's name: expected up to {_LONGEST} letters and digits in words joined by '-', "
            f"beginning with a letter, such as my-{kind}"
        )
    distribution = canonical(name)
    words = distribution.split("-")
    class_name = "".join(word[:1].upper() + word[1:] for word in words)
    names = PluginNames(distribution, "_".join(words), class_name)
    problems = list(_problems(names, kind))
    if problems:
        example = f"{distribution}-{kind}" if words[-1] != kind else f"my-{distribution}"
        raise PluginError(
            f"{name!r} cannot be this plugin's name:\n  " + "\n  ".join(problems) + f"\n  Try {example}, for example"
        )
    return names


def _problems(names: PluginNames, kind: str) -> Iterator[str]:
    package = names.package
    if keyword.iskeyword(package) or keyword.issoftkeyword(package):
        yield f"{package} is a Python keyword, so it cannot be imported"
    elif package in sys.stdlib_module_names:
        yield f"{package} is a module of Python's standard library"
    elif package == "vertebra" or locate_module(package) or locate_package(package):
        yield f"a package {package} can be imported here already"
    for plugin in installed_plugins():
        if canonical(plugin.distribution) == names.distribution:
            yield f"a plugin {plugin} is installed"
        elif names.distribution in plugin.recipe_packages:
            yield f"plugin {plugin} ships its recipes as {names.distribution}:..."
    taken = {offer.name: offer.plugin for offer in offers(kind)}
    if names.class_name in taken:
        yield f"{taken[names.class_name]} has a {kind} {names.class_name} already"
