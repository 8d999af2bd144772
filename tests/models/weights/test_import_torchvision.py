"""torchvision's weights: a ResNet inside its models, and what does not fit."""

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


RECIPE = """
model:
  backbone: {name: ResNet, depth: 18, norm: bn, out_features: [res5]}
  heads:
    labels: {name: FCNConvHead}
"""


def test_a_file_with_a_part_of_another_network_is_refused(theirs, tmp_path, command_line):
    state = inside(theirs.state_dict(), "backbone.")
    norm = {f"classifier.1.{name}": torch.ones(128) for name in ("weight", "bias", "running_mean", "running_var")}
    state |= {"classifier.0.weight": torch.zeros(128, 512, 3, 3), **norm}
    state |= {"classifier.4.weight": torch.zeros(3, 128, 1, 1), "classifier.4.bias": torch.zeros(3)}
    state |= {"aux_classifier.0.weight": torch.zeros(1), "backbone.layer2.0.se.weight": torch.zeros(1)}
    (tmp_path / "small.yaml").write_text(RECIPE)
    files = ("--recipe", tmp_path / "small.yaml", "--output", tmp_path / "ours.pth")
    torch.save(state, tmp_path / "tv.pth")
    command = ("import-torchvision", "--weights", tmp_path / "tv.pth", *files)
    refused = command_line(*command, code=2)
    assert "1 entries have no place" in refused.stderr and "backbone.layer2.0.se.weight" in refused.stderr
    assert "unused here (4)" in command_line(*command, "--partial").stdout  # those of fc and the auxiliary head too
    del state["backbone.layer2.0.se.weight"]
    torch.save(state, tmp_path / "tv.pth")
    assert "unused here (3)" in command_line(*command, "--force").stdout


def test_an_entry_without_a_place_is_an_error(theirs):
    """Only the auxiliary classifier and the classifier of whole images are known to change nothing."""
    model = Model(ResNet(18, norm="bn"))
    state = theirs.state_dict() | {"aux_classifier.0.weight": torch.zeros(1), "layer1.0.conv3.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"1 entries have no place in the model: layer1\.0\.conv3\.weight"):
        load_torchvision(model, state)
    del state["layer1.0.conv3.weight"]
    assert set(load_torchvision(model, state).unexpected) == {"fc.weight", "fc.bias", "aux_classifier.0.weight"}
