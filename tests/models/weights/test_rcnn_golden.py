"""R-CNN in its forms agrees with Detectron2: proposals, boxes, masks, keypoints, losses and gradients.

The numbers and their origin: tests/reference/golden_rcnn.md.
"""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from vertebra.config import load_recipe
from vertebra.models import build_model
from vertebra.models.import_detectron2 import import_detectron2, translate_names
from vertebra.structures import Boxes, Instances, Keypoints, PolygonMasks, clip_to_size, decode_rle

vertebra_rcnn = pytest.importorskip("vertebra_rcnn", reason="the head comes from vertebra-rcnn")
pytestmark = pytest.mark.golden

RECIPES = {
    "faster_fpn": ("rcnn:faster_rcnn_r50_fpn", 80),
    "mask_fpn": ("rcnn:mask_rcnn_r50_fpn", 80),
    "keypoint_fpn": ("rcnn:keypoint_rcnn_r50_fpn", 1),
    "faster_c4": ("rcnn:faster_rcnn_r50_c4", 80),
}
HEAD = "model.heads.objects"
ORDERED = [  # Detectron2's random numbers
    f"{HEAD}.sampler={{name: OrderedSampler, num_samples: 512, positive_fraction: 0.25}}",
    f"{HEAD}.proposals.sampler={{name: OrderedSampler, num_samples: 256, positive_fraction: 0.5}}",
]
ALL = [  # every anchor, every region
    f"{HEAD}.sampler={{name: RandomSampler, num_samples: 65536, positive_fraction: 0.25}}",
    f"{HEAD}.proposals.sampler={{name: RandomSampler, num_samples: 262144, positive_fraction: 0.5}}",
    f"{HEAD}.proposals.post_nms_topk=[200, 1000]",
]


@pytest.fixture(scope="module")
def rcnn(repository, golden_rule):
    """`numbers` (json), `arrays` (npz), and the rule `value` for weights."""
    data = repository / "tests/reference"
    return SimpleNamespace(
        numbers=json.loads((data / "golden_rcnn.json").read_text()),
        arrays=dict(np.load(data / "golden_rcnn.npz")),
        value=golden_rule.value,
    )


def entries(rcnn, name):
    """[name, shape, sum, not trained] of a model's whole state dict."""
    numbers = rcnn.numbers
    found = numbers["models"][name]
    shared = []
    if "state_dict_shared_with" in found:
        other = numbers["models"][found["state_dict_shared_with"]]["state_dict"]
        shared = [entry for entry in other if entry[0] not in found["not_shared"]]
    return shared + found["state_dict"]


def golden_weights(rcnn, name):
    return {key: torch.from_numpy(rcnn.value(key, shape)) for key, shape, *_ in entries(rcnn, name)}


def golden_model(rcnn, name, overrides=()):
    """Our model with the golden weights, and {our name: Detectron2's}."""
    recipe, classes = RECIPES[name]
    model = build_model(load_recipe(recipe, list(overrides)), num_classes=classes, pretrained=False)
    weights = golden_weights(rcnn, name)
    renamed, unused = translate_names(weights, model)
    state = model.state_dict()
    assert not unused and renamed.keys() == state.keys()
    model.load_state_dict({own: weights[given] for own, given in renamed.items()})
    return model, renamed


def training_batch(golden, numbers, classes):
    samples = []
    for letter in "AB":
        truth = numbers["ground_truth"][letter][str(classes)]
        instances = Instances(
            tuple(golden.images[letter].shape[-2:]),
            gt_boxes=Boxes(torch.tensor(truth["boxes"])),
            gt_classes=torch.tensor(truth["classes"]),
            gt_masks=PolygonMasks(truth["polygons"]),
            gt_keypoints=Keypoints(torch.tensor(truth["keypoints"])),
        )
        samples.append({"image": golden.images[letter], "instances": instances})
    return samples


@pytest.mark.parametrize("name", RECIPES)
def test_a_weights_file_imports_whole(rcnn, name, tmp_path):
    weights = golden_weights(rcnn, name)
    for key, _, total, _ in entries(rcnn, name):
        assert weights[key].double().sum().item() == pytest.approx(total, rel=1e-9, abs=1e-9), key
    torch.save({"model": weights, "__author__": "Detectron2"}, tmp_path / "model_final.pth")
    recipe, classes = RECIPES[name]
    report = import_detectron2(tmp_path / "model_final.pth", load_recipe(recipe), tmp_path / "ours.pth")
    assert (report.num_loaded, report.num_classes, report.unused, report.kept) == (len(weights), classes, (), ())


@pytest.mark.parametrize("name", ["mask_fpn", "keypoint_fpn", "faster_c4"])
def test_stages_and_proposals_agree(golden, rcnn, name):
    """To 1e-4 of each stage's greatest absolute value; proposals by their IoU, for equal scores may change places."""
    arrays = rcnn.arrays
    model, _ = golden_model(rcnn, name)
    found = stages(model.eval(), golden.images["A"])
    for key, wanted in arrays.items():
        stage = key.removeprefix(f"{name}/A/")
        if not key.startswith(f"{name}/A/") or "instances" in stage:
            continue
        if "proposal_generator/" in stage:
            if stage.endswith("proposal_boxes"):
                best = box_iou(torch.from_numpy(wanted), found["proposals"]).max(dim=1).values
                assert best.min() > 0.999
            continue
        flat = found[stage].flatten()
        at = torch.arange(len(wanted)) * (len(flat) // len(wanted))
        off = (flat[at] - torch.from_numpy(wanted)).abs()
        if stage.startswith("roi_heads.") and len(found[stage]) == len(found["proposals"]):
            off = torch.minimum(off, _off_in_a_tied_row(found, stage, at, torch.from_numpy(wanted)))
        assert off.max() < 1e-4 * np.abs(wanted).max(), stage


def _off_in_a_tied_row(found, stage, at, wanted):
    """The least difference in the rows of proposals whose logits equal the row's own to rounding: 360 and 361 of
    mask_fpn differ by 3e-6 of their logits, and change places with the order of sums."""
    rows = found[stage].flatten(1)
    logits = found["logits"]
    tied = (logits[at // rows.shape[1], None] - logits).abs() < 1e-5 * logits.abs().max()  # (wanted, rows)
    off = (rows[:, at % rows.shape[1]].t() - wanted[:, None]).abs()
    return off.masked_fill(~tied, torch.inf).min(dim=1).values


@pytest.mark.parametrize("name", RECIPES)
def test_detections_agree(golden, rcnn, name):
    numbers, arrays = rcnn.numbers, rcnn.arrays
    model, _ = golden_model(rcnn, name)
    model.eval()
    for case, size in numbers["models"][name]["results"].items():
        if f"{name}/{case}/instances/scores" not in arrays:
            continue
        wanted = {key: torch.from_numpy(arrays[f"{name}/{case}/instances/{key}"]) for key in ("scores", "pred_boxes")}
        classes = torch.from_numpy(arrays[f"{name}/{case}/instances/pred_classes"])
        sample = {"image": golden.images[case[0]]}
        if case != "A_native":
            sample |= {"height": size[0], "width": size[1]}
        with torch.no_grad():
            found = model([sample])[0]["instances"]
        iou = box_iou(wanted["pred_boxes"], found.pred_boxes.tensor)
        iou[classes[:, None] != found.pred_classes[None]] = 0
        best, match = iou.max(dim=1)
        assert len(found) == len(classes) == len(set(match.tolist()))
        assert best.min() > 0.99
        assert (found.pred_boxes.tensor[match] - wanted["pred_boxes"]).abs().max() < 1e-4 * max(size)
        torch.testing.assert_close(found.scores[match], wanted["scores"], rtol=1e-4, atol=0)
        if f"{name}/{case}/instances/pred_keypoints" in arrays:
            points = torch.from_numpy(arrays[f"{name}/{case}/instances/pred_keypoints"])
            got = found.pred_keypoints[match]
            assert (got[..., :2] - points[..., :2]).abs().max() < 1e-4 * max(size)
            torch.testing.assert_close(got[..., 2], points[..., 2], rtol=1e-3, atol=1e-5)
        if case in numbers["models"][name].get("masks", {}):
            masks = np.stack([decode_rle(rle) for rle in numbers["models"][name]["masks"][case]])
            differing = (found.pred_masks[match].numpy() != masks).sum(axis=(1, 2))
            assert differing.max() <= 3  # pixels whose probability is 0.5 to rounding


@pytest.mark.parametrize("name", RECIPES)
def test_losses_and_gradients_agree_where_nothing_is_drawn(golden, rcnn, name):
    """Losses of two steps to 1e-5 relative; the norm of every gradient of the first to 1e-3.

    On Detectron2's list of proposals, see `DetectronProposals`: one box in 400 that a tie exchanges in the first step
    moves that step's losses by 4e-6, but the weights of the second, and thereby its losses, by 4e-4.
    """
    model, renamed = golden_model(rcnn, name, ALL)
    if name == "keypoint_fpn":
        decide_activations(model.heads["objects"].keypoints, rcnn.arrays, f"{name}/all/0")
    norms = follow(model, golden, rcnn, name, "all", renamed)
    wanted = rcnn.numbers["models"][name]["grad_norms"]
    assert norms.keys() == wanted.keys()
    largest = max(wanted.values())
    assert norms == pytest.approx(wanted, rel=1e-3, abs=1e-6 * largest)


@pytest.mark.parametrize("name", RECIPES)
def test_losses_agree_with_detectron2s_random_numbers(golden, rcnn, name):
    """Losses of two steps to 1e-5 relative, where both draw the same random numbers from the same list of proposals.

    A random number draws a row of that list, see `DetectronProposals`: of another list it draws other regions, and
    Detectron2 itself misses its own losses by 1 %.
    """
    model, renamed = golden_model(rcnn, name, ORDERED)
    follow(model, golden, rcnn, name, "sampled", renamed)


class DetectronProposals:
    """In place of a generator's `proposals`: at each step, those of the anchors that Detectron2 chose, in its order.

    The list is sorted by logits. Where two logits are equal to rounding, the CPU's order of sums decides which comes
    first, and in the NMS which survives. So our model computes the boxes and logits of the anchors that are
    Detectron2's proposals, in its order, and our own list is asserted to differ from that by no more than such ties.
    Matching, sampling, heads, losses and the training step are all ours.
    """

    def __init__(self, generator, arrays, variant):
        self.generator, self.own, self.arrays, self.variant = generator, generator.proposals, arrays, variant
        self.step = 0

    @torch.no_grad()
    def __call__(self, raw, batch):
        index = torch.from_numpy(self.arrays[f"{self.variant}/{self.step}/proposal_anchors"].astype(np.int64))
        self.step += 1
        anchors = torch.cat(self.generator.anchor_generator(raw.logits))  # (R, 4)
        logits = torch.cat([x.permute(0, 2, 3, 1).flatten(1) for x in raw.logits], dim=1)  # (N, R)
        deltas = torch.cat([x.permute(0, 2, 3, 1).reshape(len(x), -1, 4) for x in raw.deltas], dim=1)  # (N, R, 4)
        chosen = deltas.gather(1, index[..., None].expand(-1, -1, 4))  # (N, P, 4)
        boxes = self.generator.regression.coder.apply_deltas(chosen, anchors[index])
        boxes = torch.stack([clip_to_size(one, *size) for one, size in zip(boxes, batch.image_sizes, strict=True)])
        wanted = vertebra_rcnn.Proposals(boxes, logits.gather(1, index), torch.ones_like(index, dtype=torch.bool))
        tie = 1e-5 * logits.abs().max()
        assert wanted.logits.diff(dim=1).max() < tie
        raised = logits.scatter(1, index, wanted.logits + tie)  # decides each tie in favor of Detectron2's proposals
        levels = [x.permute(0, 2, 3, 1) for x in raw.logits]  # (N, H_l, W_l, A)
        parts = raised.split([x[0].numel() for x in levels], dim=1)
        parts = [part.view_as(x).permute(0, 3, 1, 2) for part, x in zip(parts, levels, strict=True)]
        self._assert_same_boxes(self.own(raw._replace(logits=parts), batch), wanted)
        return wanted

    def _assert_same_boxes(self, own, wanted):
        """Each box is in both lists, once."""
        assert own.valid.all() and own.valid.shape == wanted.valid.shape
        assert (own.logits.diff(dim=1) <= 0).all()
        for ours, theirs in zip(own.boxes, wanted.boxes, strict=True):
            best, match = box_iou(theirs, ours).max(dim=1)
            assert best.min() > 0.999
            assert len(match.unique()) == len(ours)


def decide_activations(branch, arrays, variant):
    """In a keypoint branch's first losses, units that are 0 to rounding before the ReLU are on where Detectron2's are.

    A unit that is on passes its gradient. The CPU's order of sums decides about 15 of the ten million in 13 regions,
    and one can hold 1 % of a region's gradient.
    """
    rois, units = (torch.from_numpy(arrays[f"{variant}/keypoint_{key}"]) for key in ("rois", "units"))
    losses = branch.losses

    def decided(seen, regions, batch):
        row = torch.cdist(rois, regions.rois).argmin(dim=1)  # ours of each region of Detectron2
        assert len(row.unique()) == len(regions.rois)
        hooks = [
            getattr(branch, f"conv_fcn{number}").register_forward_hook(nudge(row, units[units[:, 0] == number].long()))
            for number in range(1, branch.num_conv + 1)
        ]
        found = losses(seen, regions, batch)
        for hook in hooks:
            hook.remove()
        branch.losses = losses
        return found

    def nudge(row, units):
        at = (row[units[:, 1]], units[:, 2])
        wanted = torch.where(units[:, 3] == 1, 1e-6, -1e-6)

        def hook(module, inputs, output):
            flat = output.detach().flatten(1)
            assert flat[at].abs().max() < 2e-5 * flat.abs().max()
            change = torch.zeros_like(flat)
            change[at] = wanted - flat[at]
            return output + change.view_as(output)

        return hook

    branch.losses = decided


def follow(model, golden, rcnn, name, variant, renamed):
    """Two training steps, their losses compared; the gradients' norms of the first by Detectron2's names."""
    batch = training_batch(golden, rcnn.numbers, RECIPES[name][1])
    generator = model.heads["objects"].proposals
    generator.proposals = DetectronProposals(generator, rcnn.arrays, f"{name}/{variant}")
    model.train()
    trained = {key: p for key, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD(trained.values(), lr=1e-5, momentum=0.9, weight_decay=1e-4)
    norms = {}
    for step, wanted in enumerate(rcnn.numbers["models"][name]["losses"][variant]):
        torch.manual_seed(1234 + step)
        losses = model(batch)
        assert {key: loss.item() for key, loss in losses.items()} == {
            f"objects/{key}": pytest.approx(value, rel=1e-5) for key, value in wanted["losses"].items()
        }
        if step == 0:
            sum(losses.values()).backward()
            norms = {renamed[key]: p.grad.double().norm().item() for key, p in trained.items()}
            optimizer.step()
            optimizer.zero_grad()
    assert generator.proposals.step == 2
    return norms


@torch.no_grad()
def stages(model, image):
    """The outputs of Detectron2's submodules by its names, of one image without padding, and `proposals`."""
    head = model.heads["objects"]
    batch = model.make_batch([{"image": image}])
    raw = head(model.features(batch.images))
    kept = {f"proposal_generator.rpn_head/0/{i}": x for i, x in enumerate(raw.proposals.logits)}
    kept |= {f"proposal_generator.rpn_head/1/{i}": x for i, x in enumerate(raw.proposals.deltas)}
    proposals = head.proposals.proposals(raw.proposals, batch)
    kept["proposals"], kept["logits"] = proposals.boxes[0], proposals.logits[0]
    rois = torch.cat((torch.zeros(proposals.boxes.shape[1], 1), proposals.boxes[0]), dim=1)
    pooled = head.boxes.pooler(raw.features, rois)
    seen = head.boxes.head(pooled)
    logits, deltas = head.boxes.predictor(seen)
    names = ("box_pooler", "box_head") if seen.dim() == 2 else ("pooler", "res5")
    kept |= {f"roi_heads.{key}": value for key, value in zip(names, (pooled, seen), strict=True)}
    kept |= {"roi_heads.box_predictor/0": logits, "roi_heads.box_predictor/1": deltas}
    boxes = head.detect(raw, batch)[0].pred_boxes.tensor
    rois = torch.cat((torch.zeros(len(boxes), 1), boxes), dim=1)
    if head.masks is not None:
        pooled = head.masks.pooler(raw.features, rois)
        kept["roi_heads.mask_pooler"] = pooled
        kept["roi_heads.mask_head.predictor"] = head.masks.predictor(head.masks.hidden(pooled))
    if head.keypoints is not None:
        kept["roi_heads.keypoint_pooler"] = pooled = head.keypoints.pooler(raw.features, rois)
        for number in range(1, head.keypoints.num_conv + 1):
            pooled = torch.relu(getattr(head.keypoints, f"conv_fcn{number}")(pooled))
        kept["roi_heads.keypoint_head.score_lowres"] = head.keypoints.score_lowres(pooled)
    return kept
