"""torchvision's deeplabv3_resnet50/101: its weights import, and the scores are its own."""

import pytest
import torch
from torchvision.models import segmentation

from vertebra.config import load_recipe
from vertebra.models import build_model, read_weights
from vertebra.models.import_torchvision import import_torchvision, load_torchvision


@pytest.mark.golden
@pytest.mark.parametrize("depth", [50, 101])
def test_scores_are_torchvisions(depth, tmp_path):
    """To 1e-5 of the greatest score, from its state dict through the file that the import writes."""
    torch.manual_seed(0)
    theirs = getattr(segmentation, f"deeplabv3_resnet{depth}")(
        weights=None, weights_backbone=None, num_classes=21, aux_loss=True
    )
    for module in theirs.modules():  # statistics and scales as of a trained network
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.8, 1.2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
            torch.nn.init.normal_(module.bias, std=0.1)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    recipe = load_recipe(f"deeplab:deeplab_v3_r{depth}_voc")
    report = import_torchvision(tmp_path / "theirs.pth", recipe, tmp_path / "ours.pth")
    assert report.num_classes == 21
    assert all(name.startswith("aux_classifier.") for name in report.unused)
    assert all(name.endswith("num_batches_tracked") for name in report.kept)
    ours = build_model(recipe, num_classes=21, pretrained=False)
    ours.load_state_dict(read_weights(str(tmp_path / "ours.pth")))
    image = torch.randint(0, 256, (3, 72, 104), dtype=torch.uint8)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.no_grad():
        wanted = theirs.eval()((image[None] / 255 - mean) / std)["out"][0]
        found = ours.eval()([{"image": image}])[0]["sem_seg"]
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_every_name_of_torchvisions_has_a_place():
    with torch.device("meta"):
        theirs = segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=4)
    weights = {name: torch.zeros_like(value, device="cpu") for name, value in theirs.state_dict().items()}
    report = load_torchvision(build_model(load_recipe("deeplab:deeplab_v3_r50_voc"), 4, pretrained=False), weights)
    assert report.unexpected == [] and report.missing == []
