"""Which of several processes says what another one failed of."""

import pytest
import torch.distributed as dist

from vertebra.runtime import distributed
from vertebra.runtime.fellows import NO_STORE, Fellows

TERMINATED = SystemExit(143)


@pytest.fixture
def ranks(monkeypatch):
    """ranks(1): this process is rank 1 of two; both use one store."""
    store = dist.HashStore()

    def become(rank):
        monkeypatch.setattr(distributed, "_fellows", Fellows(store, rank, 2))

    return become


def test_a_process_that_torchrun_ends_says_what_another_failed_of(ranks):
    ranks(1)
    assert distributed.failed(ValueError("the mixture is unstable")) is None
    ranks(0)
    assert distributed.failed(TERMINATED) == "rank 1 failed: ValueError: the mixture is unstable"
    assert distributed.failed(ValueError("mine")) is None  # an error of its own stays as it is


def test_where_all_are_terminated_nobody_failed(ranks):
    for rank in (1, 0):
        ranks(rank)
        assert distributed.failed(TERMINATED) is None


def test_a_terminated_process_does_not_complain_of_the_store(ranks, monkeypatch):
    ranks(1)
    monkeypatch.setattr(distributed._fellows, "failure", lambda: NO_STORE)
    assert distributed.failed(TERMINATED) is None


def test_a_process_that_is_terminated_alone_tells_the_others(ranks):
    ranks(1)
    distributed.failed(TERMINATED)
    ranks(0)
    assert distributed.failed(RuntimeError("Connection closed by peer")) == "rank 1 failed: stopped by SIGTERM"
