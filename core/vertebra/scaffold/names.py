"""The names of a new plugin: its distribution, its package and its classes, all made from one and checked."""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vertebra.errors import PluginError
from vertebra.plugins import canonical, installed_plugins, offers
from vertebra.plugins.locate import locate_module, locate_package

__all__ = ["PluginNames", "plugin_names"]

_FORM = re.compile(r"[A-Za-z][A-Za-z0-9]*([-_.][A-Za-z0-9]+)*")
_LONGEST = 60


@dataclass(frozen=True)
class PluginNames:
    """`my-head` (distribution, and prefix of its recipes), `my_head` (package), {"head": "MyHead"} (classes)."""

    distribution: str
    package: str
    classes: dict[str, str]


def plugin_names(name: str, kinds: Sequence[str], class_names: Sequence[str] = ()) -> PluginNames:
    """All names of a plugin that is called `name`.

    Args:
        class_names: of the classes, in the order of `kinds`; empty: made from `name`.
    Raises:
        PluginError: a name cannot be a distribution's, a package's or a class's, or is taken; reports all problems.
    """
    if not _FORM.fullmatch(name) or len(name) > _LONGEST:
        raise PluginError(
            f"{name!r} cannot be a plugin's name: expected up to {_LONGEST} letters and digits in words joined by '-', "
            f"beginning with a letter, such as my-{kinds[0]}"
        )
    distribution = canonical(name)
    words = distribution.split("-")
    if class_names and len(class_names) != len(kinds):
        raise PluginError(
            f"{len(class_names)} class names ({', '.join(class_names)}) for {len(kinds)} kinds ({', '.join(kinds)}); "
            "expected one for each, in the same order"
        )
    classes = dict(zip(kinds, class_names or _class_names(words, kinds), strict=True))
    names = PluginNames(distribution, "_".join(words), classes)
    problems, of_classes = list(_problems(names)), list(_problems_of_classes(names.classes))
    if problems or of_classes:
        example = f"{distribution}-{kinds[0]}" if words[-1] != kinds[0] else f"my-{distribution}"
        listed = "\n  ".join([*problems, *of_classes])
        if class_names and not problems:
            raise PluginError(f"the classes cannot have these names:\n  {listed}\n  Name others: --class")
        other = ", or name the classes yourself: --class" if of_classes else ""
        raise PluginError(f"{name!r} cannot be this plugin's name:\n  {listed}\n  Try {example}, for example{other}")
    return names


def _class_names(words: Sequence[str], kinds: Sequence[str]) -> list[str]:
    """`MyHead` of my-head; of several kinds `MyIdeaHead`, `MyIdeaLoss` of my-idea."""
    stem = "".join(word[:1].upper() + word[1:] for word in words)
    if len(kinds) == 1:
        return [stem]
    return [stem if stem.endswith(kind.capitalize()) else stem + kind.capitalize() for kind in kinds]


def _problems(names: PluginNames) -> Iterator[str]:
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


def _problems_of_classes(classes: dict[str, str]) -> Iterator[str]:
    for kind, name in classes.items():
        if not name.isidentifier() or keyword.iskeyword(name):
            yield f"{name!r} cannot be the name of a class"
        taken = {offer.name: offer.plugin for offer in offers(kind)}
        if name in taken:
            yield f"{taken[name]} has a {kind} {name} already"
    if len(set(classes.values())) < len(classes):
        yield f"two classes have one name: {', '.join(classes.values())}"
