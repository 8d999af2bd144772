"""torchvision's fcn_resnet50: its state dict loads by our names, and the outputs are the same."""

import pytest
import torch
from torchvision.models.segmentation import fcn_resnet50

from vertebra.config import load_recipe
from vertebra.errors import CheckpointError
from vertebra.models import build_model, load_weights, read_weights
from vertebra.models.convolution import ConvNorm
from vertebra.models.import_torchvision import import_torchvision, load_torchvision

RECIPE = "fcn:fcn_r50_voc"


@pytest.fixture(scope="module")
def theirs():
    """With an auxiliary classifier, 5 classes, and batch statistics that are no longer those of a new model."""
    torch.manual_seed(0)
    model = fcn_resnet50(weights=None, weights_backbone=None, num_classes=5, aux_loss=True)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.9, 1.1)
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def without_auxiliary(state):
    return {name: value for name, value in state.items() if not name.startswith("aux_classifier")}


@torch.no_grad()
def check_equal(ours, theirs, auxiliary, monkeypatch):
    """To 1e-5 of the largest score; to 1e-5 flat where our batch norm runs as theirs does, not folded into kernels.

    Folded, the rounding is another one. Both are about equally far from the result in float64.
    """
    torch.manual_seed(3)
    images = torch.randn(2, 3, 64, 96)
    wanted = theirs(images)
    ours.eval()
    batch = ours.make_batch([{"image": torch.zeros(3, 64, 96, dtype=torch.uint8)}] * 2)
    largest = wanted["out"].abs().max().item()
    for folds, atol in ((True, 1e-5 * largest), (False, 1e-5)):
        if not folds:
            monkeypatch.setattr(ConvNorm, "_norm_to_fold", lambda *_: None)
        found = ours.predict(ours.compute(images), batch)
        torch.testing.assert_close(stacked(found), wanted["out"], rtol=0, atol=atol)
        if auxiliary:
            head = ours.heads["auxiliary"]
            found = head.predict(head(ours.features(images)), batch)
            torch.testing.assert_close(stacked(found), wanted["aux"], rtol=0, atol=atol)


def stacked(found):
    return torch.stack([one["sem_seg"] for one in found])


def test_the_state_dict_with_auxiliary_classifier_gives_equal_outputs(theirs, monkeypatch):
    ours = build_model(load_recipe(RECIPE), num_classes=5, pretrained=False)
    report = load_torchvision(ours, theirs.state_dict())
    assert report.complete
    check_equal(ours, theirs, auxiliary=True, monkeypatch=monkeypatch)


@pytest.mark.golden
def test_the_state_dict_without_it_imports_as_a_file(theirs, tmp_path, monkeypatch):
    torch.save(without_auxiliary(theirs.state_dict()), tmp_path / "tv.pth")
    recipe = load_recipe(RECIPE, ["model.heads.auxiliary=null"])
    report = import_torchvision(tmp_path / "tv.pth", recipe, tmp_path / "ours.pth")
    assert (report.num_classes, report.kept, report.unused) == (5, (), ())
    ours = build_model(recipe, num_classes=5, pretrained=False)
    load_weights(ours, read_weights(tmp_path / "ours.pth"))
    check_equal(ours, theirs, auxiliary=False, monkeypatch=monkeypatch)


def test_what_the_recipe_has_no_head_for_is_reported(theirs):
    ours = build_model(load_recipe(RECIPE, ["model.heads.auxiliary=null"]), num_classes=5, pretrained=False)
    report = load_torchvision(ours, theirs.state_dict())
    assert report.unexpected
    assert all(name.startswith("aux_classifier.") for name in report.unexpected)


def test_what_does_not_fit_is_an_error(theirs, tmp_path):
    ours = build_model(load_recipe(RECIPE), num_classes=5, pretrained=False)
    with pytest.raises(CheckpointError, match="missing from the weights"):
        load_torchvision(ours, without_auxiliary(theirs.state_dict()))
    with pytest.raises(CheckpointError, match="none of its names is one of torchvision's"):
        load_torchvision(ours, {"fc.weight": torch.zeros(1)})
    torch.save(theirs.state_dict(), tmp_path / "tv.pth")
    with pytest.raises(CheckpointError, match="do not have the shape"):
        import_torchvision(tmp_path / "tv.pth", RECIPE, tmp_path / "ours.pth", num_classes=7)
