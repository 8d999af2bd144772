"""What runs in a spawned process of the conformance kit. Imports little, so that it starts fast."""

from __future__ import annotations

import pickle

import torch

__all__ = ["call"]


def call(payload: bytes) -> bytes:
    """Unpickles (module, arguments), calls the module and returns the output's tensors, pickled."""
    torch.set_num_threads(1)
    module, arguments = pickle.loads(payload)
    from vertebra.testing.checks import tensors_in

    with torch.no_grad():
        return pickle.dumps([tensor.detach().clone() for _, tensor in tensors_in(module(*arguments))])
