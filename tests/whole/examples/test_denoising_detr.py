"""docs/examples/denoising_detr.py: matching, denoising queries, sizes without padding, the whole path."""

import itertools

import pytest
import torch
from whole_path import EXAMPLES, code_lines, predicted, trained

from vertebra import PARTS, Batch, ShapeSpec, load_recipe
from vertebra.testing import HeadConformance

pytestmark = pytest.mark.usefixtures("clean_slate_per_file")
RECIPE = str(EXAMPLES / "denoising_detr.yaml")
SMALL = (
    "model.heads.boxes.width=32",
    "model.heads.boxes.num_heads=2",
    "model.heads.boxes.encoder_layers=1",
    "model.heads.boxes.decoder_layers=2",
    "model.heads.boxes.num_queries=12",
    "model.heads.boxes.denoising.num_groups=2",
)


class TestDenoisingDETRHead(HeadConformance):
    component = "DenoisingDETRHead"
    recipe = RECIPE
    overrides = (*SMALL, "train.schedule.warmup_steps=0")
    # Queries need a wider transformer to learn eight images in few steps.
    overfit_overrides = ("model.heads.boxes.width=128", "model.heads.boxes.num_heads=8")
    overfit_lr = 5e-4
    overfit_steps = 400


@pytest.fixture
def head():
    torch.manual_seed(0)
    spec = load_recipe(RECIPE, SMALL).model.heads["boxes"]
    return spec.build(input_shape={"res4": ShapeSpec(channels=8, stride=16)}, num_classes=3)


def make_batch(boxes, classes, valid, sizes=((64, 96), (64, 96))) -> Batch:
    truth = {"gt_boxes": torch.tensor(boxes), "gt_classes": torch.tensor(classes), "gt_valid": torch.tensor(valid)}
    padded = [max(side) for side in zip(*sizes, strict=True)]
    return Batch(torch.zeros(len(sizes), 3, *padded), list(sizes), list(sizes), [{}] * len(sizes), **truth)


@pytest.fixture
def batch():
    """Two objects in the first image, one in the second."""
    boxes = [[[0.0, 0, 48, 32], [48, 32, 96, 64]], [[24, 16, 72, 48], [0, 0, 0, 0]]]
    return make_batch(boxes, [[0, 2], [1, 0]], [[True, True], [True, False]])


def test_it_is_one_file():
    assert code_lines(EXAMPLES / "denoising_detr.py") <= 250


def test_matching_is_the_cheapest_assignment_of_all(head, batch):
    """Against all permutations, with costs by the formulas: focal, L1 and GIoU of one pair at a time."""
    raw = head(features_of(2), batch.padding_mask, batch)
    truth = batch.ground_truth("test")
    raw = raw._replace(logits=torch.randn(2, 2, 4, 3), boxes=torch.randn(2, 2, 4, 4))
    match = head.match(raw, truth)
    assert match.shape == (2, 2, 2) and match[:, 1, 1].tolist() == [-1, -1]

    def cost(layer, image, query, row):
        x, y, w, h = raw.boxes[layer, image, query].sigmoid().tolist()
        x0, y0, x1, y1 = (truth.boxes[image, row] / torch.tensor([96.0, 64, 96, 64])).tolist()
        p = raw.logits[layer, image, query, truth.classes[image, row]].sigmoid()
        focal = -0.25 * (1 - p) ** 2 * p.log() + 0.75 * p**2 * (1 - p).log()
        l1 = abs(x - (x0 + x1) / 2) + abs(y - (y0 + y1) / 2) + abs(w - (x1 - x0)) + abs(h - (y1 - y0))
        left, top, right, bottom = x - w / 2, y - h / 2, x + w / 2, y + h / 2
        inner = max(min(right, x1) - max(left, x0), 0) * max(min(bottom, y1) - max(top, y0), 0)
        union = w * h + (x1 - x0) * (y1 - y0) - inner
        outer = (max(right, x1) - min(left, x0)) * (max(bottom, y1) - min(top, y0))
        return 2 * float(focal) + 5 * l1 + 2 * (1 - inner / union + (outer - union) / outer)

    for layer in range(2):
        best = min(itertools.permutations(range(4), 2), key=lambda q: cost(layer, 0, q[0], 0) + cost(layer, 0, q[1], 1))
        assert match[layer, 0].tolist() == list(best)
        assert match[layer, 1, 0] == min(range(4), key=lambda q: cost(layer, 1, q, 0))


def test_with_more_objects_than_queries_the_rest_is_not_matched(head):
    boxes = [[[0.0, 0, 10, 10], [20, 20, 40, 40], [50, 30, 90, 60]]]
    batch = make_batch(boxes, [[0, 1, 2]], [[True, True, True]], sizes=((64, 96),))
    raw = head(features_of(1), batch.padding_mask, batch)
    match = head.match(raw._replace(logits=raw.logits[:, :, :2], boxes=raw.boxes[:, :, :2]), batch.ground_truth("test"))
    assert all(sorted(one) == [-1, 0, 1] for one in match[:, 0].tolist())


def test_right_predictions_cost_next_to_nothing(head, batch):
    raw = head(features_of(2), batch.padding_mask, batch)
    wanted = torch.tensor(
        [[[0.25, 0.25, 0.5, 0.5], [0.75, 0.75, 0.5, 0.5]], [[0.5, 0.5, 0.5, 0.5], [0.1, 0.1, 0.1, 0.1]]]
    )
    sure = torch.nn.functional.one_hot(batch.gt_classes, 3) * 40.0 - 20  # (N, M, K)
    sure = sure.where(batch.gt_valid[..., None], -20.0)
    raw = raw._replace(
        logits=sure.expand(2, -1, -1, -1),
        boxes=wanted.logit().expand(2, -1, -1, -1),
        denoised_logits=sure[:, :, None].expand(2, -1, -1, 2, -1),
        denoised_boxes=wanted[:, :, None].logit().expand(2, -1, -1, 2, -1),
    )
    losses = head.losses(raw, batch)
    assert len(losses) == 6 and all(0 <= loss < 1e-4 for loss in losses.values())


def test_noise_keeps_centers_inside_and_redraws_a_share_of_the_labels():
    load_recipe(RECIPE)
    denoising = PARTS.get("Denoising")(num_classes=4, num_groups=2000, box_noise=0.4, label_noise=0.2)
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.4], [0.3, 0.6, 0.1, 0.1]]])
    noised, labels = denoising.noised(boxes, torch.tensor([[1, 3]]))
    noised, labels = noised.view(2, 2000, 4), labels.view(2, 2000)  # the copies of an object are adjacent
    moved = (noised - boxes[0][:, None]).abs() / boxes[0][:, None, [2, 3, 2, 3]]
    assert moved.amax(dim=1) == pytest.approx(torch.tensor([[0.2, 0.2, 0.4, 0.4]] * 2), abs=0.01)
    changed = (labels != torch.tensor([[1], [3]])).float().mean(dim=1)
    assert changed == pytest.approx(torch.tensor([0.15, 0.15]), abs=0.03)  # of 20 % drawn anew a quarter is as before


def test_the_attention_mask_by_hand():
    """Matching queries, then objects a and b in groups 0 and 1: a0, a1, b0, b1; in the second image b is padding."""
    load_recipe(RECIPE)
    mask = PARTS.get("Denoising")(num_classes=3, num_groups=2).attention_mask(
        2, torch.tensor([[True, True], [True, False]])
    )
    both, one = mask[:, 0].int().tolist()
    assert both == [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 1, 0],
        [1, 1, 0, 1, 0, 1],
        [1, 1, 1, 0, 1, 0],
        [1, 1, 0, 1, 0, 1],
    ]
    assert one[:4] == [[1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0], [1, 1, 0, 1, 0, 0]]


def test_ground_truth_does_not_leak_into_the_matching_queries(head, batch):
    """They predict the same with and without denoising queries, and the same in training and evaluation."""
    features, mask = features_of(2), batch.padding_mask
    with_truth = head.train()(features, mask, batch)
    without = head.eval()(features, mask, batch)
    assert without.denoised_logits is None
    assert with_truth.denoised_logits.shape == (2, 2, 2, 2, 3)  # L, N, M, G, K
    torch.testing.assert_close(with_truth.logits, without.logits)
    torch.testing.assert_close(with_truth.boxes, without.boxes)


def test_padding_changes_nothing(head):
    """An image beside a larger one: boxes are fractions of its own size, and cells of padding are not looked at."""
    head.eval()
    features = torch.randn(1, 8, 3, 4)
    alone = head({"res4": features}, torch.zeros(1, 48, 64, dtype=torch.bool))
    wide = torch.randn(1, 8, 5, 7)
    wide[..., :3, :4] = features
    mask = torch.ones(1, 80, 112, dtype=torch.bool)
    mask[:, :48, :64] = False
    padded = head({"res4": wide}, mask)
    assert padded.sizes.tolist() == [[64, 48, 64, 48]]
    torch.testing.assert_close(padded.logits, alone.logits)
    torch.testing.assert_close(padded.boxes, alone.boxes)


def test_predictions_are_the_best_pairs_without_suppression(head):
    raw = head.eval()(features_of(1), torch.zeros(1, 64, 96, dtype=torch.bool))
    logits = torch.full((1, 1, 3, 3), -9.0)
    logits[0, 0, 0, 1], logits[0, 0, 1, 1], logits[0, 0, 2, 0] = 2.0, 1.0, 3.0
    boxes = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5], [0.25, 0.5, 0.5, 1.0]]).logit(eps=1e-6)
    raw = raw._replace(logits=logits, boxes=boxes[None, None])
    found = head.export_predictions(raw, (64, 96))
    assert found["classes"][0, :3].tolist() == [0, 1, 1] and not found["scores"][0, 3:].any()
    expected = torch.tensor([[0.0, 0, 48, 64], [24, 16, 72, 48], [24, 16, 72, 48]])  # equal boxes: both stay
    torch.testing.assert_close(found["boxes"][0, :3], expected, atol=1e-3, rtol=0)


@pytest.mark.e2e
def test_its_whole_path(tmp_path, monkeypatch):
    monkeypatch.setenv("VERTEBRA_CACHE", str(tmp_path / "cache"))
    settings = [f"data.{split}.size=64" for split in ("train", "val")]
    settings += [
        "train.channels_last=false"
    ]  # bf16 rounds otherwise in the other layout; the metrics are compared exactly
    metrics = trained("denoising_detr", tmp_path, *SMALL, "train.schedule.warmup_steps=0", *settings)
    assert {"bbox/AP", "bbox/AP50"} <= metrics.keys()
    image = load_recipe(tmp_path / "run/recipe.yaml").data.val.build().load()[0]["file_name"]
    written = predicted(tmp_path, [image])
    assert any(path.suffix == ".png" for path in written.files)


def features_of(count: int) -> dict[str, torch.Tensor]:
    """For images of 64 x 96 pixels."""
    return {"res4": torch.randn(count, 8, 4, 6)}
