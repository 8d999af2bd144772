"""What installed plugins offer, read from their metadata; nothing of a plugin is imported before a recipe names it.

A plugin is an installed distribution with entry points in the groups `vertebra.<kind>s` (components),
`vertebra.recipes` (YAML shipped as package data) or `vertebra.commands` (typer.Typer apps, sub-commands of `vertebra`).
The core offers its own components in the same way.

    VERTEBRA_PLUGINS_DISABLE=a,b   these distributions are as good as not there
    VERTEBRA_PLUGINS_ALLOW=a,b     only these may be used (`local` stands for local files)
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata

from vertebra.errors import PluginError
from vertebra.plugins.isolation import PATIENCE, import_plugin_module, plugin_code
from vertebra_eval.nearest import nearest

__all__ = [
    "ALLOW",
    "CORE",
    "DISABLE",
    "GROUPS",
    "KINDS",
    "LOADING",
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

CORE = "vertebra"
KINDS = (
    "model",
    "backbone",
    "neck",
    "head",
    "loss",
    "part",
    "format",
    "transform",
    "sampler",
    "optimizer",
    "schedule",
    "hook",
    "evaluator",
)
DISABLE = "VERTEBRA_PLUGINS_DISABLE"
ALLOW = "VERTEBRA_PLUGINS_ALLOW"
LOADING: list[str] = []  # distributions of which something is being imported
GROUPS = {kind: "vertebra.losses" if kind == "loss" else f"vertebra.{kind}s" for kind in KINDS}
_KIND_OF_GROUP = {group: kind for kind, group in GROUPS.items()}
_RECIPES = "vertebra.recipes"
_COMMANDS = "vertebra.commands"
_KNOWN_GROUPS = (*_KIND_OF_GROUP, _RECIPES, _COMMANDS)


@dataclass(frozen=True)
class Offer:
    """One entry point line: a component, or of kind `command` a command, that a distribution offers; not loaded yet."""

    kind: str
    name: str
    value: str  # "package.module:Class"; of a command "package.module:app"
    plugin: PluginInfo = field(repr=False, compare=False)

    @property
    def distribution(self) -> str:
        return self.plugin.distribution

    @property
    def qualified(self) -> str:
        """The name that always works, whoever else offers the same: `distribution:Name`."""
        return f"{self.distribution}:{self.name}"

    @property
    def owner(self) -> str:
        """What an error is to name: `head X of plugin some-plugin 1.0`."""
        return f"{self.kind} {self.name} of {'' if self.plugin is core() else 'plugin '}{self.plugin}"

    def load(self) -> type:
        """Imports the component's module now.

        Raises:
            PluginError: as `load_object`, or what it finds there is not a class.
        """
        found = self.load_object()
        if not isinstance(found, type):
            raise PluginError(f"{self.owner}: {self.value} is a {type(found).__name__}, expected a class")
        return found

    def load_object(self) -> object:
        """Imports the module now and gives what its entry point line names, whatever that is.

        Raises:
            PluginError: the plugin is switched off, needs another core, cannot be imported, or holds nothing at that
                place.
        """
        owner = self.owner
        if reason := self.plugin.problem:
            raise PluginError(f"{owner} cannot be used: {reason}")
        module_name, _, attribute = self.value.partition(":")
        module_name, attribute = module_name.strip(), attribute.partition("[")[0].strip()
        if not re.fullmatch(r"\w+(\.\w+)*", module_name) or not attribute:
            expected = "package.module:app" if self.kind == "command" else "package.module:Class"
            raise PluginError(f"{owner}: its entry point is {self.value!r}, expected {expected!r}")
        LOADING.append(self.distribution)
        try:
            found: object = import_plugin_module(module_name, owner, None if self.plugin is core() else PATIENCE)
        finally:
            LOADING.remove(self.distribution)
        for part in attribute.split("."):
            missing = object()
            holder = found
            with plugin_code(owner):  # a module may import lazily, when a name is requested
                found = getattr(holder, part, missing)
            if found is missing:
                near = nearest(part, (name for name in dir(holder) if not name.startswith("_")))
                raise PluginError(
                    f"{owner}: module {module_name} has no {attribute!r}."
                    f"\n  Nearest: {', '.join(near) or 'none'}. Its entry point says {self.name} = {self.value!r}"
                )
        return found


@dataclass(frozen=True)
class PluginInfo:
    """An installed distribution that offers components or recipes, as its metadata describes it."""

    distribution: str
    version: str
    summary: str
    requires: tuple[str, ...] = ()  # its requirements on the core, as `vertebra>=0.1,<0.2`
    entries: tuple[tuple[str, str, str], ...] = ()  # (group, name, value)
    unreadable: str | None = None  # why the metadata cannot be read

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"

    @cached_property
    def offers(self) -> tuple[Offer, ...]:
        return tuple(
            Offer(_KIND_OF_GROUP[group], name, value, self)
            for group, name, value in self.entries
            if group in _KIND_OF_GROUP
        )

    @property
    def components(self) -> dict[str, tuple[str, ...]]:
        """Names of the offered components, by kind."""
        kinds = dict.fromkeys(offer.kind for offer in self.offers)
        return {kind: tuple(offer.name for offer in self.offers if offer.kind == kind) for kind in kinds}

    @property
    def recipe_packages(self) -> dict[str, str]:
        """{prefix: package} for the recipes that it ships."""
        return {name: value for group, name, value in self.entries if group == _RECIPES}

    @cached_property
    def commands(self) -> tuple[Offer, ...]:
        """The sub-commands that it adds to `vertebra`."""
        return tuple(Offer("command", name, value, self) for group, name, value in self.entries if group == _COMMANDS)

    @property
    def problem(self) -> str | None:
        """Why nothing of this plugin can be used here, or None. The plugin is not imported to find out."""
        return self.unreadable or switched_off(self.distribution) or self._core_misfit()

    @property
    def notes(self) -> list[str]:
        """What is odd about single lines of its entry points, though the rest can be used."""
        found = []
        for group in dict.fromkeys(group for group, _, _ in self.entries):
            if group not in _KNOWN_GROUPS:
                near = nearest(group, _KNOWN_GROUPS, limit=1)
                found.append(f"entry point group {group} is unknown" + (f"; meant {near[0]}?" if near else ""))
        if self.distribution != CORE and (core_plugin := core()):
            reserved = {(offer.kind, offer.name) for offer in core_plugin.offers}
            found += [
                f"{offer.kind} {offer.name}: the core has this name; reach the plugin's as {offer.qualified}"
                for offer in self.offers
                if (offer.kind, offer.name) in reserved
            ]
        return found

    def _core_misfit(self) -> str | None:
        core_plugin = core()
        if self.distribution == CORE or core_plugin is None:
            return None
        from packaging.requirements import Requirement  # 20 ms that a process without plugins need not spend

        for text in self.requires:
            try:
                requirement = Requirement(text)
                if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                    continue
            except ValueError as err:  # packaging's InvalidRequirement and UndefinedEnvironmentName
                return f"its requirement {text!r} cannot be read: {str(err).splitlines()[0]}"
            if not requirement.specifier.contains(core_plugin.version, prereleases=True):
                return (
                    f"it needs {CORE}{requirement.specifier}, but {CORE} {core_plugin.version} is installed.\n"
                    f"  Install a version of {self.distribution} that fits: pip install --upgrade {self.distribution}"
                )
        return None


def installed_plugins() -> list[PluginInfo]:
    """Every installed plugin, by name, without the core. Imports nothing of any of them."""
    return [plugin for plugin in _scan() if plugin.distribution != CORE]


def core() -> PluginInfo | None:
    """The core's own distribution; None where `vertebra` is importable but not installed."""
    return next((plugin for plugin in _scan() if plugin.distribution == CORE), None)


def offers(kind: str) -> Iterator[Offer]:
    """Every entry point of this kind, the core's first, whether it can be used or not."""
    if (core_plugin := core()) is not None:
        yield from (offer for offer in core_plugin.offers if offer.kind == kind)
    for plugin in installed_plugins():
        yield from (offer for offer in plugin.offers if offer.kind == kind)


def switched_off(distribution: str) -> str | None:
    """Why the environment does not let this distribution be used, or None. The core is always on."""
    key = canonical(distribution)
    disabled, allowed = _names_in(DISABLE), _names_in(ALLOW)
    if key == CORE:
        return None
    if key in disabled:
        return f"it is switched off by {DISABLE} (or --no-plugin)"
    if os.environ.get(ALLOW) is not None and key not in allowed:
        return f"{ALLOW} does not name it (it allows: {', '.join(sorted(allowed)) or 'nothing'})"
    return None


def unknown_in_switches() -> list[str]:
    """A sentence for each name in the two variables that no installed plugin has; a typo there must not go unseen."""
    known = {canonical(plugin.distribution) for plugin in installed_plugins()} | {"local"}
    return [
        f"{variable} names {name!r}, which is not installed"
        + (f"; nearest: {', '.join(near)}" if (near := nearest(name, known)) else "")
        for variable in (DISABLE, ALLOW)
        for name in sorted(_names_in(variable) - known)
    ]


def disable(name: str) -> None:
    """Switches an installed plugin off for this process and those it starts (`--no-plugin NAME`)."""
    known = [plugin.distribution for plugin in installed_plugins()]
    if canonical(name) not in map(canonical, known):
        near = ", ".join(nearest(name, known)) or ", ".join(known) or "none is installed"
        raise PluginError(f"cannot switch off {name!r}: no such plugin is installed.\n  Nearest: {near}")
    os.environ[DISABLE] = ",".join(dict.fromkeys([*sorted(_names_in(DISABLE)), canonical(name)]))


def canonical(distribution: str) -> str:
    """`My_Head` and `my-head` name the same distribution."""
    return re.sub(r"[-_.]+", "-", distribution.strip()).lower()


def rescan() -> None:
    """Forgets what was found, for a process in which a plugin was installed just now."""
    _scans.clear()


_scans: dict[tuple[str, ...], list[PluginInfo]] = {}  # once per process, unless sys.path changes


def _scan() -> list[PluginInfo]:
    key = tuple(sys.path)
    if key not in _scans:
        found: dict[str, PluginInfo] = {}
        for distribution in metadata.distributions():
            plugin = _read(distribution)
            if plugin is not None:
                found.setdefault(canonical(plugin.distribution), plugin)  # sys.path decides, as for imports
        _scans[key] = [found[name] for name in sorted(found)]
    return _scans[key]


def _read(distribution: metadata.Distribution) -> PluginInfo | None:
    """A distribution's offers, or None where it offers nothing to Vertebra. Damaged metadata harms only itself."""
    try:
        text = distribution.read_text("entry_points.txt") or ""
    except OSError:
        return None
    except UnicodeDecodeError:
        name, version, summary, _ = _describe(distribution)
        return PluginInfo(name, version, summary, unreadable="its entry_points.txt is not text in UTF-8")
    if "vertebra." not in text:
        return None
    name, version, summary, requires = _describe(distribution)
    try:
        entries = tuple(
            (entry.group, entry.name, entry.value)
            for entry in distribution.entry_points
            if entry.group.startswith("vertebra.")
        )
    except Exception as err:  # importlib.metadata raises what its parser happens to raise
        return PluginInfo(name, version, summary, unreadable=f"its entry_points.txt cannot be read ({err})")
    return PluginInfo(name, version, summary, requires, entries) if entries else None


def _describe(distribution: metadata.Distribution) -> tuple[str, str, str, tuple[str, ...]]:
    try:
        head = distribution.metadata
        name, version, summary = ((head.get_all(key) or [None])[0] for key in ("Name", "Version", "Summary"))
        lines = head.get_all("Requires-Dist") or []
    except Exception:  # no METADATA, or not text: the folder's name says enough to report it
        name, version, summary, lines = None, None, None, []
    folder = str(getattr(distribution, "_path", "unknown")).replace("\\", "/").rpartition("/")[2]
    requires = tuple(line for line in lines if re.match(rf"{CORE}\s*($|[\[(<>=!~;@ ])", line))
    return name or folder.partition("-")[0] or "unknown", version or "(no version)", summary or "", requires


def _names_in(variable: str) -> set[str]:
    return {canonical(name) for name in os.environ.get(variable, "").split(",") if name.strip()}
