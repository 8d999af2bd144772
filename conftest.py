"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest

from vertebra.local_plugins import ANNOUNCED

REPOSITORY = Path(__file__).resolve().parent


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
    """Local files that a module's tests loaded are not announced to processes that later tests start."""
    announced = os.environ.get(ANNOUNCED)
    yield
    os.environ.pop(ANNOUNCED, None)
    if announced is not None:
        os.environ[ANNOUNCED] = announced
