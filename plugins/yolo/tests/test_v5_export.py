"""YOLOv5 and YOLOv10 as ONNX: the exporter compares each file with the model in ONNX Runtime, refusing what differs."""

import pytest
import torch

from vertebra import build_model, load_recipe

CASES = [
    ("yolov5n_shapes_quick", "raw", False),
    ("yolov5n_shapes_quick", "end-to-end", True),
    ("yolov5n_masks_shapes_quick", "raw", True),
    ("yolov5n_masks_shapes_quick", "end-to-end", False),
    ("yolov10n_shapes_quick", "raw", False),
    ("yolov10n_shapes_quick", "end-to-end", True),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "form", "dynamic"), CASES)
def test_both_forms_agree_with_the_model(tmp_path, name, form, dynamic):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from vertebra.export import export_onnx

    torch.manual_seed(0)
    model = build_model(load_recipe(f"yolo:{name}"), 3).eval()
    for parameter in model.heads["boxes"].parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)  # scores that spread
    export_onnx(model, tmp_path / "model.onnx", form=form, size=(96, 128), dynamic=dynamic)
    operators = {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
    assert ("NonMaxSuppression" in operators) == (form == "end-to-end" and name.startswith("yolov5"))
