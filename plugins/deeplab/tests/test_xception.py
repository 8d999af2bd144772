"""Xception: what every backbone promises, its published size, and the same numbers as timm's."""

import pytest
import torch

from vertebra.testing import BackboneConformance
from vertebra_deeplab import Xception

FEATURES = ("entry1", "low", "entry2", "middle", "exit")


@pytest.mark.slow
class TestXception(BackboneConformance):
    component = "Xception"
    arguments = {"depth": 41, "out_features": FEATURES}


@pytest.mark.parametrize(("depth", "parameters"), [(41, 24_920_560), (65, 37_867_312), (71, 40_289_736)])
def test_parameters(depth, parameters):
    with torch.device("meta"):
        assert sum(p.numel() for p in Xception(depth).parameters()) == parameters


@pytest.mark.golden
@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("depth", [41, 65, 71])
def test_computes_what_timms_does(depth, output_stride):
    """timm's has the same entries in the same order, and a larger epsilon in its norms."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    theirs = timm.create_model(f"xception{depth}", num_classes=0, global_pool="", output_stride=output_stride).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 1e-5
            module.running_mean.normal_(std=0.1)
    ours = Xception(depth, output_stride, out_features=FEATURES).eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    images = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        wanted, found = theirs.forward_features(images), ours(images)
    torch.testing.assert_close(found["exit"], wanted, rtol=1e-4, atol=1e-5 * wanted.abs().max().item())
    assert [spec.stride for spec in ours.output_shape().values()] == [4, 4, 8, min(16, output_stride), output_stride]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"depth": 50}, "depth 50 must be one of 41, 65, 71"),
        ({"output_stride": 4}, "output_stride 4 8, 16 or 32"),
        ({"out_features": ["res5"]}, r"out_features \['res5'\] must be some of entry1, low"),
    ],
)
def test_wrong_arguments_are_explained(arguments, says):
    with pytest.raises(ValueError, match=says):
        Xception(**arguments)
