"""The raw export of YOLOv5 in OpenCV's DNN module, as pipelines that know no PyTorch use it."""

import numpy as np
import pytest
import torch

from vertebra import Predictor, build_model, load_recipe
from vertebra.data.build import build_mapper, load_dataset
from vertebra.structures import pairwise_iou

SIZE = 640
OBJECTNESS, CLASS, OVERLAP = 0.5, 0.45, 0.45


def by_opencv(cv2, path, image):
    """The usual pipeline: blob, forward, thresholds, NMS. Boxes xyxy in pixels of the square image, scores, classes."""
    net = cv2.dnn.readNet(str(path))
    net.setInput(cv2.dnn.blobFromImage(image, 1 / 255, (SIZE, SIZE), swapRB=False, crop=False))  # RGB already
    (rows,) = np.asarray(net.forward())
    assert rows.shape == (25200, 8)
    rows = rows[(rows[:, 4] > OBJECTNESS) & (rows[:, 5:].max(axis=1) > CLASS)]
    classes, scores = rows[:, 5:].argmax(axis=1), rows[:, 4] * rows[:, 5:].max(axis=1)
    corners = np.concatenate((rows[:, :2] - rows[:, 2:4] / 2, rows[:, 2:4]), axis=1)  # x, y, w, h
    kept = []
    for kind in range(3):  # by class, as `predict` does
        own = np.flatnonzero(classes == kind)
        if len(own):
            chosen = cv2.dnn.NMSBoxes(corners[own].tolist(), scores[own].tolist(), 0.0, OVERLAP)
            kept += own[np.asarray(chosen).reshape(-1)].tolist()
    boxes = np.concatenate((corners[kept, :2], corners[kept, :2] + corners[kept, 2:]), axis=1)
    return torch.from_numpy(boxes), scores[kept], classes[kept]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """YOLOv5n overfitted to one picture, as a weights file; and the picture."""
    folder = tmp_path_factory.mktemp("opencv")
    images = {"format": "shapes", "images": 8, "size": [SIZE, SIZE], "object_size": [0.15, 0.4], "empty": 0.0}
    overrides = [
        {"data.train": images, "data.train_transforms": []},
        "evaluate.amp=off",
        "model.heads.boxes.obj_gain=4",
    ]
    recipe = load_recipe("yolo:yolov5n_shapes_quick", overrides)
    dataset = load_dataset(recipe.data.train)
    mapper = build_mapper(recipe, dataset, training=True)
    inputs = [mapper(max(dataset.dicts, key=lambda record: len(record["annotations"])))]
    torch.manual_seed(0)
    model = build_model(recipe, metadata=dataset.metadata).train()
    model.channels_last = True
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.1  # statistics of the few steps there are
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(110):
        with torch.autocast("cpu", torch.bfloat16):
            losses = model(inputs)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
    classes = list(dataset.metadata.thing_classes)
    torch.save({"model": model.state_dict(), "classes": classes}, folder / "weights.pth")
    return recipe, folder / "weights.pth", inputs[0]["image"].permute(1, 2, 0).numpy().copy()


@pytest.mark.e2e
def test_opencv_finds_what_predict_finds(trained, tmp_path):
    cv2 = pytest.importorskip("cv2")
    pytest.importorskip("onnxscript")
    from vertebra.export import export_onnx

    recipe, weights, image = trained
    predictor = Predictor(recipe, weights, device="cpu")
    head = predictor.model.heads["boxes"]
    head.nms_threshold, head.score_threshold = OVERLAP, OBJECTNESS * CLASS
    export_onnx(predictor.model, tmp_path / "v5.onnx", form="raw", size=(SIZE, SIZE))
    boxes, scores, classes = by_opencv(cv2, tmp_path / "v5.onnx", image)
    ours = predictor(image)["instances"]
    ours = ours[ours.scores > OBJECTNESS]  # nothing lies between the two ways to set thresholds, see below
    assert len(ours) == len(boxes) >= 3
    assert not ((scores > OBJECTNESS * CLASS) & (scores <= OBJECTNESS)).any()
    best, match = pairwise_iou(boxes.float().clamp(0, SIZE), ours.pred_boxes.tensor).max(dim=1)
    assert best.min() > 0.99 and len(match.unique()) == len(boxes)
    assert torch.equal(ours.pred_classes[match], torch.from_numpy(classes))
    torch.testing.assert_close(ours.scores[match].double(), torch.from_numpy(scores).double(), atol=2e-3, rtol=0)
