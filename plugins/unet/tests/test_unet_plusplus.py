"""U-Net++: the nested grid, deep supervision, pruning."""

import pytest
import torch

from vertebra.models import Model, ShapeSpec
from vertebra_unet import UNetEncoder, UNetPlusPlusDecoder, UNetPlusPlusHead

SHAPES = {f"l{i}": ShapeSpec(channels=4 * 2**i, stride=2**i) for i in range(4)}


def features(height=16, width=24):
    torch.manual_seed(1)
    return {name: torch.randn(2, s.channels, height // s.stride, width // s.stride) for name, s in SHAPES.items()}


def make_head(num_classes=3, **options):
    torch.manual_seed(0)
    return UNetPlusPlusHead(SHAPES, num_classes, **options)


def test_nodes_and_the_channels_they_join_are_the_papers():
    """Node X^{i,j} sees j maps of its own row and one from below: figure 1 for three doublings."""
    decoder = UNetPlusPlusDecoder(SHAPES, widths=[5, 6, 7])
    assert sorted(decoder.nodes) == ["0_1", "0_2", "0_3", "1_1", "1_2", "2_1"]
    joined = {name: node.convs[0].in_channels for name, node in decoder.nodes.items()}
    assert joined == {
        "0_1": 4 + 8,
        "1_1": 8 + 16,
        "2_1": 16 + 32,
        "0_2": 4 + 5 + 6,
        "1_2": 8 + 6 + 7,
        "0_3": 4 + 5 + 5 + 6,
    }


def test_all_maps_have_the_finest_size():
    maps = UNetPlusPlusDecoder(SHAPES)(features())
    assert {name: tuple(x.shape) for name, x in maps.items()} == {f"x{j}": (2, 4, 16, 24) for j in (1, 2, 3)}


def test_a_pruned_network_gives_the_same_maps_and_computes_fewer_nodes():
    decoder = UNetPlusPlusDecoder(SHAPES).eval()
    called = []
    for name, node in decoder.nodes.items():
        node.register_forward_hook(lambda *_, name=name: called.append(name))
    with torch.no_grad():
        whole = decoder(features())
        called.clear()
        pruned = decoder(features(), depth=2)
    assert sorted(called) == ["0_1", "0_2", "1_1"]
    for name in ("x1", "x2"):
        torch.testing.assert_close(pruned[name], whole[name])


def test_without_deep_supervision_the_last_map_alone_is_scored():
    assert list(make_head(deep_supervision=False)(features())) == ["x3"]


def test_the_prediction_is_the_mean_of_the_maps_probabilities():
    head = make_head().eval()
    model = Model(UNetEncoder(base_width=4, num_stages=4), None, {"classes": head})
    batch = model.make_batch([{"image": torch.zeros(3, 16, 24, dtype=torch.uint8)}])
    raw = {name: torch.randn(1, 3, 16, 24) for name in ("x1", "x2", "x3")}
    scores = head.predict(raw, batch)[0]["sem_seg"]
    wanted = torch.stack([x.softmax(dim=1) for x in raw.values()]).mean(dim=0)[0]
    torch.testing.assert_close(scores.softmax(dim=0), wanted)
    torch.testing.assert_close(scores.exp().sum(dim=0), torch.ones(16, 24))


def test_pruning_changes_predictions_and_not_training():
    head = make_head(prune_to=1)
    assert list(head.train()(features())) == ["x1", "x2", "x3"]
    assert list(head.eval()(features())) == ["x1"]


def test_the_loss_is_the_mean_over_the_maps():
    head = make_head(loss_weight=2.0)
    model = Model(UNetEncoder(base_width=4, num_stages=4), None, {"classes": head})
    inputs = [{"image": torch.zeros(3, 16, 24, dtype=torch.uint8), "sem_seg": torch.zeros(16, 24).long()}]
    raw = {name: torch.zeros(1, 3, 16, 24) for name in ("x1", "x2", "x3")}
    losses = head.losses(raw, model.make_batch(inputs))
    assert sorted(losses) == ["loss_sem_seg_x1", "loss_sem_seg_x2", "loss_sem_seg_x3"]
    assert sum(losses.values()).item() == pytest.approx(2 * torch.log(torch.tensor(3.0)).item())


def test_every_map_learns():
    encoder = UNetEncoder(base_width=4, num_stages=4)
    head = UNetPlusPlusHead(encoder.output_shape(), 3)
    model = Model(encoder, None, {"classes": head}).train()
    losses = model([{"image": torch.zeros(3, 16, 24, dtype=torch.uint8), "sem_seg": torch.zeros(16, 24).long()}])
    losses["classes/loss_sem_seg_x1"].backward()
    assert head.scores["x1"].weight.grad is not None
    assert head.scores["x3"].weight.grad is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"prune_to": 4}, "prune_to is 4; it must be 1 to 3"),
        ({"prune_to": 1, "deep_supervision": False}, "needs deep_supervision"),
        ({"num_classes": 0}, "at least one class"),
    ],
)
def test_a_wrong_head_argument_is_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        make_head(**arguments)


@pytest.mark.parametrize(
    ("shapes", "arguments", "words"),
    [
        ({"a": ShapeSpec(8, 1)}, {}, "two features or more"),
        ({"a": ShapeSpec(8, 1), "b": ShapeSpec(8, 4)}, {}, "half the stride of the next; the strides are 1, 4"),
        (SHAPES, {"depth": 4}, "depth is 4; with 4 features it must be 1 to 3"),
        (SHAPES, {"widths": [1]}, "must be 3 numbers"),
    ],
)
def test_a_wrong_decoder_argument_is_named(shapes, arguments, words):
    with pytest.raises(ValueError, match=words):
        UNetPlusPlusDecoder(shapes, **arguments)
