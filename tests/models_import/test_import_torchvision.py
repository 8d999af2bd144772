"""load_torchvision: a ResNet inside torchvision's models, and what does not fit."""

import pytest
import torch
from torchvision.models import resnet18

from vertebra.errors import CheckpointError
from vertebra.models import Model
from vertebra.models.backbones.resnet import ResNet
from vertebra.models.import_torchvision import load_torchvision


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    return resnet18(weights=None).eval()


def inside(state, place):
    return {f"{place}{name}": value for name, value in state.items()}


@pytest.mark.parametrize("place", ["", "backbone.", "backbone.body."])
def test_a_resnet_loads_from_wherever_it_stands_and_gives_equal_features(theirs, place):
    model = Model(ResNet(18, norm="bn", out_features=["res5"])).eval()
    report = load_torchvision(model, inside(theirs.state_dict(), place))
    assert all(".fc." in f".{name}" for name in report.unexpected)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(images))))
        wanted = theirs.layer4(theirs.layer3(theirs.layer2(theirs.layer1(x))))
        found = model.features(images)["res5"]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())


def test_missing_weights_and_foreign_names_are_errors(theirs):
    model = Model(ResNet(18, norm="bn"))
    state = inside(theirs.state_dict(), "backbone.")
    state.pop("backbone.layer3.0.conv1.weight")
    with pytest.raises(CheckpointError, match=r"backbone\.res4\.0\.conv1\.weight"):
        load_torchvision(model, state)
    with pytest.raises(CheckpointError, match="none of its names is one of torchvision's"):
        load_torchvision(model, {"encoder.weight": torch.zeros(1)})
