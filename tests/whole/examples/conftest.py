"""What the examples register, and the images that they generate, is gone after each file of tests."""

import sys
from pathlib import Path

import pytest

from clean_slate import kept_as_it_was

sys.path.insert(0, str(Path(__file__).parent))  # for whole_path.py


@pytest.fixture(scope="module")
def clean_slate_per_file():
    yield from kept_as_it_was()


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VERTEBRA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
