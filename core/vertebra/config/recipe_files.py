"""Where a recipe lies: a path, or `plugin:recipe` for one that ships as package data of a plugin.

The plugin's package is located on disk, not imported.
"""

from __future__ import annotations

from pathlib import Path

from vertebra.config.yaml_reader import display
from vertebra.errors import PluginError, RecipeError
from vertebra.plugins import PluginInfo, canonical, installed_plugins, switched_off
from vertebra.plugins.locate import RECIPE_SUFFIXES, locate_package, recipes_in
from vertebra_eval.nearest import nearest

__all__ = ["find_recipe", "list_recipes"]


def find_recipe(name: str, folder: Path) -> Path:
    """The file that a path (relative to `folder`; `.yaml` may be omitted) or a `plugin:recipe` means.

    Raises:
        RecipeError: there is no such recipe.
        PluginError: the part before the colon means no plugin, several, or one that cannot be used.
    """
    prefix, colon, rest = name.partition(":")
    if colon and len(prefix) > 1 and "/" not in prefix and "\\" not in prefix:  # C:\... is a path
        return _find_in_plugin(prefix, rest)
    path = folder / Path(name).expanduser()
    found = _with_suffix(path)
    if found is not None:
        return found
    if path.is_dir():
        raise RecipeError(f"{display(path)} is a folder, not a recipe")
    siblings = [file.name for suffix in RECIPE_SUFFIXES for file in path.parent.glob(f"*{suffix}")]
    near = [display(path.parent / file) for file in nearest(path.name, siblings)]
    near += [recipe for recipe in list_recipes() if recipe.partition(":")[2] == Path(name).stem]
    raise RecipeError(f"no such recipe: {display(path)}.\n  Nearest: {', '.join(near) or 'none'}")


def list_recipes() -> list[str]:
    """Every `plugin:recipe` that installed plugins ship, sorted; some are only bases, without a model."""
    found: set[str] = set()
    for plugin in installed_plugins():
        if plugin.problem is None:
            for prefix, package in plugin.recipe_packages.items():
                found.update(f"{prefix}:{name}" for name in recipes_in(package))
    return sorted(found)


def _find_in_plugin(prefix: str, recipe: str) -> Path:
    shipping = [plugin for plugin in installed_plugins() if plugin.recipe_packages]
    matches = [
        plugin for plugin in shipping if prefix in plugin.recipe_packages and not switched_off(plugin.distribution)
    ]
    if len(matches) > 1:
        forms = "".join(f"\n    {plugin.distribution}:{recipe}  ({plugin})" for plugin in matches)
        raise PluginError(f"several plugins ship recipes as {prefix!r}; write which one you mean:{forms}")
    matches = matches or [plugin for plugin in shipping if _is_called(plugin, prefix)]
    if not matches:
        prefixes = {name for plugin in shipping for name in plugin.recipe_packages}
        near = ", ".join(nearest(prefix, prefixes) or sorted(prefixes)[:8]) or "none"
        raise PluginError(f"{prefix}:{recipe}: no installed plugin ships recipes as {prefix!r}.\n  Nearest: {near}")
    plugin = matches[0]
    if plugin.problem:
        raise PluginError(f"{prefix}:{recipe} comes from plugin {plugin}, which cannot be used: {plugin.problem}")
    shipped = plugin.recipe_packages
    packages = [shipped[prefix]] if prefix in shipped else list(shipped.values())
    if ".." in Path(recipe).parts or Path(recipe).is_absolute():
        raise RecipeError(f"{prefix}:{recipe}: expected the name of a recipe, not a path that leaves the plugin")
    for package in packages:
        directory = locate_package(package)
        if directory is not None and recipe and (found := _with_suffix(directory / recipe)) is not None:
            return found
    if all(locate_package(package) is None for package in packages):
        raise PluginError(f"plugin {plugin} keeps its recipes in {', '.join(packages)}, but there is no such folder")
    known = [name for package in packages for name in recipes_in(package)]
    near = ", ".join(f"{prefix}:{name}" for name in nearest(recipe, known) or sorted(known)[:8])
    raise RecipeError(f"plugin {plugin} ships no recipe {recipe!r}.\n  Nearest: {near or 'it ships none'}")


def _is_called(plugin: PluginInfo, prefix: str) -> bool:
    return prefix in plugin.recipe_packages or canonical(plugin.distribution) == canonical(prefix)


def _with_suffix(path: Path) -> Path | None:
    if not path.name:
        return None
    candidates = [path, *(path.with_name(path.name + suffix) for suffix in RECIPE_SUFFIXES)]
    # the reader says what is wrong with a pipe; a folder of that name may lie beside the recipe
    try:
        return next((candidate for candidate in candidates if candidate.exists() and not candidate.is_dir()), None)
    except OSError as err:  # a name that is too long, a folder that may not be entered
        raise RecipeError(f"{display(path)}: {err.strerror}") from err
