"""Proposals made beforehand: the files, the format, the way through the transforms, and Fast R-CNN that uses them."""

import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from vertebra.config import load_recipe
from vertebra.data import load_dataset
from vertebra.data.build import build_mapper
from vertebra.data.mapper import Mapper
from vertebra.data.transforms import RandomFlip, ResizeShortestEdge
from vertebra.errors import DataError
from vertebra.models import build_model
from vertebra_rcnn.proposal_files import read_proposals, write_proposals

BOXES = np.array([[0, 0, 10, 20], [5, 5, 60, 40], [30, 8, 31, 9]], np.float32)
LOGITS = np.array([-1.0, 2.0, 0.5], np.float32)


@pytest.fixture
def folder(tmp_path):
    """A COCO folder of two pictures with one object each."""
    for name in ("a", "b"):
        Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(tmp_path / f"{name}.png")
    images = [{"id": i, "file_name": f"{name}.png", "height": 48, "width": 64} for i, name in enumerate("ab", start=1)]
    annotations = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": [5, 5, 50, 30], "area": 1500, "iscrowd": 0} for i in (1, 2)
    ]
    coco = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    return tmp_path


def test_each_kind_of_file_gives_the_same_proposals(tmp_path):
    write_proposals(tmp_path / "p.npz", [(1, BOXES, LOGITS), (2, BOXES[:0], LOGITS[:0])])
    content = {"ids": [1, 2], "boxes": [BOXES, BOXES[:0]], "objectness_logits": [LOGITS, LOGITS[:0]]}
    (tmp_path / "p.pkl").write_bytes(pickle.dumps(content))
    scores = 1 / (1 + np.exp(-LOGITS.astype(float)))
    records = [
        {"image_id": 1, "bbox": [x, y, u - x, v - y], "score": s}
        for (x, y, u, v), s in zip(BOXES.tolist(), scores.tolist(), strict=True)
    ]
    (tmp_path / "p.json").write_text(json.dumps(records))
    for suffix in ("npz", "pkl", "json"):
        boxes, logits = read_proposals(tmp_path / f"p.{suffix}")["1"]
        np.testing.assert_allclose(boxes, BOXES)
        np.testing.assert_allclose(logits, LOGITS, rtol=1e-5)
    assert len(read_proposals(tmp_path / "p.npz")["2"][0]) == 0


class _Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit",))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.pkl", pickle.dumps({"ids": [1], "boxes": [_Bomb()]}), "refused, nothing was run"),
        ("p.npz", b"PK no archive", "cannot be read as proposals"),
        ("p.json", b'[{"image_id": 1}]', "cannot be read as proposals"),
        ("p.txt", b"", "proposals are read from"),
    ],
)
def test_a_bad_file_is_named_and_nothing_of_it_runs(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_proposals(tmp_path / name)


def test_proposals_move_with_their_image(folder):
    record = {
        "file_name": str(folder / "a.png"),
        "proposal_boxes": BOXES,
        "proposal_objectness_logits": LOGITS,
        "annotations": [{"bbox": [5, 5, 55, 35], "bbox_mode": 0, "category_id": 0}],
    }
    found = Mapper([ResizeShortestEdge(96), RandomFlip(prob=1.0)], training=True)(record)
    assert "proposal_boxes" not in found
    assert found["proposals"].image_size == (96, 128)
    assert found["proposals"].objectness_logits.tolist() == [2.0, 0.5, -1.0]  # best first
    assert found["proposals"].proposal_boxes.tensor.tolist()[0] == [128 - 120, 10, 128 - 10, 80]
    assert found["instances"].gt_boxes.tensor.tolist()[0] == [128 - 110, 10, 128 - 10, 70]


def test_fast_rcnn_learns_from_the_files_proposals(folder):
    write_proposals(folder / "p.npz", [(1, BOXES, LOGITS), (2, BOXES[:0], LOGITS[:0])])
    data = {
        "format": "with_proposals",
        "dataset": {"format": "coco", "annotations": str(folder / "coco.json"), "images": str(folder)},
        "proposals": str(folder / "p.npz"),
    }
    overrides = ["model.heads.objects.proposals=PrecomputedProposals", {"data.train": data, "data.val": data}]
    recipe = load_recipe("rcnn:faster_rcnn_shapes_quick", overrides)
    dataset = load_dataset(recipe.data.train)
    mapper = build_mapper(recipe, dataset, training=True)
    model = build_model(recipe, metadata=dataset.metadata)
    losses = model.train()([mapper(record) for record in dataset.dicts])
    assert set(losses) == {"objects/loss_cls", "objects/loss_box_reg"}
    assert losses["objects/loss_box_reg"] > 0
    with torch.no_grad():
        found = model.eval()([build_mapper(recipe, dataset, training=False)(dataset.dicts[1])])[0]["instances"]
    assert len(found) == 0  # no proposals, no detections
    with pytest.raises(DataError, match="has no `proposals`"):
        model([{"image": torch.zeros(3, 48, 64, dtype=torch.uint8)}])


def test_a_file_that_lacks_images_is_refused(folder):
    write_proposals(folder / "p.npz", [(1, BOXES, LOGITS)])
    data = {
        "format": "with_proposals",
        "dataset": {"format": "coco", "annotations": str(folder / "coco.json"), "images": str(folder)},
        "proposals": str(folder / "p.npz"),
    }
    recipe = load_recipe("rcnn:faster_rcnn_shapes_quick", [{"data.train": data}])
    with pytest.raises(DataError, match="no proposals for 1 of the 2 images"):
        load_dataset(recipe.data.train)
