"""A recipe with a YOLO head and a semantic head on one backbone."""

import torch

from vertebra import load_recipe
from vertebra.data.build import build_mapper, load_dataset
from vertebra.models import build_model


def test_a_yolo_head_and_a_semantic_head_share_a_backbone(repository):
    images = {"format": "shapes", "images": 4, "size": [64, 96], "labels": ["semantic"]}
    recipe = load_recipe(str(repository / "configs/detection/shapes_yolov5n_fcn.yaml"), [{"data.train": images}])
    dataset = load_dataset(recipe.data.train)
    mapper = build_mapper(recipe, dataset, training=True)
    inputs = [mapper(record, index=i) for i, record in enumerate(dataset.dicts)]
    torch.manual_seed(0)
    model = build_model(recipe, metadata=dataset.metadata).train()
    losses = model(inputs)
    assert {name.split("/")[0] for name in losses} == {"boxes", "labels"}
    sum(losses.values()).backward()
    for head in model.heads.values():
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in head.parameters())
    with torch.no_grad():
        outputs = model.eval()(inputs)
    for output in outputs:
        assert output["sem_seg"].shape[1:] == (64, 96)
        assert output["instances"].image_size == (64, 96)
