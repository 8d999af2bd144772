"""Generated images of the examples go to a folder that is gone afterward."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for whole_path.py


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VERTEBRA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
