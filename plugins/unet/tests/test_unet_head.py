"""The head: parameters as published, losses and predictions on images of every kind, valid convolutions' margins."""

import pytest
import torch

from vertebra.errors import DataError
from vertebra.models import Model, ShapeSpec
from vertebra.models.losses import CrossEntropy
from vertebra_unet import TransposedConvolution, UNetDecoder, UNetEncoder, UNetHead


def make_model(num_classes=3, num_stages=3, **options):
    """A tiny U-Net; options go to encoder and decoder, `border` to the encoder alone."""
    torch.manual_seed(0)
    border = {"border": options.pop("border")} if "border" in options else {}
    encoder = UNetEncoder(base_width=4, num_stages=num_stages, norm="none", **options, **border)
    decoder = UNetDecoder(encoder.output_shape(), norm="none", **options)
    return Model(encoder, None, {"classes": UNetHead(encoder.output_shape(), num_classes, decoder=decoder)})


def make_input(height, width, labels=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    return {"image": image} | ({} if labels is None else {"sem_seg": labels})


def count(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


def test_parameters_of_the_padded_network_with_3x3_transposed_convolutions():
    """64 to 1024 channels, biases everywhere, no norm, 3 classes: 18,843,200 going down, 15,670,080 going up, 195."""
    encoder = UNetEncoder(base_width=64, norm="none", dropout=0.3)
    shapes = encoder.output_shape()
    decoder = UNetDecoder(shapes, norm="none", upsampling=TransposedConvolution(kernel_size=3), dropout=0.3)
    head = UNetHead(shapes, num_classes=3, decoder=decoder)
    assert (count(encoder), count(decoder), count(head.score)) == (18_843_200, 15_670_080, 195)
    assert count(encoder, head) == 34_513_475


def test_parameters_of_the_papers_network():
    """Figure 1, with biases: 18,842,048 going down from one channel, 12,188,480 going up, 130 for two classes."""
    encoder = UNetEncoder(norm="none", padding="valid")
    head = UNetHead(
        encoder.output_shape(), 2, decoder=UNetDecoder(encoder.output_shape(), norm="none", padding="valid")
    )
    gray_less = 2 * 9 * 64  # the paper's images have one channel
    assert count(encoder, head) - gray_less == 31_030_658


def test_scores_come_at_the_finest_stride_and_predictions_in_the_original_size():
    model = make_model().eval()
    with torch.no_grad():
        found = model([make_input(13, 17) | {"height": 26, "width": 51}, make_input(9, 30)])
    assert [tuple(one["sem_seg"].shape) for one in found] == [(3, 26, 51), (3, 9, 30)]


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3), (33, 18)])
def test_an_image_of_any_size_trains_and_is_predicted(padding, size):
    model = make_model(padding=padding)
    sample = make_input(*size, labels=torch.ones(size, dtype=torch.int64))
    loss = model.train()([sample])["classes/loss_sem_seg"]
    loss.backward()
    assert torch.isfinite(loss)
    with torch.no_grad():
        assert model.eval()([sample])[0]["sem_seg"].shape == (3, *size)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_an_image_that_is_all_ignored_costs_nothing_and_moves_nothing(padding):
    model = make_model(padding=padding)
    nothing = torch.full((12, 20), 255)
    loss = model.train()([make_input(12, 20, nothing)])["classes/loss_sem_seg"]
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_an_ignored_image_leaves_the_others_loss_as_it_is():
    model = make_model().train()
    labels = torch.randint(0, 3, (16, 16))
    alone = model([make_input(16, 16, labels)])["classes/loss_sem_seg"]
    beside = model([make_input(16, 16, labels), make_input(16, 16, torch.full((16, 16), 255), seed=1)])
    torch.testing.assert_close(beside["classes/loss_sem_seg"], alone)


def test_a_label_outside_the_classes_is_refused():
    model = make_model().train()
    labels = torch.zeros(16, 16, dtype=torch.int64)
    labels[3, 4] = 3
    with pytest.raises(DataError, match="1 pixels have the label 3; labels must be class ids 0 to 2 or 255"):
        model([make_input(16, 16, labels)])


def test_training_without_labels_says_what_is_missing():
    with pytest.raises(DataError, match="no input of the batch has `sem_seg`"):
        make_model().train()([make_input(16, 16)])


def test_padding_of_a_batch_does_not_count():
    """Beside a larger image, a small one is padded; its padded pixels have no label."""
    model = make_model().train()
    batch = model.make_batch(
        [make_input(8, 8, torch.zeros(8, 8).long()), make_input(32, 32, torch.full((32, 32), 255), seed=1)]
    )
    scores = torch.randn(2, 3, 32, 32)
    found = model.heads["classes"].losses(scores, batch)["loss_sem_seg"]
    torch.testing.assert_close(found, CrossEntropy()(scores[:1, :, :8, :8], torch.zeros(1, 8, 8, dtype=torch.int64)))


def test_mirrored_borders_give_every_pixel_a_score_of_its_own():
    """What the network says of a pixel far from the border is what it says of it within a larger image."""
    model = make_model(padding="valid", num_stages=3).eval()
    margin = model.heads["classes"].margin
    sample = make_input(64, 72)
    with torch.no_grad():
        whole = model([sample])[0]["sem_seg"]
        part = model([{"image": sample["image"][:, 8:, 8:]}])[0]["sem_seg"]  # shifted by a multiple of the pooling
    inner = (slice(None), slice(margin, None), slice(margin, None))
    torch.testing.assert_close(part[inner], whole[:, 8:, 8:][inner], atol=1e-5, rtol=1e-5)


def test_without_mirroring_the_middle_has_the_same_scores_and_the_margin_repeats_them():
    mirrored, kept = (make_model(padding="valid", num_stages=3, border=border).eval() for border in ("mirror", "keep"))
    kept.load_state_dict(mirrored.state_dict())
    margin = kept.heads["classes"].margin
    assert margin == 2 * (7 + 3)
    side = 2 * margin + 24  # halves evenly
    sample = make_input(side, side)
    with torch.no_grad():
        scores = kept([sample])[0]["sem_seg"]
        middle = kept.heads["classes"](kept.features(kept.make_batch([sample]).images))
        tile = mirrored([sample])[0]["sem_seg"]
    inside = slice(margin, side - margin)
    assert middle.shape[-2:] == (24, 24)
    torch.testing.assert_close(scores[:, inside, inside], middle[0])
    torch.testing.assert_close(scores[:, 0, inside], scores[:, margin, inside])
    torch.testing.assert_close(scores[:, inside, -1], scores[:, inside, side - margin - 1])
    shift = margin % 4  # the mirrored network's pooling grid lies at the image's margin
    if shift == 0:
        torch.testing.assert_close(tile[:, inside, inside], middle[0], atol=1e-5, rtol=1e-5)


def test_without_mirroring_labels_in_the_margin_do_not_count():
    model = make_model(padding="valid", num_stages=3, border="keep").train()
    margin, side = 20, 64
    labels = torch.randint(0, 3, (side, side))
    other = torch.full_like(labels, 1)
    other[margin:-margin, margin:-margin] = labels[margin:-margin, margin:-margin]
    losses = [model([make_input(side, side, one)])["classes/loss_sem_seg"] for one in (labels, other)]
    torch.testing.assert_close(*losses)


def test_an_image_within_the_margin_says_what_to_do():
    model = make_model(padding="valid", num_stages=3, border="keep").eval()
    with pytest.raises(DataError, match=r"no pixel with a score.*\n.*border: mirror"):
        model([make_input(20, 64)])


def test_any_neck_may_be_the_decoder():
    from vertebra.models.necks.fpn import FPN

    shapes = {"a": ShapeSpec(8, 4), "b": ShapeSpec(16, 8)}
    head = UNetHead(shapes, 4, decoder=FPN(shapes, out_channels=8))
    assert head({"a": torch.randn(1, 8, 8, 6), "b": torch.randn(1, 16, 4, 3)}).shape == (1, 4, 8, 6)


def test_two_trainings_of_one_seed_are_bit_equal():
    def train():
        model = make_model(dropout=0.2).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for step in range(4):
            labels = torch.randint(0, 3, (24, 20), generator=torch.Generator().manual_seed(step))
            loss = model([make_input(24, 20, labels, seed=step)])["classes/loss_sem_seg"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return model.state_dict()

    first, second = train(), train()
    start = make_model(dropout=0.2).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(torch.equal(first[name], start[name]) for name in first)


def test_no_classes_is_an_error():
    with pytest.raises(ValueError, match="at least one class"):
        UNetHead({"a": ShapeSpec(8, 1), "b": ShapeSpec(8, 2)}, 0)


def test_overlapping_tiles_equal_one_pass_over_the_whole_mirrored_image():
    """Tiles of 64 pixels of which the middle 24 count, against the network that mirrors the image by itself.

    24 and the image's sides are multiples of the coarsest stride, so that the pooling cells of all tiles lie alike.
    """
    from vertebra.models.inference import SlidingWindow

    mirrored, kept = (make_model(padding="valid", num_stages=3, border=border).eval() for border in ("mirror", "keep"))
    kept.load_state_dict(mirrored.state_dict())
    sample = make_input(72, 48)
    tiles = SlidingWindow(64, margin=20, borders="mirror", overlap=0.0, batch_size=4)
    with torch.no_grad():
        whole = mirrored([sample])[0]["sem_seg"]
        tiled = tiles(kept, [sample])[0]["sem_seg"]
    assert whole.std() > 1e-3
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=1e-4)
