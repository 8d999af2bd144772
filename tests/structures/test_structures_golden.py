"""Structures give Detectron2's numbers: arrays that Detectron2 0.6 computed on a CPU, in tests/reference."""

import json

import numpy as np
import pytest
import torch

from vertebra.structures import (
    BitMasks,
    Boxes,
    BoxMode,
    ImageList,
    Keypoints,
    PolygonMasks,
    decode_rle,
    encode_masks,
    heatmaps_to_keypoints,
    pairwise_ioa,
    pairwise_iou,
    paste_masks_in_image,
)


@pytest.fixture(scope="module")
def golden(repository):
    path = repository / "tests/reference/detectron2_components_structures"
    with np.load(path.with_suffix(".npz")) as arrays:
        tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    return {**tensors, **json.loads(path.with_suffix(".json").read_text())}


@pytest.fixture(scope="module")
def polygons(golden):
    return PolygonMasks(golden["masks/polygons"])


def _unpack_crops(packed):
    return torch.from_numpy(np.unpackbits(packed.numpy())).view(-1, 28, 28).bool()


def test_boxes_methods(golden):
    boxes = Boxes(golden["box/src"].clone())
    assert torch.equal(boxes.inside_box((250, 400), 5), golden["box/inside"])
    boxes.clip(golden["box/clip_size"])
    assert torch.equal(boxes.tensor, golden["box/clipped"])
    assert torch.equal(boxes.area(), golden["box/area"])
    assert torch.equal(boxes.nonempty(2.0), golden["box/nonempty"])


def test_pairwise_overlaps(golden):
    first, second = Boxes(golden["box/src"][:20]), Boxes(golden["box/dst"])
    assert torch.equal(pairwise_iou(first, second), golden["box/iou"])
    assert torch.equal(pairwise_ioa(first, second), golden["box/ioa"])


def test_box_modes_have_the_same_numbers(golden):
    assert {mode.name: mode.value for mode in BoxMode} == golden["box/mode_numbers"]


@pytest.mark.parametrize(
    "conversion",
    [
        "XYXY_ABS-XYXY_ABS",
        "XYXY_ABS-XYWH_ABS",
        "XYWH_ABS-XYXY_ABS",
        "XYWH_ABS-XYWH_ABS",
        "XYWHA_ABS-XYXY_ABS",
        "XYWH_ABS-XYWHA_ABS",
    ],
)
def test_box_mode_convert(golden, conversion):
    source, target = conversion.split("-")
    rotated = source == "XYWHA_ABS"
    boxes = (golden["box/xywha"] if rotated else golden[f"box/mode/{source}-{source}"]).numpy()
    converted = BoxMode.convert(boxes, BoxMode[source], BoxMode[target])
    np.testing.assert_allclose(converted, golden[f"box/mode/{conversion}"].numpy(), rtol=1e-13)


def test_image_list_shapes(golden):
    images = [torch.rand(shape) for shape in golden["image_list"]["shapes"]]
    for case in golden["image_list"]["cases"]:
        constraints = {"square_size": case["square"]} if case["square"] else None
        padded = ImageList.from_tensors(images, case["size_divisibility"], padding_constraints=constraints)
        assert list(padded.tensor.shape) == case["shape"]


def test_polygon_masks(golden, polygons):
    assert torch.equal(polygons.area(), golden["masks/polygon_area"])
    assert torch.equal(polygons.get_bounding_boxes().tensor, golden["masks/polygon_boxes"])
    crops = polygons.crop_and_resize(golden["masks/boxes"], 28)
    assert torch.equal(crops, _unpack_crops(golden["masks/polygon_crop28"]))


def test_bit_masks(golden, polygons):
    masks = BitMasks.from_polygon_masks(polygons, 320, 448)
    assert encode_masks(masks.tensor) == golden["masks/bitmask_rle"]
    assert torch.equal(masks.get_bounding_boxes().tensor, golden["masks/bitmask_boxes"])
    crops = masks.crop_and_resize(golden["masks/boxes"], 28)
    assert torch.equal(crops, _unpack_crops(golden["masks/bitmask_crop28"]))


def test_paste_masks_in_image(golden):
    soft, boxes = golden["masks/soft"], golden["masks/boxes"]
    pasted = paste_masks_in_image(soft, boxes, (320, 448), threshold=0.5)
    for mask, rle in zip(pasted, golden["masks/paste_rle"], strict=True):
        assert np.array_equal(mask.numpy(), decode_rle(rle))
    gray = paste_masks_in_image(soft, boxes, (320, 448), threshold=-1).flatten()
    sample = golden["masks/paste_soft_sample"]
    step = -(-len(gray) // len(sample))
    assert (gray[::step].int() - sample.int()).abs().max() <= 1  # rounding down may go either way at a whole number


def test_keypoints_to_heatmap(golden):
    cells, valid = Keypoints(golden["keypoints/gt"]).to_heatmap(golden["masks/boxes"], 56)
    assert torch.equal(cells, golden["keypoints/heatmap_index"])
    assert torch.equal(valid, golden["keypoints/heatmap_valid"])


def test_heatmaps_to_keypoints(golden):
    found = heatmaps_to_keypoints(golden["keypoints/maps"], golden["keypoints/rois"])
    torch.testing.assert_close(found, golden["keypoints/from_maps"], rtol=1e-5, atol=1e-5)
