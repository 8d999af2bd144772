"""Every form of RCNNHead on the images that are easily forgotten: nothing on them, much, crowds, hardly a pixel."""

import pytest
import torch
from PIL import Image

from vertebra.config import load_recipe
from vertebra.data.mapper import Mapper
from vertebra.models import build_model
from vertebra.structures import BitMasks, Boxes, Instances, decode_rle
from vertebra.testing.checks import backward, check_gradients, check_losses
from vertebra.testing.inputs import bare, make_input, make_metadata
from vertebra.testing.predictions import check_predictions

HEAD = "model.heads.objects"
SMALL_BOXES = f"{HEAD}.boxes.head={{name: FastRCNNConvFCHead, num_fc: 1, fc_dim: 16}}"
ONE_LEVEL = (
    "model.neck=null",
    "model.backbone.out_features=[res4]",
    f"{HEAD}.proposals={{name: RPN, pre_nms_topk: [100, 50], post_nms_topk: [50, 20]}}",
    f"{HEAD}.proposals.anchor_generator={{sizes: [[16, 32, 64]], strides: [16]}}",
)
MASKED = "rcnn:mask_rcnn_shapes_quick"
FORMS = {
    "mask": (MASKED, (SMALL_BOXES,)),
    "run lengths": (MASKED, (SMALL_BOXES, f"{HEAD}.masks.output=RunLengthOutput")),
    "keypoint": ("rcnn:keypoint_rcnn_shapes_quick", (SMALL_BOXES, f"{HEAD}.keypoints.rescore=true")),
    "cascade with masks": (MASKED, (f"{HEAD}.boxes={{name: CascadeBoxes}}", SMALL_BOXES)),
    "r-fcn": (
        "rcnn:faster_rcnn_shapes_quick",
        (*ONE_LEVEL, f"{HEAD}.boxes={{name: RFCNBoxes, channels: 16, bins: 3}}"),
    ),
    "c4 with masks": (
        MASKED,
        (
            *ONE_LEVEL,
            f"{HEAD}.boxes={{name: ROIBoxes, head: {{name: Res5, depth: 18, norm: bn}}}}",
            f"{HEAD}.boxes.pooler={{name: ROIPooler, resolution: 6}}",
            f"{HEAD}.masks={{name: ROIMasks, num_conv: 0, conv_dim: 16}}",
            f"{HEAD}.masks.pooler={{name: SharedBoxFeatures, channels: 512, resolution: 3}}",
        ),
    ),
}


@pytest.fixture(scope="module", params=FORMS)
def model(request):
    torch.manual_seed(0)
    recipe, overrides = FORMS[request.param]
    return build_model(load_recipe(recipe, list(overrides)), 3, make_metadata(3), pretrained=False)


def step(model, inputs, what):
    """Finite losses, a gradient for every parameter; the losses by their own names."""
    model.zero_grad(set_to_none=True)
    torch.manual_seed(1)
    losses = model.train()(inputs)
    check_losses(losses, what)
    backward(model, losses, what)
    check_gradients(model, what)
    return {name.partition("/")[2]: loss.item() for name, loss in losses.items()}


def of_objects(losses):
    """Those that only regions with an object give."""
    return [loss for name, loss in losses.items() if name.startswith(("loss_box_reg", "loss_mask", "loss_keypoint"))]


def crowds(tmp_path, model):
    """A picture whose only annotation is a crowd, as the loader gives it in training."""
    path = tmp_path / "crowd.png"
    Image.fromarray(make_input(0)["image"].permute(1, 2, 0).numpy()).save(path)
    crowd = {"bbox": [5, 5, 50, 40], "bbox_mode": 1, "category_id": 0, "iscrowd": 1, "keypoints": [0.0] * 15}
    crowd["segmentation"] = [[5.0, 5, 55, 5, 55, 45]]
    record = {"file_name": str(path), "height": 64, "width": 96, "image_id": 1, "annotations": [crowd]}
    fields = {"segmentation"} if model.heads["objects"].masks else set()
    fields |= {"keypoints"} if model.heads["objects"].keypoints else set()
    return Mapper([], training=True, metadata=make_metadata(3), fields=fields)(record)


def test_training_without_objects_and_on_crowds_alone(model, tmp_path):
    assert not any(of_objects(step(model, [make_input(0, objects=0)], "an image without objects")))
    crowd = crowds(tmp_path, model)
    assert len(crowd["instances"]) == 0
    assert not any(of_objects(step(model, [crowd, make_input(1, objects=0)], "an image of crowds")))


def test_training_on_three_hundred_objects_beside_none(model):
    losses = step(model, [make_input(1, objects=300, edge=(4, 20)), make_input(2, objects=0)], "300 objects")
    assert all(of_objects(losses))


def test_training_on_objects_of_one_pixel_and_on_empty_masks(model):
    step(model, [make_input(3, objects=5, edge=(1, 1))], "objects of one pixel")
    sample = make_input(0)
    sample["instances"].gt_masks = BitMasks(torch.zeros(3, 64, 96))
    step(model, [sample], "empty masks")


def test_training_on_objects_without_area(model):
    """Boxes of no width or height count as no object."""
    sample = make_input(0)
    sample["instances"].gt_boxes = Boxes(torch.tensor([[5.0, 5, 5, 20], [9, 9, 30, 9], [7, 7, 7, 7]]))
    assert not any(of_objects(step(model, [sample], "boxes without area")))


@pytest.mark.parametrize(("threshold", "most"), [(1.0, 100), (0.0, 300)])
def test_predictions_of_nothing_and_of_hundreds(model, threshold, most):
    head = model.eval().heads["objects"]
    head.score_threshold, head.max_detections, head.nms_threshold = threshold, most, 1.0
    inputs = [make_input(0), make_input(1, size=(40, 57), original=(80, 33))]
    with torch.no_grad():
        found = model(bare(inputs))
    check_predictions(found, inputs, keys=["instances"], num_things=3)
    counts = [len(one["instances"]) for one in found]
    assert counts == [0, 0] if threshold == 1.0 else min(counts) > 20


def test_details_of_hardly_a_pixel_and_of_the_whole_image(model):
    """Masks and keypoints of boxes of one pixel, of none, beyond the border, and as large as the image."""
    head = model.eval().heads["objects"]
    boxes = torch.tensor([[5.0, 5, 6, 6], [7, 7, 7, 7], [0, 0, 96, 64], [95.5, 63.5, 96, 64], [0, 3, 96, 4]])
    found = Instances(
        (64, 96),
        pred_boxes=Boxes(boxes),
        scores=torch.linspace(0.9, 0.5, 5),
        pred_classes=torch.arange(5) % 3,
    )
    batch = model.make_batch(bare([make_input(0)]))
    with torch.no_grad():
        raw = head(model.features(batch.images))
        head.add_details({name: x.float() for name, x in raw.features.items()}, [found])
        result = head._in_original_size(found, (128, 192))
    check_predictions([{"instances": result}], [{"height": 128, "width": 192}], num_things=3)
    assert len(result) == 4  # the box without area is gone
    if head.masks is not None:
        masks = result.pred_masks
        assert (decode_rle(masks[0]) if isinstance(masks, list) else masks[0]).shape == (128, 192)


def test_scores_of_keypoints_multiply_those_of_their_boxes():
    from vertebra_rcnn.keypoints import rescored

    points = torch.zeros(3, 2, 3)
    points[..., 2] = torch.tensor([[0.2, 0.4], [1.0, 0.6], [0.5, 0.5]])
    found = Instances((9, 9), scores=torch.tensor([0.9, 0.5, 0.4]), pred_keypoints=points)
    result = rescored(found)
    torch.testing.assert_close(result.scores, torch.tensor([0.5 * 0.8, 0.9 * 0.3, 0.4 * 0.5]))
    assert result.pred_keypoints[0, 0, 2] == 1.0
