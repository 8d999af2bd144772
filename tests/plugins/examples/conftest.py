"""Generated images of the examples go to a folder that is gone afterward."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VERTEBRA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
