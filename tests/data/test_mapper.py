import numpy as np
import pytest
import torch
from PIL import Image

from vertebra.data import CocoFormat, Mapper, Metadata
from vertebra.data.transforms import LargeScaleJitter, RandomCrop, RandomFlip, ResizeLetterbox, ResizeShortestEdge
from vertebra.errors import DataError, RecipeError
from vertebra.structures import BitMasks, BoxMode, PolygonMasks

SIZE = {"a.png": (20, 30)}
SQUARE = [2, 4, 12, 4, 12, 14, 2, 14]


def mask_record(segmentation, **more):
    return {"image_id": 1, "category_id": 2, "bbox": [2, 4, 10, 10], "segmentation": segmentation, **more}


def mapped(dataset, transforms=(), training=True, **settings):
    mapper = Mapper(transforms, training=training, metadata=dataset.metadata, fields=dataset.fields, **settings)
    return mapper(dataset[0])


def test_the_result_is_what_a_model_takes(coco_folder):
    dataset = CocoFormat(*coco_folder(SIZE, [mask_record([SQUARE])])).load()
    result = mapped(dataset, [ResizeShortestEdge(40)])
    assert result["image"].shape == (3, 40, 60) and result["image"].dtype == torch.uint8
    assert (result["height"], result["width"], result["image_id"]) == (20, 30, 1)
    instances = result["instances"]
    assert instances.image_size == (40, 60)
    assert instances.gt_boxes.tensor.tolist() == [[4, 8, 24, 28]]
    assert instances.gt_classes.tolist() == [1] and instances.gt_classes.dtype == torch.int64
    assert instances.gt_masks.polygons[0][0].tolist() == [2 * v for v in SQUARE]
    assert "annotations" not in result


def test_evaluation_gets_the_image_without_ground_truth(coco_folder):
    dataset = CocoFormat(*coco_folder(SIZE, [mask_record([SQUARE])])).load()
    result = mapped(dataset, [ResizeShortestEdge(40)], training=False)
    assert "instances" not in result and "annotations" not in result
    assert result["image"].shape == (3, 40, 60)


def test_evaluation_may_scale_only(coco_folder):
    dataset = CocoFormat(*coco_folder(SIZE, [])).load()
    assert mapped(dataset, [ResizeLetterbox(64, pad=False)], training=False)["image"].shape == (3, 43, 64)
    for transform in (ResizeLetterbox([64, 64], center=True), RandomFlip(1.0), RandomCrop("absolute", [5, 5])):
        with pytest.raises(RecipeError, match=r"data\.eval_transforms"):
            mapped(dataset, [transform], training=False)


def test_equal_arguments_give_equal_samples_and_other_epochs_others(coco_folder):
    dataset = CocoFormat(*coco_folder({"a.png": (64, 64)}, [mask_record([SQUARE])])).load()
    crop = [RandomCrop("absolute", [9, 9])]
    mapper = Mapper(crop, training=True, seed=5)
    first = mapper(dataset[0], 3, 7)["image"]
    assert torch.equal(first, Mapper(crop, training=True, seed=5)(dataset[0], 3, 7)["image"])
    others = [mapper(dataset[0], *key)["image"] for key in ((4, 7), (3, 8), (3, 7, 1))]
    others.append(Mapper(crop, training=True, seed=6)(dataset[0], 3, 7)["image"])
    assert not any(torch.equal(first, other) for other in others)


def test_crowd_regions_and_what_a_crop_leaves_nothing_of_are_left_out(coco_folder):
    records = [mask_record([SQUARE]), mask_record([SQUARE], iscrowd=1), mask_record([[20, 0, 29, 0, 29, 9]])]
    records[2]["bbox"] = [20, 0, 9, 9]
    dataset = CocoFormat(*coco_folder(SIZE, records)).load()
    assert len(mapped(dataset)["instances"]) == 2

    class CutLeft:
        def __call__(self, sample, rng):
            return sample.crop(0, 0, 20, 8)

    instances = mapped(dataset, [CutLeft()])["instances"]
    assert instances.gt_boxes.tensor.tolist() == [[2, 4, 8, 14]]
    assert instances.gt_masks.area().tolist() == [60]


def test_an_image_without_instances_has_the_same_fields(coco_folder):
    records = [{**mask_record([SQUARE]), "image_id": 2}]
    dataset = CocoFormat(*coco_folder({**SIZE, "b.png": (20, 30)}, records)).load()
    instances = mapped(dataset)["instances"]
    assert len(instances) == 0 and instances.gt_boxes.tensor.shape == (0, 4)
    assert isinstance(instances.gt_masks, PolygonMasks)


def test_an_instance_without_a_mask_counts_only_where_masks_do_not(coco_folder):
    dataset = CocoFormat(*coco_folder(SIZE, [mask_record([SQUARE]), mask_record([])])).load()
    assert len(mapped(dataset)["instances"]) == 1
    assert len(mapped(dataset, mask_format="none")["instances"]) == 2


def test_run_length_masks_become_bitmasks_and_stay_exact(coco_folder):
    rle = {"size": [20, 30], "counts": [44, 10, 546]}  # column 2, rows 4..13
    dataset = CocoFormat(*coco_folder(SIZE, [mask_record(rle), mask_record([SQUARE])])).load()
    masks = mapped(dataset, [RandomFlip(1.0)])["instances"].gt_masks
    assert isinstance(masks, BitMasks)
    expected = torch.zeros(2, 20, 30, dtype=torch.bool)
    expected[0, 4:14, 27] = True
    expected[1, 4:14, 18:28] = True
    assert torch.equal(masks.tensor, expected)


def test_polygons_are_drawn_after_the_transforms_if_bitmasks_are_asked_for(coco_folder):
    dataset = CocoFormat(*coco_folder(SIZE, [mask_record([SQUARE])])).load()
    masks = mapped(dataset, [ResizeShortestEdge(40)], mask_format="bitmask")["instances"].gt_masks
    expected = torch.zeros(1, 40, 60, dtype=torch.bool)
    expected[0, 8:28, 4:24] = True
    assert torch.equal(masks.tensor, expected)


def test_keypoints_follow_and_count_only_inside_the_image(coco_folder):
    file, images = coco_folder(SIZE, [])
    (item,) = CocoFormat(file, images).load()
    metadata = Metadata("x").set(keypoint_names=["left", "right"], keypoint_flip_map=[("left", "right")])
    points = [0.5, 1.5, 2, 35, 5, 2]
    box = {"bbox": [0, 0, 30, 20], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    item["annotations"] = [{**box, "keypoints": points}, box]
    mapper = Mapper([RandomFlip(1.0)], training=True, metadata=metadata, fields={"keypoints"})
    keypoints = mapper(item)["instances"].gt_keypoints.tensor
    assert keypoints.tolist() == [[[0, 0, 0], [29.5, 1.5, 2]], [[0, 0, 0], [0, 0, 0]]]


@pytest.mark.parametrize(
    ("mode", "box"),
    [
        (BoxMode.XYXY_ABS, [3, 4, 9, 14]),
        (BoxMode.XYWH_ABS, [3, 4, 6, 10]),
        (BoxMode.XYXY_REL, [0.1, 0.2, 0.3, 0.7]),
        (BoxMode.XYWH_REL, [0.1, 0.2, 0.2, 0.5]),
    ],
)
def test_every_box_mode_is_understood(coco_folder, mode, box):
    (item,) = CocoFormat(*coco_folder(SIZE, [])).load()
    item["annotations"] = [{"bbox": np.array(box), "bbox_mode": mode, "category_id": 0}]
    boxes = Mapper([], training=True)(item)["instances"].gt_boxes.tensor
    torch.testing.assert_close(boxes, torch.tensor([[3.0, 4, 9, 14]]))


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ({"bbox": [0, 0, 1, float("nan")], "bbox_mode": 0}, "4 finite numbers"),
        ({"bbox": [0, 0, 1], "bbox_mode": 0}, "4 finite numbers"),
        ({"bbox": "box", "bbox_mode": 0}, "cannot be read"),
        ({"bbox_mode": 0}, "has no 'bbox'"),
        ({"bbox": [0, 0, 1, 1]}, "has no 'bbox_mode'"),
        ({"bbox": [0, 0, 9, 9], "bbox_mode": 0, "segmentation": [[1, 2, 3]]}, "segmentation: polygon 0 has 3"),
        ({"bbox": [0, 0, 9, 9], "bbox_mode": 0, "segmentation": [[0, 0, 9, 9, 9, float("nan")]]}, "not finite"),
    ],
)
def test_faulty_annotations_of_a_users_function_are_named(coco_folder, annotation, words):
    (item,) = CocoFormat(*coco_folder(SIZE, [])).load()
    item["annotations"] = [{**annotation, "category_id": 0}]
    with pytest.raises(DataError, match=rf"a\.png: annotation 0.*{words}"):
        Mapper([], training=True)(item)


def test_labels_go_with_the_image_and_padding_is_ignored(coco_folder, tmp_path):
    paths = coco_folder(SIZE, [mask_record([SQUARE])])
    (tmp_path / "labels").mkdir()
    Image.fromarray(np.tile(np.uint8([0, 1, 255]), (20, 10))).save(tmp_path / "labels" / "a.png")
    dataset = CocoFormat(*paths, sem_seg=str(tmp_path / "labels"), stuff_classes=["x", "y"]).load()
    labels = mapped(dataset, [LargeScaleJitter(40, 1.0, 1.0)])["sem_seg"]
    assert labels.shape == (40, 40) and labels.dtype == torch.uint8
    assert (labels[27:] == 255).all() and set(labels[:27].unique().tolist()) == {0, 1, 255}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("unknown_label", "labels 254 on 800 pixels belong to no class; there are 8 classes"),
        ("wrong_size", "150x100"),
        ("rgb", "mode RGB"),
    ],
)
def test_faulty_labels_are_named(shared, name, words):
    folder = shared("data/bad/images")
    item = {"file_name": str(folder / "ok.jpg"), "sem_seg_file_name": str(folder / f"mask_{name}.png")}
    metadata = Metadata("x").set(stuff_classes=list("abcdefgh"))
    with pytest.raises(DataError, match=rf"mask_{name}\.png.*{words}"):
        Mapper([], training=True, metadata=metadata)(item)


def test_a_crop_does_not_carry_the_whole_image_along(coco_folder):
    dataset = CocoFormat(*coco_folder({"a.png": (200, 200)}, [])).load()
    image = mapped(dataset, [RandomCrop("absolute", [9, 9])])["image"]
    assert image.untyped_storage().nbytes() == image.nbytes
