"""The paper's head and the two light ones: parameters, layers by hand, sizes."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vertebra.errors import CheckpointError
from vertebra.models import Batch, ShapeSpec
from vertebra.models.backbones.vgg import VGG
from vertebra.models.weights import load_weights
from vertebra_fcn import FCNConvHead, FCNHead, FCNLightHead, FCNSumHead
from vertebra_fcn.scores import WideConv2d

SHAPES = {"pool3": ShapeSpec(4, 8), "pool4": ShapeSpec(6, 16), "pool5": ShapeSpec(8, 32)}


def features(height=64, width=96, images=2, names=tuple(SHAPES), shapes=SHAPES):
    torch.manual_seed(1)
    return {
        name: torch.randn(
            images, shapes[name].channels, -(-height // shapes[name].stride), -(-width // shapes[name].stride)
        )
        for name in names
    }


def make_batch(height, width, original=None, images=2):
    return Batch(
        images=torch.zeros(images, 3, height, width),
        image_sizes=[(height, width)] * images,
        original_sizes=[original or (height, width)] * images,
        inputs=[{}] * images,
        sem_seg=torch.randint(0, 3, (images, height, width)),
    )


def small(names=tuple(SHAPES), num_classes=3, **arguments):
    return FCNHead({name: SHAPES[name] for name in names}, num_classes, fc_channels=arguments.pop("fc", 5), **arguments)


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(scope="module")
def vgg16():
    with torch.device("meta"):  # shapes alone
        return VGG(16, out_features=["pool3", "pool4", "pool5"])


@pytest.mark.parametrize(("head", "classes", "wanted"), [(FCNLightHead, 12, 14_833_776), (FCNSumHead, 2, 134_393_428)])
def test_light_decoders_on_vgg16_have_their_known_number_of_parameters(vgg16, head, classes, wanted):
    with torch.device("meta"):
        assert count(vgg16) + count(head(vgg16.output_shape(), classes)) == wanted


def test_only_the_first_transposed_convolution_of_the_light_decoder_has_no_bias():
    """The count of parameters cannot tell: each bias has K numbers, whichever layer it is in."""
    names = {name for name, _ in FCNLightHead(SHAPES, 3).named_parameters() if name.endswith("bias")}
    assert names == {"score_middle.bias", "upscore_middle.bias", "score_fine.bias", "upscore_fine.bias"}


def test_weights_of_the_light_decoder_with_other_biases_are_refused_by_name():
    head = FCNLightHead(SHAPES, 3)
    state = head.state_dict() | {"upscore_coarse.bias": torch.zeros(3)}
    del state["upscore_fine.bias"]
    with pytest.raises(CheckpointError, match=r"(?s)(?=.*upscore_fine\.bias)(?=.*upscore_coarse\.bias)"):
        load_weights(head, state)


def test_an_untrained_light_decoder_adds_no_offset():
    """Every bias starts at 0: nothing in the features gives nothing in the scores."""
    head = FCNLightHead(SHAPES, 3)
    zeros = {name: torch.zeros_like(x) for name, x in features().items()}
    assert not head(zeros).any()
    with torch.no_grad():
        head.upscore_fine.bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
    assert torch.equal(head(zeros)[0, :, 5, 7], torch.tensor([1.0, 2.0, 3.0]))


def test_the_papers_net_is_vgg16_without_its_last_layer_plus_scores_and_upsampling(vgg16):
    """138,357,544 parameters of VGG-16, less 4,097,000 of its last layer; scores; kernels without bias."""
    shapes = vgg16.output_shape()
    vgg = 138_357_544 - 4_097_000
    fr = 4097 * 21
    with torch.device("meta"):
        nets = [
            FCNHead({k: shapes[k] for k in names}, 21, fc_channels=4096)
            for names in (["pool5"], ["pool4", "pool5"], ["pool3", "pool4", "pool5"])
        ]
    counts = [count(vgg16) + count(net) for net in nets]
    assert counts == [
        vgg + fr + 21 * 21 * 64 * 64,
        vgg + fr + 513 * 21 + 21 * 21 * (4 * 4 + 32 * 32),
        vgg + fr + 513 * 21 + 257 * 21 + 21 * 21 * (4 * 4 + 4 * 4 + 16 * 16),
    ]


@pytest.mark.parametrize(
    ("names", "layers"),
    [
        (["pool5"], ["score_fr", "upscore32"]),
        (["pool4", "pool5"], ["score_fr", "score_pool4", "upscore16", "upscore2"]),
        (list(SHAPES), ["score_fr", "score_pool3", "score_pool4", "upscore2", "upscore8", "upscore_pool4"]),
    ],
)
def test_levels_decide_which_net_it_is_and_layers_have_the_papers_names(names, layers):
    head = small(names)
    assert sorted(name for name, _ in head.named_children() if "score" in name) == layers
    assert head(features(names=names)).shape == (2, 3, 64, 96)


@pytest.mark.parametrize("make", [small, lambda: FCNHead(SHAPES, 3)])
def test_an_untrained_net_finds_every_class_equally_likely(make):
    scores = make()(features())
    torch.testing.assert_close(scores.softmax(dim=1), torch.full((2, 3, 64, 96), 1 / 3))


def test_fcn8s_adds_up_scores_worked_by_hand():
    """Weights that pass channel 0 on: inside the map, bilinear upsampling of constants is the constant."""
    head = FCNHead(SHAPES, 2, skip_scale=[0.5, 0.25])
    with torch.no_grad():
        for conv in (head.score_fr, head.score_pool4, head.score_pool3):
            conv.weight[0, 0] = 1
            conv.bias[1] = 10
    maps = {
        name: torch.full_like(x, value) for (name, x), value in zip(features(128, 128).items(), (3, 5, 7), strict=True)
    }
    scores = head(maps)[0, :, 48:80, 48:80]
    torch.testing.assert_close(scores[0], torch.full((32, 32), 7 + 0.5 * 5 + 0.25 * 3))
    torch.testing.assert_close(scores[1], torch.full((32, 32), 30.0))


def test_upsampling_starts_bilinear_and_the_last_may_stay_so():
    head = small(["pool5"], fc=0, learned_upsampling=False)
    nn.init.normal_(head.score_fr.weight)
    x = features(names=["pool5"])
    scores, coarse = head(x), head.score_fr(x["pool5"])
    wanted = F.interpolate(coarse, scale_factor=32, mode="bilinear", align_corners=False)
    torch.testing.assert_close(scores[..., 16:-16, 16:-16], wanted[..., 16:-16, 16:-16])
    assert not head.upscore32.weight.requires_grad
    assert small(learned_upsampling=False).upscore2.weight.requires_grad


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 65), (63, 95), (64, 96)])
@pytest.mark.parametrize(
    "head", [small(), FCNLightHead(SHAPES, 3), FCNSumHead(SHAPES, 3, conv_channels=5)], ids=lambda h: type(h).__name__
)
def test_any_size_gives_scores_for_each_of_its_pixels(head, size):
    raw = head.eval()(features(*size))
    assert raw.shape[2] >= size[0]
    assert raw.shape[3] >= size[1]
    batch = make_batch(*size, original=(7, 11))
    assert all(one["sem_seg"].shape == (3, 7, 11) for one in head.predict(raw, batch))
    assert torch.isfinite(head.losses(raw, batch)["loss_sem_seg"])
    assert head.export_raw(raw, size)["sem_seg_scores"].shape == (2, 3, *size)
    labels = head.export_predictions(raw, size)["sem_seg"]
    assert torch.equal(labels, raw[..., : size[0], : size[1]].argmax(1))


@pytest.mark.parametrize("size", [(1, 1), (2, 8), (8, 2), (3, 4), (9, 7)])
def test_a_wide_convolution_leaves_out_only_what_meets_nothing(size):
    conv = WideConv2d(8, 3, 7)
    x = torch.randn(2, 8, *size, requires_grad=True)
    wanted = F.conv2d(x, conv.weight, conv.bias, padding=3)
    torch.testing.assert_close(conv(x), wanted, rtol=1e-4, atol=1e-5)
    weights = [torch.autograd.grad(y.square().sum(), conv.weight)[0] for y in (conv(x), wanted)]
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (2, 8), (2, 3)])
def test_bf16_gradients_of_a_wide_convolution_on_few_rows(size):
    """Over one or two rows torch leaves parts of a 7x7 kernel's gradient unwritten."""
    torch.manual_seed(0)
    conv = WideConv2d(64, 32, 7)
    for _ in range(5):
        x, grad = torch.randn(2, 64, *size), torch.randn(2, 32, *size).bfloat16()
        wanted = torch.nn.grad.conv2d_weight(x, conv.weight.shape, grad.float(), padding=3)
        filler = [torch.full((length,), float("nan")) for length in (10_000, 100_000, 1_000_000)]
        del filler
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = conv(x)
        (found,) = torch.autograd.grad(y, conv.weight, grad)
        torch.testing.assert_close(found, wanted, rtol=0.05, atol=0.05 * wanted.abs().max().item())


def save_classifier(path, channels=8, hidden=5, cells=49):
    torch.manual_seed(2)
    first, second = nn.Linear(channels * cells, hidden), nn.Linear(hidden, hidden)
    state = {"classifier.0.weight": first.weight, "classifier.0.bias": first.bias}
    state |= {"classifier.3.weight": second.weight, "classifier.3.bias": second.bias}
    torch.save(state, path)
    return lambda x: second(first(x.flatten(1)).relu())


def test_a_classifier_becomes_convolutions(tmp_path):
    """On a map of 7 x 7 cells the middle cell sees what the linear layers see."""
    classifier = save_classifier(tmp_path / "vgg.pth")
    head = small(weights=str(tmp_path / "vgg.pth"))
    pool5 = torch.randn(2, 8, 7, 7)
    torch.testing.assert_close(head.fc7(head.fc6(pool5).relu())[:, :, 3, 3], classifier(pool5), rtol=1e-4, atol=1e-5)


def test_a_classifier_that_does_not_fit_is_named(tmp_path):
    save_classifier(tmp_path / "vgg.pth", cells=36)
    with pytest.raises(CheckpointError, match=r"classifier\.0 must have \(5, 8, 7, 7\) weights"):
        small(weights=str(tmp_path / "vgg.pth"))
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="no such layer"):
        small(weights=str(tmp_path / "other.pth"))
    with pytest.raises(ValueError, match="fc_channels is 0"):
        small(fc=0, weights=str(tmp_path / "vgg.pth"))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FCNHead({}, 3), "at least one level"),
        (lambda: FCNHead(SHAPES, 0), "at least one class"),
        (lambda: FCNHead(SHAPES, 3, skip_scale=[1.0]), "1 factors in skip_scale for 2 levels"),
        (lambda: FCNHead({"a": ShapeSpec(4, 8), "b": ShapeSpec(4, 12)}, 3), "must each be a multiple"),
        (lambda: FCNHead({"a": ShapeSpec(4, 8), "b": ShapeSpec(4, 8)}, 3), "must each be a multiple"),
        (lambda: FCNLightHead({"a": ShapeSpec(4, 8)}, 3), "needs three levels.*got a$"),
        (lambda: FCNSumHead({}, 3), "needs at least one level"),
        (
            lambda: FCNConvHead(SHAPES, 3, in_feature="res4"),
            "in_feature names 'res4', but the features are pool3, pool4, pool5",
        ),
    ],
)
def test_wrong_arguments_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
