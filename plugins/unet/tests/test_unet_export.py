"""ONNX with any height and width, argmax in the graph or scores out of it, against ONNX Runtime."""

import numpy as np
import pytest
import torch

from vertebra.models import Model
from vertebra.models.backbones.resnet import ResNet
from vertebra_unet import AttentionGate, Interpolation, UNetDecoder, UNetEncoder, UNetHead, UNetPlusPlusHead

pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

SIZES = [(64, 96), (45, 131), (128, 37)]


def on_resnet():
    backbone = ResNet(18, norm="bn", out_features=["conv1", "res2", "res3"])
    shapes = backbone.output_shape()
    decoder = UNetDecoder(shapes, upsampling=Interpolation("nearest"), gate=AttentionGate())
    return Model(backbone, None, {"classes": UNetHead(shapes, 4, decoder=decoder)})


def plain():
    encoder = UNetEncoder(base_width=4, num_stages=3)
    return Model(encoder, None, {"classes": UNetHead(encoder.output_shape(), 3)})


def plusplus():
    encoder = UNetEncoder(base_width=4, num_stages=3)
    return Model(encoder, None, {"classes": UNetPlusPlusHead(encoder.output_shape(), 3)})


@pytest.mark.slow
@pytest.mark.parametrize("make", [plain, plusplus, on_resnet])
@pytest.mark.parametrize("form", ["raw", "end-to-end"])
def test_a_graph_of_any_size_agrees_at_three_sizes(make, form, tmp_path):
    from vertebra.export import export_onnx

    torch.manual_seed(0)
    model = make().eval()
    path = tmp_path / "model.onnx"
    export_onnx(model, path, form=form, size=(64, 64), dynamic=True)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    for height, width in SIZES:
        image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
        with torch.no_grad():
            scores = model([{"image": image}])[0]["sem_seg"]
        given = {session.get_inputs()[0].name: (image[None].float() / 255).numpy()}
        found = dict(zip((one.name for one in session.get_outputs()), session.run(None, given), strict=True))
        if form == "raw":
            np.testing.assert_allclose(found["sem_seg_scores"][0], scores.numpy(), atol=2e-3, rtol=1e-3)
        else:
            best = scores.topk(2, dim=0).values
            clear = ((best[0] - best[1]) > 1e-2).numpy()  # where rounding cannot change the order
            assert clear.mean() > 0.5
            np.testing.assert_array_equal(found["sem_seg"][0][clear], scores.argmax(dim=0).numpy()[clear])


@pytest.mark.slow
@pytest.mark.parametrize("border", ["mirror", "keep"])
def test_valid_convolutions_export_for_one_size(border, tmp_path):
    from vertebra.export import export_onnx

    torch.manual_seed(0)
    encoder = UNetEncoder(base_width=4, num_stages=3, norm="none", padding="valid", border=border)
    shapes = encoder.output_shape()
    head = UNetHead(shapes, 3, decoder=UNetDecoder(shapes, norm="none", padding="valid"))
    model = Model(encoder, None, {"classes": head}).eval()
    path = tmp_path / "model.onnx"
    export_onnx(model, path, form="raw", size=(64, 72))
    image = torch.randint(0, 256, (3, 64, 72), dtype=torch.uint8)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": (image[None].float() / 255).numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found[0], model([{"image": image}])[0]["sem_seg"].numpy(), atol=1e-4, rtol=1e-3)
