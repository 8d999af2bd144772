"""The heads in ONNX: any height and width, scores or the best class of each pixel, equal in ONNX Runtime."""

import pytest
import torch

from vertebra.config import load_recipe
from vertebra.models import build_model

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

SUM = "model.heads.labels={name: FCNSumHead, conv_channels: 16}"


@pytest.mark.slow
@pytest.mark.parametrize("form", ["raw", "end-to-end"])
@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("fcn:fcn_shapes_quick", ["model.heads.labels.fc_channels=16"]),
        ("fcn:fcn_conv_shapes_quick", []),
        ("fcn:fcn_light_shapes_quick", []),
        ("fcn:fcn_light_shapes_quick", [SUM]),
    ],
    ids=["FCNHead", "FCNConvHead", "FCNLightHead", "FCNSumHead"],
)
def test_a_graph_of_any_size_agrees_at_three_sizes(recipe, overrides, form, tmp_path):
    from vertebra.export import OnnxModel, export_onnx

    torch.manual_seed(0)
    model = build_model(load_recipe(recipe, overrides), num_classes=4, pretrained=False).eval()
    for parameter in model.heads.parameters():  # scores start at 0: give them something to say
        torch.nn.init.normal_(parameter, std=0.05)
    export_onnx(model, tmp_path / "m.onnx", form=form, size=(64, 96), dynamic=True)
    graph = OnnxModel(tmp_path / "m.onnx")
    for size in ((64, 96), (37, 64), (101, 35)):
        image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
        with torch.no_grad():
            scores = model([{"image": image}])[0]["sem_seg"]
        found = graph(image[None].float() / 255)
        if form == "raw":
            torch.testing.assert_close(found["sem_seg_scores"][0], scores, rtol=1e-3, atol=1e-3)
        else:
            best = scores.gather(0, found["sem_seg"])[0]  # of two scores that are nearly equal either may win
            torch.testing.assert_close(best, scores.amax(0), rtol=1e-3, atol=1e-3)
