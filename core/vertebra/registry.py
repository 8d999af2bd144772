"""Registries: from a name in a recipe to the class it means.

`name: X` means a component registered in this process by the decorator, or an installed entry point `X`; otherwise it
is an error. `distribution:X` always means that distribution's entry point. What is registered cannot have the name of
an installed component. Of two classes of one name in local files or notebook cells the later one counts, with a note; a
recipe that names a local file means the classes of that file.
"""

from __future__ import annotations

import inspect
import logging
import sys
from typing import Any, NamedTuple

from fvcore.common.registry import Registry as FvcoreRegistry

from vertebra.errors import PluginError, RecipeError
from vertebra.plugins import KINDS, Offer, canonical, core, installed_plugins, offers, switched_off
from vertebra.plugins.discovery import DISABLE, LOADING
from vertebra.plugins.local_files import WHEN_FORGOTTEN, WHEN_NAMED, is_local_module, load_announced, loading_module
from vertebra.plugins.overrides import check_overrides
from vertebra_eval.nearest import nearest

__all__ = [
    "BACKBONES",
    "EVALUATORS",
    "FORMATS",
    "HEADS",
    "HOOKS",
    "LOSSES",
    "MODELS",
    "NECKS",
    "OPTIMIZERS",
    "PARTS",
    "REGISTRIES",
    "SAMPLERS",
    "SCHEDULES",
    "TRANSFORMS",
    "Registry",
]

logger = logging.getLogger(__name__)


class _Registered(NamedTuple):
    """A class, and the file or notebook cell that registered it."""

    cls: type
    file: str

    def __str__(self) -> str:
        return f"{self.cls.__qualname__} in {self.file}"


class Registry(FvcoreRegistry):
    """Components of one kind: fvcore's registry for those of this process, entry points for installed ones.

    `register` takes a name and returns the class of a call too; `get` and `in` know installed components besides.

        @HEADS.register()
        class MyHead(Head): ...

        HEADS.get("RetinaNetHead")  # loaded from its plugin now

    Args:
        kind: backbone, neck, head, ...
    """

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self._registered: dict[tuple[str, str], _Registered] = {}  # by (module that registered it, name), latest last

    @property
    def kind(self) -> str:
        return self._name

    def register(self, obj: type | None = None, *, name: str | None = None) -> Any:
        """Registers a class under its own name, or `name`; as a decorator or as a call. Returns the class."""
        file = sys._getframe(1).f_code.co_filename  # a class itself does not know a notebook's cell

        def add(cls: type) -> type:
            self._do_register(name or cls.__name__, cls, file)
            return cls

        return add if obj is None else add(obj)

    def _do_register(self, name: str, obj: Any, file: str = "") -> None:
        self._check_kind(name, obj)
        self._check_free(name, obj)
        known, module = self._obj_map.get(name), loading_module() or obj.__module__
        if known is not None and not (_is_new_version(known, obj) or _may_replace(module, self.module_of(name))):
            raise PluginError(
                f"{self.kind} {name} is registered twice: {_origin(known)}, and now {_origin(obj)}.\n"
                "  Rename one of the two classes"
            )
        self._make_current(module, name, _Registered(obj, file))

    def module_of(self, name: str) -> str:
        """The module that registered the class which `name` means now; empty where none of this process did."""
        cls = self._obj_map.get(name)
        owners = (module for (module, own), one in self._registered.items() if own == name and one.cls is cls)
        return "" if cls is None else next(owners, cls.__module__)

    def _check_free(self, name: str, obj: type) -> None:
        """Raises PluginError where the name is an installed component's, or could be mistaken for a qualified one."""
        if ":" in name:
            raise PluginError(f"{self.kind} {name} cannot be registered: distribution:Name is an installed component's")
        package = obj.__module__.partition(".")[0]
        for offer in offers(self.kind):
            own = offer.distribution in LOADING or offer.value.partition(":")[0].partition(".")[0] == package
            of_core = offer.plugin is core()
            unusable = offer.plugin.problem or switched_off(offer.distribution)
            if offer.name != name or unusable or (own and not of_core):  # own: a plugin that has the decorator too
                continue
            owner = "the core" if of_core else f"the installed plugin {offer.plugin}"
            off = "" if of_core else f",\n  or ignore the plugin: --no-plugin {offer.distribution} (or {DISABLE})"
            of = "" if loading_module() else f" ({_origin(obj)})"  # a local file's import says it
            raise PluginError(
                f"{self.kind} {name} cannot be registered{of}: {owner} has a {self.kind} of this name.\n"
                f"  Rename the class, or register it under another name: register(name=...){off}"
            )

    def _make_current(self, module: str, name: str, new: _Registered) -> None:
        """The class is what the name means from now on; a note where it meant one of another place."""
        old = self._registered.get((self.module_of(name), name))
        if old is not None and old.cls is not new.cls and old.file != new.file:
            logger.warning("%s %s: %s replaces %s in this process", self.kind, name, new, old)
        self._registered.pop((module, name), None)
        self._registered[module, name] = new
        self._obj_map[name] = new.cls

    def get(self, name: str, module: str = "") -> type[Any]:
        """The class that `name` means, imported now if an installed distribution offers it.

        Args:
            module: what it registered under this name goes before others, see `module_of`.
        Raises:
            RecipeError: nothing of this kind has that name.
            PluginError: several distributions offer it, or the one that does cannot be used.
        """
        if is_local_module(module):
            load_announced()
        if (module, name) in self._registered:
            return self._registered[module, name].cls
        found = self.find(name)
        if isinstance(found, Offer):
            cls = found.load()
            self._check_kind(name, cls, f" (plugin {found.plugin})")
            return cls
        return found

    def find(self, name: str) -> type | Offer:
        """What `name` means, with nothing imported: a class of this process or an installed one's offer.

        Raises: as `get`.
        """
        if name not in self._obj_map:
            load_announced()
        if name in self._obj_map:
            return self._obj_map[name]
        if ":" in name:
            return self._find_qualified(name)
        found = [offer for offer in offers(self.kind) if offer.name == name]
        of_core = [offer for offer in found if offer.plugin is core()]
        usable = of_core or [offer for offer in found if not switched_off(offer.distribution)]
        if len(usable) > 1:
            lines = [f"    {offer.qualified}  ({offer.plugin}, {offer.value})" for offer in usable]
            raise PluginError(
                f"several plugins offer the {self.kind} {name}; write which one you mean:\n" + "\n".join(lines)
            )
        if not found:
            raise RecipeError(self._no_such_name(name))
        return (usable or found)[0]  # one that is switched off says so when it is loaded

    def names(self) -> list[str]:
        """Every name that `get` knows, sorted; those that several distributions offer are qualified."""
        load_announced()
        found = [offer for offer in offers(self.kind) if not switched_off(offer.distribution)]
        reserved = {offer.name for offer in found if offer.plugin is core()}
        count: dict[str, int] = {}
        for offer in found:
            count[offer.name] = count.get(offer.name, 0) + 1
        plain = {offer.name for offer in found if count[offer.name] == 1} | reserved
        qualified = {offer.qualified for offer in found if count[offer.name] > 1 and offer.plugin is not core()}
        return sorted({*self._obj_map, *plain, *qualified}, key=lambda name: (name.lower(), name))

    def registered(self) -> dict[str, type]:
        """The components that this process registered by the decorator."""
        return dict(self)

    def __contains__(self, name: str) -> bool:
        return name in self._obj_map or name in self.names()

    def _find_qualified(self, name: str) -> Offer:
        distribution, _, bare = name.partition(":")
        here = [offer for offer in offers(self.kind) if canonical(offer.distribution) == canonical(distribution)]
        match = [offer for offer in here if offer.name == bare]
        if match:
            return match[0]
        for other in KINDS:
            owners = (canonical(offer.distribution) for offer in offers(other) if offer.name == bare)
            if canonical(distribution) in owners:
                raise RecipeError(self._of_another_kind(name, other))
        if here:
            known = ", ".join(offer.name for offer in here)
            raise RecipeError(f"{here[0].plugin} offers no {self.kind} {bare!r}.\n  It offers: {known}")
        near = nearest(distribution, {offer.distribution for offer in offers(self.kind)})
        raise RecipeError(
            f"no installed distribution {distribution!r} offers a {self.kind}.\n"
            f"  Nearest: {', '.join(near) or 'none'}. To see all: vertebra plugins"
        )

    def _no_such_name(self, name: str) -> str:
        for other, registry in REGISTRIES.items():
            known = {*registry._obj_map, *(offer.name for offer in offers(other))}
            if other != self.kind and name in known:
                return self._of_another_kind(name, other)
        lines = [f"no {self.kind} has the name {name!r}.", f"  {self._suggest(name)}"]
        if core() is None:
            lines.append(
                "  The core's own components are missing: vertebra is importable but not installed (make setup)"
            )
        left_out = [f"{plugin} ({plugin.problem.splitlines()[0]})" for plugin in installed_plugins() if plugin.problem]
        if left_out:
            lines.append(f"  Plugins skipped: {'; '.join(left_out)}")
        return "\n".join(lines)

    def _of_another_kind(self, name: str, kind: str) -> str:
        return f"{name} is {_a(kind)}; you asked for {_a(self.kind)}.\n  {self._suggest(name)}"

    def _suggest(self, name: str) -> str:
        names = self.names()
        near = ", ".join(nearest(name, names)) or (", ".join(names) if len(names) <= 8 else "none")
        return f"Nearest: {near or 'none is installed'}. To see all: vertebra components {self.kind}"

    def _check_kind(self, name: str, obj: Any, origin: str = "") -> None:
        if not isinstance(obj, type):
            raise PluginError(f"{self.kind} {name}{origin} is {obj!r}, expected a class")
        kind = getattr(obj, "component_kind", self.kind)
        if kind != self.kind:
            raise PluginError(f"{name}{origin} is {_a(kind)}, but it is registered as {_a(self.kind)}")
        check = getattr(obj, "check_class", None) if hasattr(obj, "component_kind") else None
        if callable(check):
            check()
        check_overrides(obj, kind)


def _is_new_version(known: type, obj: type) -> bool:
    """Whether a notebook's cell or a reloaded module defined the same class again."""
    return (known.__module__, known.__qualname__) == (obj.__module__, obj.__qualname__)


def _may_replace(module: str, known: str) -> bool:
    """Whether the later one is a local file's or a notebook's, and not a second class in one local file."""
    return module == "__main__" or (is_local_module(module) and known != module)


def _origin(cls: type) -> str:
    name = cls.__qualname__ if is_local_module(cls.__module__) else f"{cls.__module__}.{cls.__qualname__}"
    try:
        return f"{name} in {inspect.getsourcefile(cls)}"
    except (TypeError, OSError):
        return name


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


REGISTRIES: dict[str, Registry] = {kind: Registry(kind) for kind in KINDS}


def _forget_module(module: str) -> None:
    """Its classes are gone; another file's of the same name counts again."""
    for registry in REGISTRIES.values():
        gone = {name for name, cls in registry if cls.__module__ == module}
        for key in [key for key, one in registry._registered.items() if key[0] == one.cls.__module__ == module]:
            del registry._registered[key]
        others = {name: one.cls for (_, name), one in registry._registered.items() if name in gone}
        registry._obj_map = {name: cls for name, cls in registry if name not in gone} | others


def _name_module(module: str) -> None:
    """A recipe names a local file that is imported already: its classes count again."""
    for registry in REGISTRIES.values():
        for (owner, name), one in list(registry._registered.items()):
            if owner == module:
                registry._make_current(owner, name, one)


WHEN_FORGOTTEN.append(_forget_module)
WHEN_NAMED.append(_name_module)

MODELS = REGISTRIES["model"]
BACKBONES = REGISTRIES["backbone"]
NECKS = REGISTRIES["neck"]
HEADS = REGISTRIES["head"]
LOSSES = REGISTRIES["loss"]
PARTS = REGISTRIES["part"]
FORMATS = REGISTRIES["format"]
TRANSFORMS = REGISTRIES["transform"]
SAMPLERS = REGISTRIES["sampler"]
OPTIMIZERS = REGISTRIES["optimizer"]
SCHEDULES = REGISTRIES["schedule"]
HOOKS = REGISTRIES["hook"]
EVALUATORS = REGISTRIES["evaluator"]
