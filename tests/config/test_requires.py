"""`requires`: which distributions a recipe uses; one that is not here is an error before anything is looked up."""

import pytest

from vertebra import plugins
from vertebra.config import load_recipe
from vertebra.errors import PluginError, RecipeError


@pytest.fixture
def pets(tmp_path, monkeypatch):
    """The installed plugin `pets 1.2`, which ships the recipe `pets:base`."""
    site = tmp_path / "site"
    for folder in ("pets/recipes", "pets-1.2.dist-info"):
        (site / folder).mkdir(parents=True)
    (site / "pets" / "recipes" / "base.yaml").write_text("seed: 3")
    (site / "pets-1.2.dist-info" / "METADATA").write_text("Name: pets\nVersion: 1.2\n")
    (site / "pets-1.2.dist-info" / "entry_points.txt").write_text("[vertebra.recipes]\npets = pets.recipes\n")
    monkeypatch.syspath_prepend(site)
    plugins.rescan()
    yield
    plugins.rescan()


def test_what_is_installed_passes_and_is_kept_with_the_recipe(write, pets, tmp_path):
    write("r.yaml", "_base_: [base.yaml, pets:base]\nrequires: [pets>=1.0, Pets, numpy, 'vertebra<9']")
    recipe = load_recipe("r.yaml")
    assert (recipe.seed, recipe.requires) == (3, ["pets>=1.0", "Pets", "numpy", "vertebra<9"])
    recipe.save(tmp_path / "saved.yaml")
    assert load_recipe("saved.yaml") == recipe


def test_bases_and_what_builds_on_them_require_together(write, pets):
    write("one.yaml", "_base_: base.yaml\nrequires: [pets]")
    write("two.yaml", "requires: [numpy, pets]")
    write("r.yaml", "_base_: [one.yaml, two.yaml]\nrequires: [numpy, pillow]")
    assert load_recipe("r.yaml").requires == ["pets", "numpy", "pillow"]


@pytest.mark.parametrize("use", ["_base_: [base.yaml, gone:x]", "_base_: base.yaml\ndata: {train: {format: gone}}"])
def test_what_is_not_installed_is_named_in_place_of_what_it_offers(write, use):
    write("r.yaml", f"requires: [numpy, gone-sets]\n{use}")
    with pytest.raises(PluginError) as caught:
        load_recipe("r.yaml")
    assert str(caught.value) == ("r.yaml:1: requires: gone-sets is not installed.\n  Install it: pip install gone-sets")


def test_a_base_names_what_it_misses_with_its_own_line(write):
    write("below.yaml", "_base_: base.yaml\nrequires:\n  - gone-sets>=2\n  - lost")
    write("r.yaml", "_base_: below.yaml")
    with pytest.raises(PluginError) as caught:
        load_recipe("r.yaml")
    assert str(caught.value).splitlines() == [
        "below.yaml:3: requires: gone-sets is not installed.",
        "  Install it: pip install 'gone-sets>=2'",
        "below.yaml:4: requires: lost is not installed.",
        "  Install it: pip install lost",
    ]


def test_another_version_or_a_plugin_that_is_switched_off_does_not_do(write, pets, monkeypatch):
    write("r.yaml", "_base_: pets:base\nrequires: [pets>=2]")
    words = r"r.yaml:2: requires: pets 1.2 is installed, expected >=2.\n  Install it: pip install 'pets>=2'"
    with pytest.raises(PluginError, match=words):
        load_recipe("r.yaml")
    monkeypatch.setenv(plugins.DISABLE, "pets")
    write("r.yaml", "_base_: pets:base\nrequires: [pets]")
    with pytest.raises(PluginError, match=r"r.yaml:2: requires: pets 1.2 cannot be used: it is switched off"):
        load_recipe("r.yaml")


def test_a_plugin_whose_recipe_requires_another_is_not_broken_without_that_one(pets, tmp_path, command_line):
    (tmp_path / "site/pets/recipes/far.yaml").write_text("requires: [gone-sets]\n_base_: gone:x")
    said = command_line("plugins", "check", "pets", site=tmp_path / "site").output
    assert "pets 1.2: ok" in said
    assert "recipes pets:base\n  recipes pets:far (not read: gone-sets is not installed)\n" in said


def test_with_everything_installed_a_wrong_name_is_told_as_ever(write, pets):
    write("r.yaml", "_base_: base.yaml\nrequires: [pets]\nmodel: {neck: DummyNekc}")
    with pytest.raises(RecipeError, match=r"r.yaml:3: model.neck: no neck has the name 'DummyNekc'.\n  Nearest: "):
        load_recipe("r.yaml")


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("pets", '"pets", expected a list: requires: \\[my-plugin\\]'),
        ("", "null, expected a list"),
        ("[pets and dogs]", '"pets and dogs" is not the name of a distribution, perhaps with version bounds'),
        ("[3]", "3 is not the name of a distribution"),
        ("['pets[all]']", "is not the name of a distribution"),
        ("['pets @ https://x.y/z.whl']", "is not the name of a distribution"),
    ],
)
def test_only_names_with_version_bounds_can_be_required(write, written, words):
    write("r.yaml", f"_base_: base.yaml\nrequires: {written}")
    with pytest.raises(RecipeError, match=f"r.yaml:2: requires.*{words}"):
        load_recipe("r.yaml")
