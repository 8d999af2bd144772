"""Recipes: reading YAML with places, `_base_`, overrides, checking against constructors, saving.

    recipe = load_recipe("configs/detection/bccd_retinanet_r18.yaml", ["train.batch_size=4"])
    backbone = recipe.model.backbone.build()

How layers merge stands at the top of `bases.py`.
"""

from vertebra.config.component import ComponentSpec
from vertebra.config.load import load_recipe
from vertebra.config.recipe_files import find_recipe, list_recipes
from vertebra.config.sections import DataSection, DatasetSpec, EvaluateSection, ModelSection, Recipe, TrainSection
from vertebra.config.yaml_reader import Node, read_yaml
from vertebra.config.yaml_writer import dump_yaml

__all__ = [
    "ComponentSpec",
    "DataSection",
    "DatasetSpec",
    "EvaluateSection",
    "ModelSection",
    "Node",
    "Recipe",
    "TrainSection",
    "dump_yaml",
    "find_recipe",
    "list_recipes",
    "load_recipe",
    "read_yaml",
]
