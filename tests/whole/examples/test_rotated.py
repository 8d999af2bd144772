"""docs/examples/rotated.py: rotated boxes, from the generated data to AP and pictures."""

import math
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from whole_path import EXAMPLES, code_lines, predicted, trained

from vertebra import FORMATS, Instances, ShapeSpec, load_recipe
from vertebra.structures import Boxes, RotatedBoxes, pairwise_iou_rotated
from vertebra.testing import EvaluatorConformance, HeadConformance

pytestmark = pytest.mark.usefixtures("clean_slate_per_file")
RECIPE = str(EXAMPLES / "rotated.yaml")
SMALL = ("model.neck.out_channels=32", "model.backbone.out_features=[res4, res5]")
FEW = tuple(f"data.{split}.{what}=8" for split in ("train", "val") for what in ("images", "val_images"))


@pytest.fixture
def idea():
    """The module, as the recipe loads it."""
    load_recipe(RECIPE)
    return sys.modules[FORMATS.get("RotatedShapes").__module__]


class TestRotatedBoxHead(HeadConformance):
    component = "RotatedBoxHead"
    recipe = RECIPE
    overrides = (*SMALL, *FEW)
    data = "recipe"


class TestRotatedAPEvaluator(EvaluatorConformance):
    component = "RotatedAPEvaluator"

    @pytest.fixture(autouse=True)
    def loaded(self, idea):
        pass

    def make_dataset(self):
        return FORMATS.get("RotatedShapes")(6, "train", 1, size=(64, 96)).load(None)

    def make_outputs(self):
        records = self.make_dataset().dicts
        return {"right": [_found(one) for one in records], "shifted": [_found(one, 3) for one in records]} | {
            "none": [_found(one, keep=0) for one in records]
        }

    def make_inputs(self):
        return [dict(record) for record in self.make_dataset().dicts]


def _found(record, shift=0, keep=None):
    """The objects of a dataset's dict as predictions, moved by `shift` pixels."""
    given = [one for one in record["annotations"] if not one["iscrowd"]][:keep]
    boxes = torch.tensor([one["rotated"] for one in given]).reshape(-1, 5) + torch.tensor([shift, 0.0, 0, 0, 0])
    scores = 0.9 - 0.01 * torch.arange(len(given)) - 0.001 * (record["image_id"] % 7)
    classes = torch.tensor([one["category_id"] for one in given], dtype=torch.int64)
    fields = {"pred_boxes": Boxes(torch.zeros(len(given), 4)), "scores": scores, "pred_classes": classes}
    size = (record["height"], record["width"])
    return {"instances": Instances(size, pred_rotated_boxes=RotatedBoxes(boxes), **fields)}


def test_it_is_one_file_of_at_most_150_lines_of_code():
    assert code_lines(EXAMPLES / "rotated.py") <= 150


def test_a_box_lies_around_its_points_in_their_direction(idea):
    # a bar from (-3, 0) to (3, 0), 2 wide, turned by 30 degrees clockwise on the screen about (10, 20): its right end
    # goes down, where y is larger, and Detectron2 counts the other way
    turn = math.radians(30)
    bar = np.array([-3 - 1j, 3 - 1j, 3 + 1j, -3 + 1j]) * np.exp(1j * turn) + (10 + 20j)
    assert bar.imag.argmax() == 2
    assert idea.box_around(bar, turn) == pytest.approx([10, 20, 6, 2, -30])
    corners = RotatedBoxes(idea.box_around(bar, turn)[None]).corners()[0].numpy()
    np.testing.assert_allclose(corners @ (1, 1j), bar, atol=1e-5)
    assert idea.box_around(bar, turn + math.pi)[4] == pytest.approx(-30)  # half a turn makes the same box


def test_the_boxes_of_the_data_are_where_the_objects_are(idea):
    """A picture of one object on gray ground: the object's own pixels lie inside its box and touch its sides."""
    dataset = FORMATS.get("RotatedShapes")(12, "train", 1, size=96, max_objects=1, crowds=0.0, empty=0.0).load(None)
    angles = [one["annotations"][0]["rotated"][4] for one in dataset]
    assert max(angles) > 45 and min(angles) < -45  # in all directions
    for record in dataset:
        (annotation,) = record["annotations"]
        assert Image.open(record["file_name"]).size == (record["width"], record["height"])
        corners = RotatedBoxes([annotation["rotated"]]).corners()[0].numpy()
        x, y, w, h = annotation["bbox"]
        low, high = corners.min(axis=0), corners.max(axis=0)
        limit = (record["width"], record["height"])
        assert [x, y, x + w, y + h] == pytest.approx([*low.clip(0, limit), *high.clip(0, limit)], abs=0.01)


@pytest.mark.parametrize("angle", [-90.0, -46, -45, -44, 0, 30, 45, 89, 135])
@pytest.mark.parametrize("sides", [(20.0, 10.0), (10.0, 20.0), (15.0, 15.0)])
def test_a_box_that_is_encoded_and_decoded_is_the_same_box(idea, angle, sides):
    box = torch.tensor([[30.0, 21.0, *sides, angle]])
    centers = torch.tensor([[28.0, 20.0]])
    again = idea.decode(idea.encode(box, centers, 8), centers, 8)
    assert float(pairwise_iou_rotated(RotatedBoxes(box), RotatedBoxes(again))) == pytest.approx(1, abs=1e-4)


def test_a_square_has_one_code_of_4a_and_the_angle_follows_it(idea):
    boxes = torch.tensor([[0.0, 0, 10.1, 10, 20], [0.0, 0, 10, 10.1, 20]])  # the longer side along 20, and along 110
    codes = idea.encode(boxes, torch.zeros(2, 2), 8)
    torch.testing.assert_close(codes[0, [5, 7]], codes[1, [5, 7]])
    torch.testing.assert_close(codes[0, [4, 6]], -codes[1, [4, 6]])
    undecided = codes.mean(dim=0, keepdim=True)  # what is learned where 2a is either: its mean, 0
    iou = pairwise_iou_rotated(RotatedBoxes(boxes), RotatedBoxes(idea.decode(undecided, torch.zeros(1, 2), 8)))
    assert float(iou.min()) > 0.97


def test_cells_near_a_center_belong_to_the_nearest_real_box(idea):
    centers = torch.tensor([[4.0, 4], [12, 4], [20, 4], [60, 60]])
    boxes = torch.tensor([[[6.0, 4, 9, 9, 0], [19, 5, 9, 9, 0], [60, 60, 9, 9, 0]]])
    valid = torch.tensor([[True, True, False]])
    assert idea.assign(centers, boxes, valid, radius=6.5).tolist() == [[0, 0, 1, -1]]


def test_boxes_are_scaled_to_the_original_size(idea):
    recipe = load_recipe(RECIPE, list(SMALL))
    head = recipe.model.heads["boxes"].build(input_shape={"p3": ShapeSpec(32, 8)}, num_classes=2)
    box = torch.tensor([[12.0, 20, 16, 8, 90]])  # stands upright
    raw = {"scores": torch.full((1, 2, 4, 4), -9.0), "codes": torch.zeros(1, 8, 4, 4)}
    raw["scores"][0, 1, 2, 1] = 5
    raw["codes"][0, :, 2, 1] = idea.encode(box, torch.tensor([[12.0, 20]]), 8)[0]
    batch = type("Sizes", (), {"image_sizes": [(32, 32)], "original_sizes": [(64, 32)]})
    (output,) = head.predict(raw, batch)
    found = output["instances"]
    assert found.pred_classes.tolist() == [1] and found.image_size == (64, 32)
    assert found.pred_boxes.tensor[0].tolist() == pytest.approx([8, 24, 16, 56], abs=1e-3)  # twice as high
    wanted = RotatedBoxes([[12.0, 40, 32, 8, 90]])
    assert float(pairwise_iou_rotated(found.pred_rotated_boxes, wanted)) == pytest.approx(1, abs=1e-3)


def test_a_box_turned_too_far_and_one_in_a_crowd(idea):
    truth = {"height": 99, "width": 99, "annotations": []}
    for box, crowd in (([30.0, 30, 40, 4, 0], 0), ([70.0, 70, 40, 40, 45], 1)):
        truth["annotations"].append({"rotated": box, "category_id": 0, "iscrowd": crowd})
    boxes = [[30.0, 30, 40, 4, 0], [30.0, 30, 40, 4, 45], [70.0, 70, 5, 5, 0]]
    fields = {"scores": torch.tensor([0.9, 0.8, 0.7]), "pred_classes": torch.zeros(3, dtype=torch.int64)}
    found = Instances((99, 99), pred_rotated_boxes=RotatedBoxes(boxes), **fields)
    right, ignored = idea.matched(found, idea.ground_truth(truth))
    assert right[0].tolist() == [True, False, False]
    assert ignored.all(axis=0).tolist() == [False, False, True]  # inside the crowd, though small beside it


@pytest.mark.e2e
def test_the_whole_path(tmp_path):
    metrics = trained("rotated", tmp_path, *SMALL, "data.train.size=48", "data.val.size=48")
    assert {"rotated/AP", "rotated/AP50", "loss"} <= metrics.keys()
    report = tmp_path / "evaluation"
    assert len(list((report / "pictures/rotated").glob("*.png"))) == 2 and (report / "report.html").is_file()
    Image.new("RGB", (70, 50), "gray").save(tmp_path / "gray.png")
    predicted(tmp_path, [str(tmp_path / "gray.png")])
    assert (tmp_path / "predictions/gray.png").is_file()
