import os
import subprocess
import sys

import pytest

from vertebra import plugins
from vertebra.errors import PluginError
from vertebra.plugins import installed_plugins
from vertebra.registry import HEADS

pytestmark = pytest.mark.usefixtures("clean_slate")
GOOD = "class Good:\n    component_kind = 'head'\n"


def named(name: str) -> plugins.PluginInfo:
    return next(plugin for plugin in installed_plugins() if plugin.distribution == name)


def test_listing_tells_what_a_plugin_offers_and_imports_nothing(install):
    install(
        "bomb",
        {"vertebra.heads": {"A": "fake_bomb:A", "B": "fake_bomb:B"}, "vertebra.recipes": {"bomb": "fake_bomb.recipes"}},
        {"fake_bomb.py": "raise SystemExit('imported')"},
    )
    plugin = named("bomb")
    assert plugin.components == {"head": ("A", "B")}
    assert plugin.recipe_packages == {"bomb": "fake_bomb.recipes"}
    assert str(plugin) == "bomb 1.0"
    assert plugin.problem is None
    assert "fake_bomb" not in sys.modules
    assert "vertebra" not in [plugin.distribution for plugin in installed_plugins()]


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("raise RuntimeError('no license file')", "RuntimeError: no license file"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("class Broken(:\n", "SyntaxError: invalid syntax"),
        ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
    ],
)
def test_a_plugin_that_fails_at_import_is_named_with_version_and_cause(install, source, cause):
    install(
        "broken-plugin", {"vertebra.heads": {"Broken": "fake_broken:Broken"}}, {"fake_broken.py": source}, version="2.5"
    )
    with pytest.raises(PluginError) as caught:
        HEADS.get("Broken")
    first = str(caught.value).splitlines()[0]
    assert first.startswith(f"head Broken of plugin broken-plugin 2.5 cannot be imported: {cause}")
    assert "fake_broken.py" in str(caught.value)  # its own traceback stands at the end ...
    assert "vertebra/plugins/discovery.py" not in str(caught.value)  # ... without our frames


def test_a_broken_plugin_harms_no_other(install):
    install("broken-plugin", {"vertebra.heads": {"Broken": "fake_broken:Broken"}}, {"fake_broken.py": "1 / 0"})
    install("good-plugin", {"vertebra.heads": {"Good": "fake_good:Good"}}, {"fake_good.py": GOOD})
    assert HEADS.get("Good").__name__ == "Good"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("fake_good:God", "module fake_good has no 'God'.\n  Nearest: Good"),
        ("fake_good", "its entry point is 'fake_good', expected 'package.module:Class'"),
        ("fake_good:maker", "fake_good:maker is a function, expected a class"),
    ],
)
def test_a_wrong_entry_point_line_is_explained(install, value, words):
    install("good-plugin", {"vertebra.heads": {"Good": value}}, {"fake_good.py": GOOD + "def maker(): ..."})
    with pytest.raises(PluginError) as caught:
        HEADS.get("Good")
    assert words in str(caught.value)


def test_a_plugin_for_another_core_is_refused_before_it_is_imported(install):
    install(
        "tomorrow",
        {"vertebra.heads": {"Tomorrow": "fake_tomorrow:Tomorrow"}},
        {"fake_tomorrow.py": GOOD},
        requires=("torch", "vertebra-extras>=9", "vertebra>=99,<100"),
    )
    with pytest.raises(
        PluginError, match=r"plugin tomorrow 1.0 cannot be used: it needs vertebra<100,>=99, but vertebra"
    ):
        HEADS.get("Tomorrow")
    assert "fake_tomorrow" not in sys.modules


def test_a_requirement_that_fits_or_belongs_to_an_extra_is_no_problem(install):
    install(
        "today",
        {"vertebra.heads": {"Good": "fake_today:Good"}},
        {"fake_today.py": GOOD},
        requires=("vertebra>=0.1", 'vertebra>=99; extra == "future"'),
    )
    assert named("today").problem is None
    assert HEADS.get("Good")


def test_a_disabled_plugin_is_as_good_as_not_there_and_says_so_when_named(install, monkeypatch):
    install("off-plugin", {"vertebra.heads": {"Off": "fake_off:Good"}}, {"fake_off.py": GOOD})
    monkeypatch.setenv(plugins.DISABLE, "Off_Plugin, other")
    assert "Off" not in HEADS.names()
    with pytest.raises(PluginError, match=r"head Off of plugin off-plugin 1.0 cannot be used: it is switched off"):
        HEADS.get("Off")


def test_disabling_one_of_two_settles_an_ambiguity(install, monkeypatch):
    for name in ("one-twin", "other-twin"):
        module = f"fake_{name.replace('-', '_')}"
        install(name, {"vertebra.heads": {"Good": f"{module}:Good"}}, {f"{module}.py": GOOD})
    monkeypatch.setenv(plugins.DISABLE, "one-twin")
    assert HEADS.get("Good").__module__ == "fake_other_twin"


def test_an_allow_list_lets_only_its_plugins_and_the_core_through(install, monkeypatch):
    install("some-plugin", {"vertebra.heads": {"Good": "fake_some:Good"}}, {"fake_some.py": GOOD})
    monkeypatch.setenv(plugins.ALLOW, "another")
    with pytest.raises(PluginError, match=r"VERTEBRA_PLUGINS_ALLOW does not name it \(it allows: another\)"):
        HEADS.get("Good")
    assert plugins.core().problem is None
    monkeypatch.setenv(plugins.ALLOW, "another,some_plugin")
    assert HEADS.get("Good")


def test_disable_by_name_reaches_child_processes_and_refuses_a_typo(install, monkeypatch):
    monkeypatch.setenv(plugins.DISABLE, "")
    install("some-plugin", {"vertebra.heads": {"Good": "fake_some:Good"}})
    with pytest.raises(PluginError, match=r"no such plugin is installed.\n  Nearest: some-plugin"):
        plugins.disable("some-plugn")
    plugins.disable("some-plugin")
    assert os.environ[plugins.DISABLE] == "some-plugin"


def test_damaged_metadata_is_listed_and_harms_only_itself(install):
    site = install("damaged", {"vertebra.heads": {"Bad": "fake_damaged:Bad"}})
    (site / "damaged-1.0.dist-info" / "METADATA").unlink()
    (site / "garbled-1.0.dist-info").mkdir()
    (site / "garbled-1.0.dist-info" / "entry_points.txt").write_bytes(b"[vertebra.heads]\n\xff = \xfe\n")
    install("good-plugin", {"vertebra.heads": {"Good": "fake_good:Good"}}, {"fake_good.py": GOOD})
    assert HEADS.get("Good")
    assert named("damaged").version == "(no version)"


def test_a_mistyped_group_is_noted(install):
    install("typo", {"vertebra.head": {"Good": "fake_good:Good"}})
    assert named("typo").notes == ["entry point group vertebra.head is unknown; meant vertebra.heads?"]


def test_the_error_for_an_unknown_name_tells_which_plugins_were_left_out(install):
    install("tomorrow", {"vertebra.heads": {"Tomorrow": "fake_t:T"}}, requires=("vertebra>=99",))
    with pytest.raises(Exception, match=r"Plugins skipped: tomorrow 1.0 \(it needs vertebra>=99"):
        HEADS.get("Yesterday")


def test_none_of_registry_plugins_config_and_components_imports_torch():
    # a process of its own: this one has imported torch
    code = (
        "import sys, vertebra, vertebra.registry, vertebra.plugins, vertebra.config, vertebra.config.describe\n"
        "vertebra.registry.HEADS.names(); vertebra.plugins.installed_plugins()\n"
        "vertebra.config.describe.list_components()\n"
        "bad = {'torch', 'torchvision', 'vertebra_retinanet'} & set(sys.modules)\n"
        "sys.exit(f'imported {bad}' if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
