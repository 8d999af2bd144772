"""What runs in a spawned process of the conformance kit. Imports little, so that it starts fast."""

from __future__ import annotations

import pickle

import torch

__all__ = ["call"]


def call(payload: bytes) -> bytes:
    """Unpickles (function, arguments, arguments by name), calls it and returns what it gives, pickled: of a module the
    output's tensors."""
    torch.set_num_threads(1)
    function, arguments, further = pickle.loads(payload)
    from vertebra.testing.checks import tensors_in

    with torch.no_grad():
        result = function(*arguments, **further)
        if isinstance(function, torch.nn.Module):
            result = [tensor.detach().clone() for _, tensor in tensors_in(result)]
        return pickle.dumps(result)
