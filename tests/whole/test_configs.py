"""Every recipe in `configs/` and in the plugins is valid as it stands."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from vertebra import load_recipe
from vertebra.config import ComponentSpec, list_recipes
from vertebra.plugins import Offer, installed_plugins
from vertebra.registry import REGISTRIES

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
WHOLE = [path for path in CONFIGS if path.parent.name != "bases"]
SHIPPED = [name for name in list_recipes() if not name.startswith("datasets:")]  # those are bases, without a model


def test_there_are_recipes_and_bases():
    assert len(WHOLE) >= 3
    assert len(CONFIGS) > len(WHOLE)


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: path.stem)
def test_recipe_in_configs_is_valid(path):
    recipe = load_recipe(path)
    assert recipe.data.train is not None
    assert recipe.model.heads


@pytest.mark.parametrize("name", SHIPPED)
def test_recipe_of_a_plugin_is_valid(name):
    assert load_recipe(name).model.heads


def specs_in(value):
    """Every component of a recipe, or of a part of one."""
    if isinstance(value, ComponentSpec):
        yield value
        yield from value.nested()
    elif dataclasses.is_dataclass(value):
        for item in dataclasses.fields(value):
            yield from specs_in(getattr(value, item.name))
    elif isinstance(value, (dict, list, tuple)):
        for child in value.values() if isinstance(value, dict) else value:
            yield from specs_in(child)


@pytest.mark.parametrize("name", [*map(str, WHOLE), *SHIPPED], ids=lambda name: name.removeprefix(f"{ROOT}/configs/"))
def test_a_recipe_requires_every_other_distribution_that_it_uses(name):
    recipe = load_recipe(name)
    own = {prefix: plugin.distribution for plugin in installed_plugins() for prefix in plugin.recipe_packages}
    found = (REGISTRIES[spec.kind].find(spec.name) for spec in specs_in(recipe))
    used = {offer.distribution for offer in found if isinstance(offer, Offer)}
    text = Path(recipe.source).read_text(encoding="utf-8")
    used |= {own[prefix] for prefix in own if f"{prefix}:" in text.partition("_base_:")[2].partition("\n")[0]}
    assert used - {"vertebra", own.get(name.partition(":")[0])} <= set(recipe.requires)


@pytest.mark.parametrize(("name", "steps", "drops"), [("1x", 90000, (60000, 80000)), ("3x", 270000, (210000, 250000))])
def test_schedules_are_detectron2s(name, steps, drops):
    train = load_recipe(ROOT / f"configs/detection/coco_retinanet_r50_{name}.yaml").train
    assert (train.steps, train.batch_size, train.optimizer.arguments["lr"]) == (steps, 16, 0.01)
    schedule = train.schedule.build()
    factors = [schedule.factor(step, steps) for step in (0, 1000, drops[0] - 1, drops[0], drops[1] - 1, drops[1])]
    assert factors == pytest.approx([0.001, 1, 1, 0.1, 0.1, 0.01])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_recipe_begins_with_what_it_is(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert isinstance(yaml.safe_load(text), dict)
