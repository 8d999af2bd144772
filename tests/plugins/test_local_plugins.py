import multiprocessing
import os
import pickle

import pytest
from tiny_local import RECIPE

from vertebra import load_recipe
from vertebra.errors import PluginError
from vertebra.plugins.local_files import file_hash, load_local_plugin
from vertebra.registry import HEADS

pytestmark = pytest.mark.usefixtures("clean_slate")
SOURCE = """
from vertebra.registry import HEADS

@HEADS.register()
class LocalHead:
    component_kind = "head"
    def __init__(self, width: int = 4):
        self.width = width
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    monkeypatch.setenv("VERTEBRA_LOCAL_PLUGINS", "")
    path = tmp_path / "my-head.py"
    path.write_text(SOURCE)
    return path


def test_a_local_file_registers_its_classes_once(plugin):
    module = load_local_plugin(plugin)
    assert load_local_plugin(plugin.parent / "." / plugin.name) is module
    assert HEADS.get("LocalHead") is module.LocalHead


def test_its_objects_survive_pickling_to_a_spawned_process(plugin):
    # a real process, which has not imported the file
    load_local_plugin(plugin)
    sent = pickle.dumps(HEADS.get("LocalHead")(7))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_width_and_name, (sent,)) == (7, "LocalHead")


def _width_and_name(sent: bytes) -> tuple[int, str]:
    return pickle.loads(sent).width, HEADS.get("LocalHead").__name__


def test_an_announced_file_is_found_by_name(plugin, monkeypatch):
    monkeypatch.setenv("VERTEBRA_LOCAL_PLUGINS", str(plugin))
    assert HEADS.get("LocalHead")().width == 4


@pytest.fixture
def other(plugin):
    """A second file with a class of the same name."""
    path = plugin.with_name("other.py")
    path.write_text(SOURCE.replace("width: int = 4", "width: int = 8"))
    return path


def test_a_class_of_a_second_file_replaces_the_first_with_a_note(plugin, other, caplog):
    load_local_plugin(plugin)
    assert not caplog.messages
    load_local_plugin(other)
    assert HEADS.get("LocalHead")().width == 8
    (note,) = caplog.messages
    assert note == f"head LocalHead: LocalHead in {other} replaces LocalHead in {plugin} in this process"
    load_local_plugin(plugin)  # named again: it counts again
    assert HEADS.get("LocalHead")().width == 4 and len(caplog.messages) == 2
    other.write_text(other.read_text() + "\n\nraise ValueError\n")
    with pytest.raises(PluginError):
        load_local_plugin(other)
    assert HEADS.get("LocalHead")().width == 4


def test_a_recipe_means_the_classes_of_its_own_file(plugin, other, tmp_path):
    recipes = []
    for file in (plugin, other):
        text = RECIPE.replace("./my_head.py", f"./{file.name}").replace("TinyHead", "LocalHead")
        path = tmp_path / f"{file.stem}.yaml"
        path.write_text(text.replace("[Nothing]", "[]"))
        recipes.append(load_recipe(path))
    assert [recipe.model.heads["boxes"].build(num_classes=1).width for recipe in recipes] == [4, 8]
    sent = pickle.dumps([recipe.model.heads["boxes"] for recipe in recipes])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_widths, (sent,)) == [4, 8]


def test_a_recipe_means_a_class_that_its_file_registers_from_elsewhere(plugin, other, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "fake_parts.py").write_text(SOURCE.replace("@HEADS.register()\n", ""))
    plugin.write_text("from fake_parts import LocalHead\nfrom vertebra import HEADS\nHEADS.register(LocalHead)\n")
    test_a_recipe_means_the_classes_of_its_own_file(plugin, other, tmp_path)


def _widths(sent: bytes) -> list[int]:
    return [spec.build().width for spec in pickle.loads(sent)]


def test_a_missing_file_suggests_its_neighbor(plugin):
    with pytest.raises(PluginError, match=r"no such file.\n  Nearest: my-head.py"):
        load_local_plugin(plugin.with_name("my_head.py"))


def test_only_python_files_are_local_plugins(tmp_path):
    with pytest.raises(PluginError, match="expected a Python file"):
        load_local_plugin(tmp_path / "vertebra-retinanet")


def test_a_file_that_fails_names_itself_and_the_line(plugin):
    plugin.write_text("x = 1\nraise ValueError('too early')\n")
    with pytest.raises(PluginError) as caught:
        load_local_plugin(plugin)
    assert str(caught.value).startswith(f"local plugin {plugin} cannot be imported: ValueError: too early")
    assert f'File "{plugin}", line 2' in str(caught.value)


def test_a_name_of_the_core_in_a_file_is_one_message_with_line_and_remedy(plugin):
    plugin.write_text(
        "from vertebra import BACKBONES, Backbone\n\n@BACKBONES.register()\nclass ResNet(Backbone): ...\n"
    )
    with pytest.raises(PluginError) as caught:
        load_local_plugin(plugin)
    assert str(caught.value) == (
        f"local plugin {plugin}:3 cannot be imported: backbone ResNet cannot be registered: the core has a backbone of "
        "this name.\n  Rename the class, or register it under another name: register(name=...)"
    )


@pytest.mark.parametrize(
    ("registry", "method", "words"),
    [
        (
            "SAMPLERS",
            "Sampler: epochs(self, dicts)",
            r"epochs is called as epochs\(dicts, seed\), but takes \(self, dicts\)",
        ),
        ("EVALUATORS", "Evaluator: process(self, outputs)", r"\.\n  Write: def process\(self, inputs, outputs\)"),
        ("HOOKS", "Hook: after_step(self)", r"after_step is called as after_step\(trainer\), but takes \(self\)"),
        ("FORMATS", "Format: load(self)", r"load is called as load\(root\)"),
        ("TRANSFORMS", "Transform: __call__(self, sample)", r"__call__ is called as __call__\(sample, rng\)"),
        ("SCHEDULES", "Schedule: factor(self, step, total, *, last)", r"Write: def factor\(self, step, total_steps\)"),
        ("HEADS", "Head: losses(self, raw)", r"losses is called as losses\(raw, batch\)"),
    ],
)
def test_a_method_with_other_parameters_than_its_contract_is_refused_with_its_line(plugin, registry, method, words):
    base, _, signature = method.partition(": ")
    plugin.write_text(
        f"from vertebra import {registry}\nfrom vertebra.data import *\nfrom vertebra.engine import *\n"
        "from vertebra.models import *\nfrom vertebra.evaluation import *\n"
        f"@{registry}.register()\nclass Mine({base}):\n    def {signature}: ...\n"
    )
    with pytest.raises(PluginError, match=rf"{plugin.name}:8: \w+ Mine: (?s:.*){words}") as caught:
        load_local_plugin(plugin)
    assert "Traceback" not in str(caught.value)


def test_a_method_may_take_more_than_it_is_given_or_anything(plugin):
    plugin.write_text(
        "from vertebra import HOOKS, Hook\n@HOOKS.register()\nclass Mine(Hook):\n"
        "    def after_step(self, trainer, loud=False): ...\n    def before_step(self, *args): ...\n"
    )
    assert load_local_plugin(plugin).Mine


def test_an_allow_list_without_local_refuses_files(plugin, monkeypatch):
    monkeypatch.setenv("VERTEBRA_PLUGINS_ALLOW", "some-plugin")
    with pytest.raises(PluginError, match="does not name `local`"):
        load_local_plugin(plugin)
    monkeypatch.setenv("VERTEBRA_PLUGINS_ALLOW", "local")
    assert load_local_plugin(plugin)


def test_the_hash_changes_with_the_content(plugin):
    before = file_hash(plugin)
    plugin.write_text(SOURCE + os.linesep)
    assert len(before) == 64 and file_hash(plugin) != before
