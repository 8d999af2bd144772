"""batched_nms equals torchvision's index for index, though torchvision itself is not imported for it."""

import subprocess
import sys

import pytest
import torch
from torchvision import ops

from vertebra.detection import batched_nms


def crowd(count, groups, *, ties, seed=0):
    """Boxes that overlap much; with ties, boxes and scores lie on a coarse grid, so that many are equal."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 300 - 20
    size = 5 + torch.rand(count, 2, generator=generator) * 90
    scores = torch.rand(count, generator=generator)
    if ties:
        corner, size, scores = (corner / 20).round() * 20, (size / 30).ceil() * 30, (scores * 8).round() / 8
    return torch.cat((corner, corner + size), dim=1), scores, torch.randint(0, groups, (count,), generator=generator)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("groups", [1, 3, 80])
@pytest.mark.parametrize("count", [0, 1, 2, 100, 999, 1000, 1001, 3000])
def test_it_equals_torchvision(count, groups, ties):
    for seed, threshold in enumerate((0.0, 0.5, 0.7, 1.0)):
        boxes, scores, idxs = crowd(count, groups, ties=ties, seed=seed)
        ours = batched_nms(boxes, scores, idxs, threshold)
        assert ours.equal(ops.batched_nms(boxes, scores, idxs, threshold))
        assert ours.dtype == torch.int64


def test_a_compiled_graph_takes_it_as_it_took_torchvisions():
    boxes, scores, idxs = crowd(50, 3, ties=True)
    compiled = torch.compile(lambda *given: batched_nms(*given, 0.5) + 1, backend="aot_eager", fullgraph=True)
    assert compiled(boxes, scores, idxs).equal(batched_nms(boxes, scores, idxs, 0.5) + 1)


@pytest.mark.slow
def test_torchvision_works_when_it_is_imported_afterwards():
    code = """
import sys, torch
from vertebra.detection import batched_nms
boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [30, 30, 40, 40]])
keep = batched_nms(boxes, torch.tensor([0.5, 0.9, 0.1]), torch.zeros(3, dtype=torch.int64), 0.3)
assert keep.tolist() == [1, 2], keep
assert "torchvision" not in sys.modules
from torchvision import ops
assert ops.nms(boxes, torch.tensor([0.5, 0.9, 0.1]), 0.3).tolist() == [1, 2]
image = torch.ones(1, 1, 8, 8, requires_grad=True)
ops.roi_align(image, [boxes[:1]], (2, 2)).sum().backward()
assert image.grad.abs().sum() > 0
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_the_library_torchvisions_own_function_answers(monkeypatch):
    from vertebra.detection import nms

    monkeypatch.setattr(nms, "find_spec", lambda name: None)
    nms._operator.cache_clear()
    try:
        assert nms._operator() is ops.nms
    finally:
        nms._operator.cache_clear()
