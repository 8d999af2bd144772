"""Model and Batch: padding, normalization, ground truth, several heads, and the errors for wrong inputs."""

import pytest
import torch
from torch import nn

from vertebra.errors import DataError
from vertebra.models import Backbone, Head, Model, Neck, ShapeSpec
from vertebra.structures import Boxes, Instances


class Stride4(Backbone):
    """One convolution of stride 4."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 4, stride=4)

    def output_shape(self):
        return {"res2": ShapeSpec(channels=2, stride=4)}

    def forward(self, images):
        return {"res2": self.conv(images)}


class Multiple6(Neck):
    @property
    def size_divisibility(self):
        return 6

    def output_shape(self):
        return {"p2": ShapeSpec(channels=2, stride=4)}

    def forward(self, features):
        return {"p2": features["res2"]}


class MeanHead(Head):
    task_outputs = ("mean",)

    def forward(self, features):
        return next(iter(features.values())).mean(dim=(1, 2, 3))

    def losses(self, raw, batch):
        return {"mean": raw.sum(), "objects": batch.gt_valid.sum().float() if batch.gt_valid is not None else raw.sum()}

    def predict(self, raw, batch):
        return [{"mean": value, "size": size} for value, size in zip(raw, batch.original_sizes, strict=True)]


def image(height, width, value=None):
    if value is None:
        return torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    return torch.tensor(value, dtype=torch.uint8).view(3, 1, 1).expand(3, height, width)


def truth(size, boxes, classes):
    boxes, classes = torch.tensor(boxes).view(-1, 4), torch.tensor(classes, dtype=torch.int64)
    return Instances(size, gt_boxes=Boxes(boxes), gt_classes=classes)


def test_images_of_all_sizes_are_padded_to_the_least_common_multiple():
    model = Model(Stride4(), Multiple6())
    assert model.size_divisibility == 12
    batch = model.make_batch([{"image": image(20, 30)}, {"image": image(25, 13)}])
    assert batch.padded_size == (36, 36)
    assert batch.image_sizes == batch.original_sizes == [(20, 30), (25, 13)]
    assert len(batch) == 2


def test_pixels_are_normalized_and_the_padding_is_zero():
    model = Model(Stride4(), pixel_mean=(10, 20, 30), pixel_std=(2, 4, 5))
    images = model.make_batch([{"image": image(5, 6, [20, 20, 20])}, {"image": image(8, 8, [10, 20, 30])}]).images
    assert images.dtype == torch.float32 and images.shape == (2, 3, 8, 8)
    torch.testing.assert_close(images[0, :, :5, :6], torch.tensor([5.0, 0.0, -2.0]).view(3, 1, 1).expand(3, 5, 6))
    assert images[0, :, 5:].eq(0).all() and images[0, :, :, 6:].eq(0).all() and images[1].eq(0).all()


def test_a_bgr_model_turns_the_channels_round_and_has_its_mean_in_that_order():
    model = Model(Stride4(), pixel_mean=(30, 20, 10), pixel_std=(1, 1, 1), pixel_order="bgr")
    images = model.make_batch([{"image": image(4, 4, [10, 20, 35])}]).images
    torch.testing.assert_close(images[0, :, 0, 0], torch.tensor([5.0, 0.0, 0.0]))


def test_channels_last_weights_get_channels_last_images_of_the_same_values():
    model = Model(Stride4())
    sample = {"image": image(8, 12)}
    plain = model.make_batch([sample]).images
    assert not model.channels_last and plain.is_contiguous()
    model.channels_last = True
    images = model.make_batch([sample]).images
    assert model.channels_last and images.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(images, plain)
    model.channels_last = False
    assert model.make_batch([sample]).images.is_contiguous()


def test_ground_truth_is_padded_and_says_what_is_real():
    model = Model(Stride4())
    batch = model.make_batch(
        [
            {"image": image(8, 8), "instances": truth((8, 8), [[1.0, 2, 3, 4], [0, 0, 8, 8]], [5, 6])},
            {"image": image(8, 8)},
            {"image": image(8, 8), "instances": truth((8, 8), [], [])},
        ]
    )
    assert batch.gt_boxes.tolist() == [[[1, 2, 3, 4], [0, 0, 8, 8]], [[0] * 4] * 2, [[0] * 4] * 2]
    assert batch.gt_classes.tolist() == [[5, 6], [0, 0], [0, 0]]
    assert batch.gt_valid.tolist() == [[True, True], [False, False], [False, False]]
    assert batch.gt_classes.dtype == torch.int64 and batch.gt_boxes.dtype == torch.float32
    assert [len(one) for one in batch.instances] == [2, 0, 0]


def test_a_batch_without_any_object_still_has_one_padded_row():
    batch = Model(Stride4()).make_batch([{"image": image(8, 8), "instances": truth((8, 8), [], [])}])
    assert batch.gt_boxes.shape == (1, 1, 4) and not batch.gt_valid.any()


def test_inputs_without_ground_truth_give_none():
    batch = Model(Stride4()).make_batch([{"image": image(8, 8)}])
    assert batch.gt_boxes is batch.gt_classes is batch.gt_valid is batch.instances is batch.sem_seg is None


def test_ground_truth_is_given_whole_or_not_at_all():
    inputs = [{"image": image(8, 8), "instances": truth((8, 8), [[1.0, 2, 3, 4]], [5])}]
    batch = Model(Stride4()).make_batch(inputs)
    assert batch.ground_truth("Head") == (batch.gt_boxes, batch.gt_classes, batch.gt_valid)
    assert batch.ground_truth_instances("Head") is batch.instances
    without = Model(Stride4()).make_batch([{"image": image(8, 8)}])
    for method in (without.ground_truth, without.ground_truth_instances):
        with pytest.raises(DataError, match="FCOSHead learns from ground-truth boxes, but no input"):
            method("FCOSHead")


def test_semantic_labels_are_ignored_where_padded_or_missing():
    labels = torch.zeros(5, 6, dtype=torch.uint8)
    batch = Model(Stride4()).make_batch([{"image": image(5, 6), "sem_seg": labels}, {"image": image(8, 8)}])
    assert batch.sem_seg.shape == (2, 8, 8) and batch.sem_seg.dtype == torch.int64
    assert batch.sem_seg[0, :5, :6].eq(0).all()
    assert batch.sem_seg.eq(255).sum() == 2 * 64 - 30


def test_losses_carry_the_heads_names_and_reach_the_backbone():
    model = Model(Stride4(), heads={"a": MeanHead(), "b": MeanHead()})
    losses = model([{"image": image(8, 8)}])
    assert list(losses) == ["a/mean", "a/objects", "b/mean", "b/objects"]
    sum(losses.values()).backward()
    assert model.backbone.conv.weight.grad.abs().sum() > 0
    assert model.task_outputs == {"a": ("mean",), "b": ("mean",)}


def test_predictions_of_heads_merge_and_equal_keys_keep_both():
    model = Model(Stride4(), heads={"a": MeanHead(), "b": MeanHead()}).eval()
    outputs = model([{"image": image(8, 8), "height": 16, "width": 20}, {"image": image(4, 8)}])
    assert [set(output) for output in outputs] == [{"mean", "size", "b/mean", "b/size"}] * 2
    assert outputs[0]["size"] == (16, 20) and outputs[1]["size"] == (4, 8)


def test_pixel_statistics_are_no_weights():
    assert set(Model(Stride4()).state_dict()) == {"backbone.conv.weight", "backbone.conv.bias"}


@pytest.mark.parametrize(
    ("sample", "says"),
    [
        ({"image": torch.rand(3, 8, 8)}, r"0 to 255.*image \* 255"),
        ({"image": torch.zeros(8, 8, 3, dtype=torch.uint8)}, r"permute\(2, 0, 1\)"),
        ({"image": torch.zeros(1, 3, 8, 8, dtype=torch.uint8)}, "without a batch dimension"),
        ({"image": torch.zeros(3, 0, 8, dtype=torch.uint8)}, "not empty"),
        ({"image": torch.zeros(3, 8, 8, dtype=torch.int64)}, "torch.int64; it must be uint8"),
        ({"image": image(8, 8).numpy()}, "ndarray.*from_numpy"),
        ({"file_name": "a/b.jpg", "height": 8}, r"input 0 of the batch \(a/b.jpg\).*'image'"),
        (image(8, 8), "an input is a dict"),
        ({"image": image(8, 8), "sem_seg": torch.zeros(8, 9)}, r"sem_seg has shape \(8, 9\), but the image is 8 x 8"),
        ({"image": image(8, 8), "instances": Instances((8, 8), scores=torch.ones(1))}, "needs .* gt_boxes .* scores"),
    ],
)
def test_a_wrong_input_is_named_and_explained(sample, says):
    with pytest.raises(DataError, match=says):
        Model(Stride4()).make_batch([sample])


def test_an_empty_batch_is_an_error():
    with pytest.raises(DataError, match="at least one image"):
        Model(Stride4()).make_batch([])


def test_float_images_of_0_to_255_are_taken_as_they_are():
    pixels = image(8, 8)
    model = Model(Stride4())
    floats, bytes_ = model.make_batch([{"image": pixels.float()}]), model.make_batch([{"image": pixels}])
    torch.testing.assert_close(floats.images, bytes_.images)
