"""What the conformance classes of single parts do with the recipe that names the part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from vertebra.config import Recipe, load_recipe
from vertebra.testing.checks import once, require
from vertebra.testing.training import check_trains_by_recipe

__all__ = ["ByRecipe"]


class ByRecipe:
    """Attributes of a class whose part is named in a recipe.

    Attributes:
        recipe: a path or `plugin:recipe` that uses it; two steps are trained where it is given. Local files that it
            names in `plugins` are loaded first, and may offer the part.
        overrides: of the recipe, as in `vertebra train`.
        data: what the two steps run on: "generated" images, in 8 bits of red, green and blue, or the data of the
            "recipe", for what those do not have.
    """

    kind: ClassVar[str]
    component: ClassVar[str] = ""
    recipe: ClassVar[str] = ""
    overrides: ClassVar[Sequence[str]] = ()
    data: ClassVar[Literal["generated", "recipe"]] = "generated"

    def load_plugins(self) -> None:
        """The local files of the recipe, once."""
        if self.recipe:
            _loaded(type(self))

    def train(self, *overrides: str, **settings: Any) -> None:
        """Two steps by the recipe, if there is one.

        Args:
            overrides: more of them.
            settings: for `check_trains_by_recipe`.
        """
        if not self.recipe:
            return
        if self.data == "generated":
            asked = _asks_for(_loaded(type(self)), (*getattr(self, "images", ()), *getattr(self, "inputs", ())))
            require(
                not asked,
                f"{self.recipe} reads {asked}, which the generated data does not have. Set data = 'recipe', to train "
                "on the recipe's own data, with `overrides` on less of it",
            )
        settings["generated"] = self.data == "generated"
        check_trains_by_recipe(self.recipe, self.kind, self.component, [*self.overrides, *overrides], **settings)


_recipes: dict[tuple, Recipe] = {}


def _loaded(cls: type[ByRecipe]) -> Recipe:
    """Its recipe."""
    return once(_recipes, (cls,), lambda: load_recipe(cls.recipe, list(cls.overrides)))


def _asks_for(recipe: Recipe, inputs: Sequence[str]) -> str:
    """What a recipe reads that images of red, green and blue do not have, beside the inputs of a part."""
    reader = recipe.data.image.name
    if reader != "RGB":
        return f"images with {reader}"
    images = [name for name, field in recipe.data.fields.items() if field.geometry == "image"]
    return ", ".join(dict.fromkeys((*images, *inputs)))
