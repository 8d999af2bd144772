"""The recipe that a new part without a head of its own builds on: one on generated pictures, out of what is installed.

Recipes are read as text and heads as source; nothing of a plugin is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vertebra.config.bases import read_with_bases
from vertebra.config.describe import describe
from vertebra.config.recipe_files import find_recipe, list_recipes
from vertebra.errors import PluginError, VertebraError
from vertebra.plugins import PluginInfo, installed_plugins

__all__ = ["BaseRecipe", "find_base"]

_ENDING = "shapes_quick"  # recipes of this name train on generated pictures in minutes
_TAKES = {"loss": "cls_loss", "part": "matcher"}  # argument of a detection head that the new component takes


@dataclass(frozen=True)
class BaseRecipe:
    """A recipe that trains without data, and the head in it.

    Args:
        recipe: `plugin:recipe`.
        head: the head's key under `model.heads`; it takes the new component where that is for a head.
        plugin: who ships it.
    """

    recipe: str
    head: str
    plugin: PluginInfo


def find_base(kind: str, wanted: str | None = None) -> BaseRecipe:
    """`wanted`, or the first installed recipe on generated pictures whose model has a detection head.

    Raises:
        PluginError: there is none, or the one that was named does not serve.
    """
    candidates = [wanted] if wanted else [name for name in list_recipes() if name.endswith(_ENDING)]
    reasons, argument = [], _TAKES.get(kind, _TAKES["loss"])
    for name in candidates:
        try:
            head, plugin = _head_of(name, argument), _shipped_by(name)
        except VertebraError as err:
            reasons.append(f"{name}: {str(err).splitlines()[0]}")
            continue
        if head is not None and plugin is not None:
            return BaseRecipe(name, head, plugin)
        reasons.append(
            f"{name}: " + ("no plugin ships it" if head else f"none of its heads has an argument {argument}")
        )
    tried = "\n  Tried: " + "; ".join(reasons) if reasons else ""
    raise PluginError(
        f"a {kind} trains only together with a head, and no installed plugin ships a recipe for that "
        f"(*{_ENDING}, with a detection head).{tried}\n"
        "  Install a plugin with a detection head, or name a recipe: --base plugin:recipe"
    )


def _head_of(recipe: str, taken: str) -> str | None:
    """The key of the first head with this argument."""
    content = read_with_bases(find_recipe(recipe, Path.cwd())).plain()
    heads = (content.get("model") or {}).get("heads") or {}
    for key, block in heads.items():
        name = block if isinstance(block, str) else (block or {}).get("name")
        if name and any(argument.name == taken for argument in describe("head", name).arguments):
            return key
    return None


def _shipped_by(recipe: str) -> PluginInfo | None:
    prefix = recipe.partition(":")[0]
    return next((plugin for plugin in installed_plugins() if prefix in plugin.recipe_packages), None)
