"""The heads: what they choose from the features, edge cases of images and labels, and the same training twice."""

import pytest
import torch

from vertebra.errors import DataError
from vertebra.models import Model, ShapeSpec
from vertebra.models.backbones.resnet import ResNet
from vertebra.models.losses import HardPixelCrossEntropy
from vertebra_deeplab import DeepLabV2Head, DeepLabV3Head, DeepLabV3PlusHead

SHAPES = {"res2": ShapeSpec(8, 4), "res3": ShapeSpec(12, 8), "res5": ShapeSpec(16, 16)}
HEADS = {
    "v2": lambda shapes, **k: DeepLabV2Head(shapes, 3, hidden_channels=8, dropout=0.0, **k),
    "v3": lambda shapes, **k: DeepLabV3Head(shapes, 3, channels=8, dropout=0.0, **k),
    "v3+": lambda shapes, **k: DeepLabV3PlusHead(shapes, 3, channels=8, low_level_channels=4, dropout=0.0, **k),
}
each_head = pytest.mark.parametrize("kind", HEADS)


def make_model(kind="v3+", norm="bn", **arguments):
    """On a ResNet-18 up to res3 with its stride of 8 as the deepest."""
    torch.manual_seed(0)
    backbone = ResNet(18, norm=norm, out_features=["res2", "res3"])
    norms = {} if kind == "v2" else {"norm": norm}
    return Model(backbone, None, {"labels": HEADS[kind](backbone.output_shape(), **norms, **arguments)})


def make_input(height, width, labels=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    return {"image": image} | ({} if labels is None else {"sem_seg": labels})


def random_labels(height, width, seed=0):
    return torch.randint(0, 3, (height, width), generator=torch.Generator().manual_seed(seed))


@each_head
def test_scores_come_at_the_stride_of_the_feature_and_predictions_in_the_original_size(kind):
    model = make_model(kind).eval()
    inputs = [make_input(40, 56) | {"height": 80, "width": 60}, make_input(33, 70)]
    with torch.no_grad():
        raw = model.compute(model.make_batch(inputs).images)["labels"]
        found = model(inputs)
    stride = 4 if kind == "v3+" else 8
    assert raw.shape == (2, 3, 40 // stride, 72 // stride)
    assert [tuple(one["sem_seg"].shape) for one in found] == [(3, 80, 60), (3, 33, 70)]


def test_the_rates_are_6_12_18_at_stride_16_and_twice_that_at_stride_8():
    def rates(stride, **arguments):
        head = DeepLabV3Head({"res5": ShapeSpec(4, stride)}, 2, channels=4, **arguments)
        return [conv.dilation[0] for conv in head.aspp.convs[1:]]

    assert (rates(16), rates(8), rates(32)) == ([6, 12, 18], [12, 24, 36], [3, 6, 9])
    assert rates(8, rates=[2]) == [2]


def test_the_deepest_feature_is_taken_and_the_finest_one_merged():
    head = DeepLabV3PlusHead(SHAPES, 3, channels=8)
    assert (head.in_feature, head.low_level_features) == ("res5", ["res2"])
    assert head.merge["res2"][0].in_channels == 8 + 48
    several = DeepLabV3PlusHead(SHAPES, 3, channels=8, low_level_features=["res2", "res3"], decoder_channels=6)
    assert several.low_level_features == ["res3", "res2"]  # coarse first
    shapes = {"stem": ShapeSpec(8, 4), **SHAPES}
    for order in (["stem", "res2"], ["res2", "stem"]):  # of one stride in the order given, which weights depend on
        assert DeepLabV3PlusHead(shapes, 3, channels=8, low_level_features=order).low_level_features == order
    features = {
        name: torch.rand(2, spec.channels, 64 // spec.stride, 32 // spec.stride) for name, spec in SHAPES.items()
    }
    assert several.eval()(features).shape == (2, 3, 16, 8)


def test_a_separable_head_has_the_separable_convolutions_of_detectron2():
    """One of 5x5 in place of two of 3x3 in the decoder, as `USE_DEPTHWISE_SEPARABLE_CONV` builds it."""
    head = DeepLabV3PlusHead(SHAPES, 3, channels=8, separable=True, decoder_convs=1, decoder_kernel_size=5)
    names = {name for name, _ in head.named_parameters()}
    assert {
        "aspp.convs.1.depthwise.weight",
        "aspp.convs.1.pointwise.norm.weight",
        "merge.res2.0.depthwise.weight",
    } <= names
    assert head.merge["res2"][0].depthwise.weight.shape == (56, 1, 5, 5)


def test_large_field_of_view_is_a_dilated_fc6_a_1x1_fc7_and_scores():
    head = DeepLabV2Head({"conv5": ShapeSpec(512, 8)}, 21)
    fc6, _, fc7, _, score = head.branches[0]
    assert (fc6.weight.shape, fc6.dilation) == ((1024, 512, 3, 3), (12, 12))
    assert (fc7.weight.shape, score.weight.shape) == ((1024, 1024, 1, 1), (21, 1024, 1, 1))


def test_scores_of_several_fields_of_view_are_summed():
    head = DeepLabV2Head({"res5": ShapeSpec(4, 8)}, 3, rates=[1, 2, 3], hidden_channels=0).eval()
    x = torch.randn(1, 4, 6, 6)
    torch.testing.assert_close(head({"res5": x}), sum(branch(x) for branch in head.branches))


@each_head
def test_images_of_nothing_but_ignored_pixels_cost_nothing_and_move_nothing(kind):
    for loss in (None, HardPixelCrossEntropy()):
        model = make_model(kind, loss=loss).train()
        nothing = torch.full((24, 40), 255)
        losses = model([make_input(24, 40, nothing), make_input(24, 40, nothing, seed=1)])
        losses["labels/loss_sem_seg"].backward()
        assert losses["labels/loss_sem_seg"].item() == 0
        assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


@each_head
def test_a_label_outside_the_classes_is_refused_by_its_value(kind):
    model = make_model(kind).train()
    labels = torch.zeros(16, 24, dtype=torch.int64)
    labels[3, 4] = 7
    with pytest.raises(DataError, match="1 pixels have the label 7; labels must be class ids 0 to 2 or 255"):
        model([make_input(16, 24, labels), make_input(16, 24, torch.zeros(16, 24).long(), seed=1)])


@each_head
def test_an_image_of_one_pixel_is_predicted(kind):
    model = make_model(kind).eval()
    with torch.no_grad():
        scores = model([make_input(1, 1)])[0]["sem_seg"]
    assert scores.shape == (3, 1, 1) and scores.isfinite().all()


@each_head
def test_images_of_one_pixel_train_two_at_a_time_or_without_batch_statistics(kind):
    """Padded to one cell of the deepest feature, a single one has one value per channel there."""
    inputs = [make_input(1, 1, torch.tensor([[1]]), seed=seed) for seed in range(2)]
    assert make_model(kind).train()(inputs)["labels/loss_sem_seg"].isfinite()
    assert make_model(kind, norm="gn" if kind == "v2" else "none").train()(inputs[:1])["labels/loss_sem_seg"].isfinite()
    with pytest.raises(ValueError, match=r"more than one value per channel.*one image of one cell"):
        make_model(kind).train()(inputs[:1])


def test_one_image_trains_unless_the_pooled_branch_has_batch_normalization():
    sample = make_input(24, 40, random_labels(24, 40))
    assert make_model("v3+").train()([sample])["labels/loss_sem_seg"].isfinite()
    with pytest.raises(ValueError, match="more than one value per channel"):
        make_model("v3+", pool_norm="bn").train()([sample])
    two = [sample, make_input(24, 40, random_labels(24, 40), seed=1)]
    assert make_model("v3+", pool_norm="bn").train()(two)["labels/loss_sem_seg"].isfinite()


@each_head
def test_one_seed_gives_the_same_weights_bit_for_bit(kind):
    def train():
        model = make_model(kind).train()
        head = model.heads["labels"]
        for module in head.modules():
            if hasattr(module, "dropout"):
                module.dropout = 0.1
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        torch.manual_seed(3)
        for step in range(3):
            inputs = [make_input(40, 56, random_labels(40, 56, i), seed=2 * step + i) for i in range(2)]
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = model(inputs)["labels/loss_sem_seg"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return model.state_dict()

    first, second = train(), train()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_auxiliary_head_learns_beside_and_is_left_out_afterwards():
    torch.manual_seed(0)
    backbone = ResNet(18, norm="bn", out_features=["res2", "res3"])
    shapes = backbone.output_shape()
    heads = {
        "labels": HEADS["v3+"](shapes),
        "auxiliary": HEADS["v2"](shapes, in_feature="res2", training_only=True, loss_weight=0.4),
    }
    model = Model(backbone, None, heads)
    inputs = [make_input(24, 40, random_labels(24, 40), seed=seed) for seed in range(2)]
    assert model.train()(inputs).keys() == {"labels/loss_sem_seg", "auxiliary/loss_sem_seg"}
    assert model.eval()(inputs)[0].keys() == {"sem_seg"}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: DeepLabV3Head({}, 3), "DeepLabV3Head needs at least one level"),
        (
            lambda: DeepLabV3Head(SHAPES, 3, in_feature="res4"),
            "in_feature names 'res4', but the features are res2, res3, res5",
        ),
        (lambda: DeepLabV3Head(SHAPES, 0), "at least one class, num_classes is 0"),
        (lambda: DeepLabV3PlusHead(SHAPES, 3, low_level_features=["res1"]), "low_level_features names 'res1'"),
        (lambda: DeepLabV3PlusHead({"res5": SHAPES["res5"]}, 3), r"res5 \(stride 16\) is not finer than res5"),
        (lambda: DeepLabV3PlusHead(SHAPES, 3, low_level_features=[]), "low_level_features is empty"),
        (lambda: DeepLabV3PlusHead(SHAPES, 3, decoder_convs=0), "decoder_convs is 0"),
        (lambda: DeepLabV2Head(SHAPES, 3, rates=[]), r"rates are \[\]"),
    ],
)
def test_wrong_arguments_are_explained(make, says):
    with pytest.raises(ValueError, match=says):
        make()
