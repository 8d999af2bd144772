"""What the tests of several heads need."""

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from vertebra.models import Batch

_WAITING_OPERATORS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique", "unique_dim", "equal")
_WAITING_METHODS = ("tolist", "cpu", "numpy")  # they read memory without an operator on a CPU


class _Operators(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.waits = []
        self.calls = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.calls += 1
        name = function.__name__.split(".")[0]
        masks = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in arguments[1]
        )
        if name in _WAITING_OPERATORS or masks:
            self.waits.append(name)
        return function(*arguments, **(options or {}))


class _Methods(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.waits = []

    def __torch_function__(self, function, types, arguments=(), options=None):
        name = getattr(function, "__name__", "")
        if name in _WAITING_METHODS:
            self.waits.append(name)
        return function(*arguments, **(options or {}))


@pytest.fixture
def waits_in():
    """Returns a function that runs another and gives the names of all calls in it, the backward pass of its losses
    included, for which a GPU's results would have to be waited for."""

    def run(function):
        with _Methods() as methods, _Operators() as operators:
            sum(function().values()).backward()
        return methods.waits + operators.waits

    return run


@pytest.fixture
def operators_in():
    """Returns a function that runs another and gives how many operators it calls: no more for more images or boxes,
    where there is no loop over them."""

    def run(function):
        with _Operators() as operators:
            function()
        return operators.calls

    return run


@pytest.fixture
def top_values_of_any_size(monkeypatch):
    """Returns a function that makes a module's `top_values` do what it does in a graph for any size of images: there it
    always gives as many values as are requested, minus infinity beyond those that exist, at the last place."""

    def filled(values, count):
        best, index = torch.nn.functional.pad(values, (0, count), value=-torch.inf).topk(count, dim=1)
        return best, index.clamp(max=values.shape[1] - 1)

    return lambda module: monkeypatch.setattr(module, "top_values", filled)


@pytest.fixture
def truth_batch():
    """Returns a function from each image's boxes (lists of xyxy) and classes to what a head's `losses` takes."""

    def make(boxes, classes=None, size=(64, 96), originals=None):
        count, most = len(boxes), max([1, *map(len, boxes)])
        gt_boxes, gt_classes = torch.zeros(count, most, 4), torch.zeros(count, most, dtype=torch.int64)
        gt_valid = torch.zeros(count, most, dtype=torch.bool)
        for i, some in enumerate(boxes):
            if len(some):
                gt_boxes[i, : len(some)] = torch.as_tensor(some, dtype=torch.float32)
                gt_valid[i, : len(some)] = True
                if classes is not None:
                    gt_classes[i, : len(some)] = torch.as_tensor(classes[i])
        return Batch(
            images=torch.zeros(count, 3, *size),
            image_sizes=[size] * count,
            original_sizes=originals or [size] * count,
            inputs=[{}] * count,
            gt_boxes=gt_boxes,
            gt_classes=gt_classes,
            gt_valid=gt_valid,
        )

    return make


@pytest.fixture
def random_boxes():
    """Returns a function that gives `count` boxes xyxy in an image (height, width)."""

    def make(count, size=(64, 96), seed=0, smallest=2.0):
        generator = torch.Generator().manual_seed(seed)
        limits = torch.tensor([size[1], size[0]], dtype=torch.float32)
        low = torch.rand(count, 2, generator=generator) * (limits - smallest)
        high = low + smallest + torch.rand(count, 2, generator=generator) * (limits - low - smallest)
        return torch.cat((low, high), dim=1)

    return make
