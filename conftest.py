"""Fixtures that every test may use; runs the tests in parallel, each worker with caches and one thread of its own."""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

from vertebra.plugins.local_files import ANNOUNCED, _forget
from vertebra.plugins.local_files import __name__ as LOCAL

REPOSITORY = Path(__file__).resolve().parent
IN_WORKER = "PYTEST_XDIST_WORKER" in os.environ


sys.path += [str(REPOSITORY), str(REPOSITORY / "tests")]  # the former also for processes that tests spawn
pytest_plugins = ["command_line", "label_files"]
settings.register_profile("same each time", derandomize=True, database=None)
settings.register_profile("explore", derandomize=False, database=None)
settings.load_profile("same each time")


def _use_own_environment() -> None:
    """The caller's settings do not count, nothing below the home folder is touched, and workers share no file."""
    folder = tempfile.mkdtemp(prefix="vertebra-tests-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in [name for name in os.environ if name.startswith("VERTEBRA_") and name != "VERTEBRA_SHARED"]:
        del os.environ[name]
    for name in ("VERTEBRA_CACHE", "MPLCONFIGDIR", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        os.environ[name] = str(Path(folder, name.lower()))
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # it writes below the home folder


_use_own_environment()  # before anything imports matplotlib or numba
if IN_WORKER:
    os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is first imported, in processes that tests start too


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """One worker per core and a file to a worker, unless `-n` says otherwise or only single files are named."""
    options = config.option
    if not config.pluginmanager.hasplugin("xdist") or options.numprocesses is not None:
        return
    if IN_WORKER or options.usepdb or options.collectonly or options.dist != "no":
        return  # a worker runs this hook too
    if any((config.invocation_params.dir / argument).is_dir() for argument in config.args):
        options.numprocesses, options.dist = "auto", "loadfile"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Hardware threads, not physical cores: two threads of one core still finish the tests sooner than one."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared():
    """Path of a file or folder of the optional reference data; skips the test where it is not there.

    `VERTEBRA_SHARED` says where it lies (default: a folder `shared` beside the source tree).
    """
    root = Path(os.environ.get("VERTEBRA_SHARED", REPOSITORY.parent / "shared"))

    def find(relative: str) -> Path:
        path = root / relative
        if not path.exists():
            pytest.skip(f"reference data {relative} is not here (VERTEBRA_SHARED says where it lies)")
        return path

    return find


@pytest.fixture(scope="module", autouse=True)
def no_local_plugin_stays_announced():
    """Of local files that a module's tests loaded nothing stays: no component, no word to processes of later tests."""
    announced, imported = os.environ.get(ANNOUNCED), set(sys.modules)
    yield
    for name in [name for name in sys.modules if name.startswith(f"{LOCAL}.") and name not in imported]:
        _forget(name)
    os.environ.pop(ANNOUNCED, None)
    if announced is not None:
        os.environ[ANNOUNCED] = announced
