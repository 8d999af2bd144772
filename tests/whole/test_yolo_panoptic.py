"""A panoptic recipe out of three plugins: YOLO's objects with masks, DeepLab's labels, merged."""

import torch

from vertebra import load_recipe
from vertebra.data.build import build_mapper, load_dataset
from vertebra.models import build_model


def test_yolo_with_masks_and_deeplab_make_a_panoptic_model(repository):
    images = {"format": "shapes", "images": 4, "size": [64, 96], "labels": ["semantic", "panoptic"]}
    recipe = load_recipe(
        str(repository / "configs/panoptic/shapes_yolov5n_deeplab_quick.yaml"), [{"data.train": images}]
    )
    dataset = load_dataset(recipe.data.train)
    mapper = build_mapper(recipe, dataset, training=True)
    inputs = [mapper(record, index=i) for i, record in enumerate(dataset.dicts)]
    torch.manual_seed(0)
    model = build_model(recipe, metadata=dataset.metadata).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    losses = model(inputs)
    things = {"panoptic/things/loss_" + part for part in ("box", "obj", "cls", "mask")}
    assert set(losses) == things | {"panoptic/stuff/loss_sem_seg"}
    sum(losses.values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    optimizer.step()
    model.heads["panoptic"].merge.instance_score = 0.0
    with torch.no_grad():
        outputs = model.eval()(inputs)
    for output in outputs:
        ids, segments = output["panoptic_seg"]
        assert ids.shape == output["sem_seg"].shape[1:] == (64, 96)
        assert output["instances"].pred_masks.shape[1:] == (64, 96)
        assert {info["id"] for info in segments} == set(ids.unique().tolist()) - {0}
        assert any(info["isthing"] for info in segments)
