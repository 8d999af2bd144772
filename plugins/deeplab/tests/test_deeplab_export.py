"""ONNX with any height and width, the best class in the graph or the scores out of it, against ONNX Runtime."""

import pytest
import torch

from vertebra.models import Model
from vertebra.models.backbones.resnet import ResNet
from vertebra_deeplab import DeepLabV2Head, DeepLabV3Head, DeepLabV3PlusHead

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

SIZES = [(64, 96), (45, 131), (128, 80)]
HEADS = {
    "v2": lambda shapes: DeepLabV2Head(shapes, 4, hidden_channels=8, rates=[2, 4]),
    "v3": lambda shapes: DeepLabV3Head(shapes, 4, channels=16),
    "v3+": lambda shapes: DeepLabV3PlusHead(shapes, 4, channels=16, separable=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("form", ["raw", "end-to-end"])
def test_a_graph_of_any_size_agrees_at_three_sizes(kind, form, tmp_path):
    from vertebra.export import OnnxModel, export_onnx

    torch.manual_seed(0)
    backbone = ResNet(18, norm="bn", res5_dilation=2, out_features=["res2", "res5"])
    head = HEADS[kind](backbone.output_shape())
    model = Model(backbone, None, {"labels": head}).eval()
    spread_scores(model)
    export_onnx(model, tmp_path / "model.onnx", form=form, size=(64, 64), dynamic=True)
    graph = OnnxModel(tmp_path / "model.onnx")
    for size in SIZES:
        image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
        with torch.no_grad():
            scores = model([{"image": image}])[0]["sem_seg"]
        found = graph(image[None] / 255)
        if form == "raw":
            assert (found["sem_seg_scores"][0] - scores).abs().max() < 1e-4 * scores.abs().max()
        else:
            best = scores.topk(2, dim=0).values
            clear = best[0] - best[1] > 1e-3 * scores.abs().max()  # where rounding cannot change the order
            assert clear.float().mean() > 0.5 and len(scores.argmax(dim=0).unique()) > 1
            assert torch.equal(found["sem_seg"][0][clear], scores.argmax(dim=0)[clear])


@pytest.mark.slow
def test_a_windowed_mean_exports_for_one_size(tmp_path):
    """Whether a map is smaller than the window cannot be left open in a graph."""
    from vertebra.errors import ExportError
    from vertebra.export import OnnxModel, export_onnx

    torch.manual_seed(0)
    backbone = ResNet(18, norm="bn", res5_dilation=2, out_features=["res5"])
    head = DeepLabV3Head(backbone.output_shape(), 4, channels=16, pool_size=(3, 4))
    model = Model(backbone, None, {"labels": head}).eval()
    spread_scores(model)
    export_onnx(model, tmp_path / "model.onnx", form="raw", size=(80, 96))
    image = torch.randint(0, 256, (3, 80, 96), dtype=torch.uint8)
    with torch.no_grad():
        scores = model([{"image": image}])[0]["sem_seg"]
    found = OnnxModel(tmp_path / "model.onnx")(image[None] / 255)["sem_seg_scores"][0]
    assert (found - scores).abs().max() < 1e-4 * scores.abs().max()
    with pytest.raises(ExportError):
        export_onnx(model, tmp_path / "any.onnx", form="raw", size=(80, 96), dynamic=True)


@torch.no_grad()
def spread_scores(model):
    """Weights of the head with which scores differ from place to place, and no class wins everywhere."""
    head = model.heads["labels"]
    for parameter in head.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    scores = next(m for m in head.modules() if isinstance(m, torch.nn.Conv2d) and m.out_channels == 4)
    image = torch.randint(0, 256, (3, 96, 96), dtype=torch.uint8)
    scores.bias -= model.compute(model.make_batch([{"image": image}]).images)["labels"].mean(dim=(0, 2, 3))
