import copy
import pickle

import pytest

from vertebra.config import ComponentSpec, DataSection, EvaluateSection, ModelSection, Recipe, TrainSection, load_recipe
from vertebra.errors import RecipeError


def test_a_small_recipe_becomes_typed_sections(write):
    write("r.yaml", "_base_: base.yaml\nmodel: {pixel_std: [1, 2, 3]}\ntrain: {clip_gradients: 5}")
    recipe = load_recipe("r.yaml")
    assert isinstance(recipe, Recipe) and isinstance(recipe.model, ModelSection)
    assert recipe.model.backbone == ComponentSpec("backbone", "DummyBackbone", {"depth": 50})
    assert recipe.model.neck == ComponentSpec("neck", "DummyNeck")
    assert recipe.model.heads["boxes"].arguments["cls_loss"] == ComponentSpec("loss", "DummyLoss", {"weight": 2.0})
    assert recipe.model.pixel_std == (1.0, 2.0, 3.0) and type(recipe.model.pixel_std[0]) is float
    assert recipe.train.clip_gradients == 5.0 and recipe.train.steps == 10
    assert recipe.data.train.kind == "format" and recipe.data.train.arguments["images"] == "img"
    assert recipe.data.train_transforms == [ComponentSpec("transform", "DummyFlip")]
    assert recipe.name == "r" and recipe.source.endswith("r.yaml") and recipe.output == "runs/r"
    assert recipe.model.backbone.where == "base.yaml:3"


def test_defaults_are_those_of_detectron2():
    assert TrainSection(optimizer=None, schedule=None).steps == 90_000
    transforms = [spec.to_dict() for spec in DataSection().train_transforms]
    sizes = [640, 672, 704, 736, 768, 800]
    resize = {"name": "ResizeShortestEdge", "short_edge": sizes, "max_size": 1333}
    assert transforms == [resize, {"name": "RandomFlip"}]
    assert EvaluateSection().evaluators[0].name == "COCOEvaluator"


def test_a_saved_recipe_loads_to_an_equal_one(write, tmp_path):
    write(
        "lib/full.yaml",
        """
        _base_: ../base.yaml
        seed: 3
        model:
          backbone: {name: OpenBackbone, model: "1e-3", extra: {deep: [1, no, 2.5]}}
          heads:
            boxes:
              box_loss: {name: SumLoss, parts: [DummyLoss, {name: DummyLoss, weight: 0.5}], named: {a: DummyLoss}}
            more: {name: DummyHead, cls_loss: DummyLoss, num_classes: 7}
        data: {val: some_registered_name, test: [a, {format: DummyFormat, annotations: x, images: y, name: z}]}
        train: {epochs: 2.5, evaluate_every: 2 epochs}
        """,
    )
    recipe = load_recipe("lib/full.yaml")
    (tmp_path / "run").mkdir()
    recipe.save(tmp_path / "run" / "recipe.yaml")
    again = load_recipe(tmp_path / "run" / "recipe.yaml")
    assert again == recipe
    assert again.output == "runs/full"  # the run's folder stays the same
    assert again.to_yaml() == recipe.to_yaml()
    assert "_base_" not in recipe.to_yaml()


def test_a_base_may_take_paths_tuples_and_enums_through_a_save(write, tmp_path):
    path = write("r.yaml", "_base_: base.yaml")
    recipe = load_recipe(
        path,
        {"model.backbone": {"checkpoint": tmp_path, "out_features": ("a", "b"), "color": "red", "scale": [1, 2]}},
    )
    assert recipe.model.backbone.arguments["out_features"] == ("a", "b")
    assert recipe.model.backbone.arguments["checkpoint"] == tmp_path
    recipe.save("saved.yaml")
    assert load_recipe("saved.yaml") == recipe


def test_recipes_and_specs_survive_pickle_and_copy(write):
    recipe = load_recipe(write("r.yaml", "_base_: base.yaml"))
    assert pickle.loads(pickle.dumps(recipe)) == recipe == copy.deepcopy(recipe)


def test_a_head_of_a_base_is_removed_by_null(write):
    write("r.yaml", "_base_: base.yaml\nmodel: {heads: {boxes: null, other: {name: DummyHead, cls_loss: DummyLoss}}}")
    assert list(load_recipe("r.yaml").model.heads) == ["other"]


def test_the_suffix_may_be_omitted_and_a_missing_file_suggests_its_neighbor(write, tmp_path):
    write("retina.yaml", "_base_: base.yaml")
    assert load_recipe(tmp_path / "retina").name == "retina"
    with pytest.raises(RecipeError, match=r"no such recipe: retinna.yaml.\n  Nearest: retina.yaml"):
        load_recipe("retinna.yaml")
    with pytest.raises(RecipeError, match="is a folder, not a recipe"):
        load_recipe(".")


def test_sections_made_in_python_are_checked_too():
    with pytest.raises(RecipeError, match="EvaluateSection: batch_size is 0, expected at least 1"):
        EvaluateSection(batch_size=0)
    with pytest.raises(RecipeError, match="epochs is 2, but steps is 3 too"):
        TrainSection(steps=3, epochs=2)


def test_a_recipe_from_a_plugin_is_found_without_importing_it(write, tmp_path, monkeypatch):
    site = tmp_path / "site"
    for folder in ("fake_shipper/recipes/sub", "fake_shipper-1.0.dist-info"):
        (site / folder).mkdir(parents=True)
    (site / "fake_shipper" / "__init__.py").write_text("raise RuntimeError('imported')")
    (site / "fake_shipper" / "recipes" / "small.yaml").write_text((tmp_path / "base.yaml").read_text())
    (site / "fake_shipper" / "recipes" / "sub" / "deep.yaml").write_text("_base_: ../small.yaml\nseed: 5")
    (site / "fake_shipper-1.0.dist-info" / "METADATA").write_text("Name: fake-shipper\nVersion: 1.0\n")
    (site / "fake_shipper-1.0.dist-info" / "entry_points.txt").write_text(
        "[vertebra.recipes]\nship = fake_shipper.recipes\n"
    )
    monkeypatch.syspath_prepend(str(site))
    assert load_recipe("ship:small").name == "small"
    assert load_recipe("fake-shipper:sub/deep", ["train.steps=2"]).seed == 5
    write("mine.yaml", "_base_: ship:sub/deep\nseed: 6")
    assert load_recipe("mine.yaml").seed == 6
    with pytest.raises(RecipeError, match=r"plugin fake-shipper 1.0 ships no recipe 'smal'.\n  Nearest: ship:small"):
        load_recipe("ship:smal")
    with pytest.raises(RecipeError, match="not a path that leaves the plugin"):
        load_recipe("ship:../../secret")


def test_a_local_plugin_is_loaded_relative_to_the_recipe_that_names_it(write, monkeypatch):
    monkeypatch.setenv("VERTEBRA_LOCAL_PLUGINS", "")
    write(
        "lib/my_loss.py",
        """
        from vertebra.registry import LOSSES

        @LOSSES.register()
        class MyLocalLoss:
            component_kind = "loss"
            def __init__(self, beta: float = 1.0) -> None:
                self.beta = beta
        """,
    )
    write("lib/local.yaml", "_base_: ../base.yaml\nplugins: [./my_loss.py]")
    write("top.yaml", "_base_: lib/local.yaml\nmodel: {neck: null, heads: {boxes: {cls_loss: null}}}")
    with pytest.raises(RecipeError, match="cls_loss"):
        load_recipe("top.yaml")
    recipe = load_recipe("lib/local.yaml")
    recipe.save("saved.yaml")
    assert load_recipe("saved.yaml") == recipe and recipe.plugins[0].endswith("lib/my_loss.py")


def test_the_real_core_components_pass_the_check_of_the_defaults(write):
    """The defaults of the sections name real components with arguments that these accept."""
    pytest.importorskip("torch")
    write("r.yaml", "model: {backbone: DummyBackbone, heads: {boxes: {name: DummyHead, cls_loss: DummyLoss}}}")
    recipe = load_recipe("r.yaml")
    assert recipe.train.steps == 90_000 and recipe.train.optimizer.build() is not None
    assert [spec.build() for spec in (*recipe.data.train_transforms, *recipe.data.eval_transforms)]
