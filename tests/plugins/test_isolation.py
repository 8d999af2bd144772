"""A plugin's import harms nothing but the run that names it."""

import sys
import threading
import time

import pytest
from dummy_plugins import install

from vertebra import HEADS, PluginError, plugins
from vertebra.errors import SetupError
from vertebra.plugins import isolation
from vertebra.plugins.isolation import PluginImportError, import_plugin_module, plugin_code


@pytest.fixture
def offer(clean_slate, tmp_path, monkeypatch):
    """offer(source): a distribution odd-plugin 1.0 whose head Odd comes from that source."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(source: str, requires: str = "vertebra") -> None:
        install(tmp_path, "odd-plugin", source, "Odd", "Odd", requires)
        plugins.rescan()

    yield make
    sys.modules.pop("dummy_odd_plugin", None)


def test_the_error_ends_with_the_plugins_own_traceback(offer):
    offer("def fail():\n    raise ValueError('too early')\n\nfail()\n")
    with pytest.raises(PluginImportError) as caught:
        HEADS.get("Odd")
    lines = str(caught.value).splitlines()
    assert lines[0] == "head Odd of plugin odd-plugin 1.0 cannot be imported: ValueError: too early"
    assert [line.split(", ")[1] for line in lines if "File " in line] == ["line 4", "line 2"]
    assert lines[-1] == "  ValueError: too early"


def test_ctrl_c_passes_through(offer):
    offer("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        HEADS.get("Odd")


def test_a_torch_that_does_not_work_is_not_the_plugins_fault():
    with pytest.raises(SetupError, match="reinstall"), plugin_code("head X"):
        raise SetupError("reinstall torch")


def test_what_it_prints_goes_to_stderr(offer, capsys):
    offer("print('hello')\nclass Odd: component_kind = 'head'\n")
    HEADS.get("Odd")
    assert capsys.readouterr() == ("", "hello\n")


def test_a_slow_import_is_named_while_it_runs(capsys):
    with plugin_code("plugin slow 1.0", patience=0.01):
        deadline = time.monotonic() + 10
        while "slow" not in (said := capsys.readouterr().err) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert said == "vertebra: still importing plugin slow 1.0 after 0.01 s; Ctrl-C stops it\n"


def test_a_quick_import_leaves_no_thread_behind():
    before = threading.active_count()
    import_plugin_module("colorsys", "plugin quick 1.0", isolation.PATIENCE)
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_a_module_that_fails_when_it_is_asked_for_the_class_is_told_like_any(offer):
    offer("def __getattr__(name):\n    raise OSError('no such library') if name == 'Odd' else AttributeError(name)\n")
    with pytest.raises(
        PluginImportError, match=r"head Odd of plugin odd-plugin 1.0 cannot be imported: OSError: no such"
    ):
        HEADS.get("Odd")


def test_a_requirement_that_cannot_be_read_is_the_plugins_own_problem(offer):
    offer("class Odd: pass\n", requires="vertebra>>1")
    [odd] = [plugin for plugin in plugins.installed_plugins() if plugin.distribution == "odd-plugin"]
    assert odd.problem.startswith("its requirement 'vertebra>>1' cannot be read")
    with pytest.raises(PluginError, match="cannot be used: its requirement"):
        HEADS.get("Odd")


def test_a_name_in_a_switch_that_means_nothing_is_told(offer, monkeypatch):
    offer("class Odd: pass\n")
    monkeypatch.setenv(plugins.DISABLE, "odd_plugin,od-plugin")
    monkeypatch.setenv(plugins.ALLOW, "local")
    assert plugins.unknown_in_switches() == [
        "VERTEBRA_PLUGINS_DISABLE names 'od-plugin', which is not installed; nearest: odd-plugin"
    ]


def test_its_error_survives_the_way_out_of_a_process():
    import pickle

    error = pickle.loads(pickle.dumps(PluginImportError("what failed", "  Traceback")))
    assert (str(error), error.summary, error.trace) == ("what failed\n  Traceback", "what failed", "  Traceback")
