"""Denoising DETR in one file: set prediction from 4D anchors, trained with noised ground truth beside the queries.

Sources: Li et al., "DN-DETR: Accelerate DETR Training by Introducing Query DeNoising", arXiv:2203.01305; Liu et al.,
"DAB-DETR: Dynamic Anchor Boxes are Better Queries for DETR", arXiv:2201.12329; Carion et al., "End-to-End Object
Detection with Transformers" (DETR), arXiv:2005.12872.

Each query is a box, the anchor, that every decoder layer moves toward an object. Hungarian matching decides which query
learns which object; it changes from step to step, which makes DETR slow to train. Denoising queries know their object:
they start at its box and class with noise added, and learn to undo the noise. They exist in training only.

    vertebra train docs/examples/denoising_detr.yaml -o runs/denoising_detr
    vertebra predict runs/denoising_detr/recipe.yaml IMAGE -w runs/denoising_detr/final.pth

Boxes inside the head are center x, center y, width, height as fractions of the image *without* its padding, as in DETR,
and so are the positions of the cells. What is found in an image then does not depend on the images beside it in the
batch. The size without padding is read from the padding mask, which an exported graph has too.

Letters: N images, K classes, D channels of the transformer, R cells, L decoder layers, Q queries, M ground-truth boxes
in the fullest image, G denoising groups, P ground-truth boxes in all, T = Q + M * G decoder queries in training.
"""

import math
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F

from vertebra import HEADS, PARTS, Batch, ShapeSpec
from vertebra.detection import Candidates, rescale_instances, top_values
from vertebra.models import ClassRows, GroundTruth, Head, finest_first
from vertebra.models.losses import GIoULoss, SigmoidFocalLoss
from vertebra.structures import Boxes, Instances

__all__ = ["Denoising", "DenoisingDETRHead"]

CLS_WEIGHT, L1_WEIGHT, GIOU_WEIGHT = 2.0, 5.0, 2.0  # of the losses, and of the matching cost
# Periods of the sine encoding over the image, from fine to coarse. The ratio of 20 is DAB-DETR's temperature, but the
# papers begin at 1 period: finer ones tell neighboring cells apart from the start, which a short training needs.
MOST_PERIODS, LEAST_PERIODS = 4.0, 0.2


class DETRRaw(NamedTuple):
    """All decoder layers, first to last. Boxes are before the sigmoid, cxcywh."""

    logits: Tensor  # (L, N, Q, K) class scores before the sigmoid
    boxes: Tensor  # (L, N, Q, 4)
    sizes: Tensor  # (N, 4) width, height, width, height of each image without padding, in input pixels
    denoised_logits: Tensor | None = None  # (L, N, M, G, K), in training
    denoised_boxes: Tensor | None = None  # (L, N, M, G, 4)


class Cells(NamedTuple):
    """What queries look at."""

    content: Tensor  # (N, R, D)
    positions: Tensor  # (N, R, D) encoded centers
    inside: Tensor  # (N, 1, 1, R) bool, False in padding, where nobody may look


@PARTS.register()
class Denoising:
    """Makes the denoising queries: G noised copies of each ground-truth box and label (DN-DETR, section "Denoising").

    Args:
        num_groups: G. Each group holds every object once.
        box_noise: lambda. A center moves by up to lambda / 2 of the box's sides, so that it stays inside the box for
            lambda < 1; each side becomes 1 - lambda to 1 + lambda times as long.
        label_noise: gamma, the share of labels that are drawn anew from all classes.
    """

    component_kind: ClassVar = "part"

    def __init__(self, num_classes: int, num_groups: int = 5, box_noise: float = 0.4, label_noise: float = 0.2) -> None:
        self.num_classes = num_classes
        self.num_groups = num_groups
        self.box_noise = box_noise
        self.label_noise = label_noise

    def noised(self, boxes: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """cxcywh boxes (N, M, 4), classes (N, M) -> (N, M * G, 4), (N, M * G); the copies of an object are adjacent."""
        boxes = boxes.repeat_interleave(self.num_groups, dim=1)
        classes = classes.repeat_interleave(self.num_groups, dim=1)
        noise = (torch.rand_like(boxes) * 2 - 1) * self.box_noise
        boxes = boxes + noise * torch.cat((boxes[..., 2:] / 2, boxes[..., 2:]), dim=2)
        drawn = torch.rand_like(boxes[..., 0]) < self.label_noise
        return boxes.clamp(0, 1), torch.where(drawn, torch.randint_like(classes, self.num_classes), classes)

    def attention_mask(self, num_queries: int, valid: Tensor) -> Tensor:
        """Who may attend to whom in the decoder's self-attention: (N, M) bool -> (N, 1, T, T) bool, [.., from, to].

        Matching queries see each other alone: a noised ground-truth box would tell them the answer. A denoising query
        sees the matching queries and its own group, as another group holds the same objects with other noise. Nobody
        sees the copies of padding, which would make the losses depend on the fullest image of the batch.
        """
        copies = torch.arange(self.num_groups, device=valid.device).repeat(valid.shape[1])  # (M * G,)
        group = F.pad(copies, (num_queries, 0), value=-1)  # (T,), -1: a matching query
        visible = (group == -1) | (group[:, None] == group)  # (T, T)
        real = F.pad(valid.repeat_interleave(self.num_groups, dim=1), (num_queries, 0), value=True)  # (N, T)
        return (visible & real[:, None])[:, None]


@HEADS.register()
class DenoisingDETRHead(Head):
    """Detection as a set: each query learns at most one object, and there is no NMS. Uses the coarsest level.

    Args:
        width: D, channels of the transformer.
        num_heads: of each attention; D is a multiple of it, and of 4.
        encoder_layers, decoder_layers: number of each.
        num_queries: Q, more than the objects of any image.
        denoising: noise of the denoising queries. None: none, which is DAB-DETR.
        score_threshold: minimum score.
        max_detections: maximum number of detections per image.
    """

    task_outputs = ("instances",)

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        num_classes: int,
        *,
        width: int = 256,
        num_heads: int = 8,
        encoder_layers: int = 6,
        decoder_layers: int = 6,
        num_queries: int = 300,
        denoising: Denoising | None = None,
        score_threshold: float = 0.05,
        max_detections: int = 100,
    ) -> None:
        super().__init__()
        if width % num_heads or width % 4:
            raise ValueError(f"DenoisingDETRHead: width is {width}, not a multiple of 4 and of num_heads, {num_heads}")
        self.level = finest_first("DenoisingDETRHead", input_shape)[-1]
        self.stride = input_shape[self.level].stride
        self.num_classes = num_classes
        self.denoising = denoising
        self.score_threshold = score_threshold
        self.max_detections = max_detections
        self.project = nn.Conv2d(input_shape[self.level].channels, width, kernel_size=1)
        self.encoder = nn.ModuleList(EncoderLayer(width, num_heads) for _ in range(encoder_layers))
        self.decoder = Decoder(width, num_heads, decoder_layers, num_classes)
        self.label = nn.Embedding(num_classes + 1, width)  # row K: a matching query, which has no label yet
        self.anchors = nn.Parameter(torch.empty(num_queries, 4))  # before the sigmoid
        self.cls_loss, self.giou_loss = SigmoidFocalLoss(), GIoULoss()
        self._initialize()

    @torch.no_grad()
    def _initialize(self) -> None:
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)  # as DETR does
        nn.init.normal_(self.label.weight)
        nn.init.constant_(self.decoder.score.bias, -math.log(99))  # every class has the score 0.01 at first
        nn.init.zeros_(self.decoder.move[-1].weight)  # boxes start as their anchors
        nn.init.ones_(self.decoder.scale[-1].bias)  # queries look at their anchors' centers at first
        for part in self.modules():
            if isinstance(part, Attention):  # equal places look at each other from the first step
                part.key_position.weight.copy_(part.query_position.weight)
        count = len(self.anchors)  # centers anywhere, as in DAB-DETR
        self.anchors.copy_(torch.cat((torch.rand(count, 2), torch.full((count, 2), 0.3)), dim=1).logit(eps=1e-3))

    def class_rows(self) -> dict[str, ClassRows]:
        return {"label": ClassRows(after=1)}

    def forward(self, features: dict[str, Tensor], padding_mask: Tensor, batch: Batch | None = None) -> DETRRaw:
        """{l: (N, C, H/s, W/s)}, (N, H, W) bool, True beyond each image. The batch matters in training alone."""
        x = self.project(features[self.level])
        inside = ~padding_mask  # (N, H, W)
        sizes = torch.stack((inside[:, 0].sum(dim=1), inside[:, :, 0].sum(dim=1)), dim=1).float().repeat(1, 2)  # (N, 4)
        inside = inside[:, None, None, :: self.stride, :: self.stride].flatten(3)  # of a cell: its first pixel is
        positions = _sine(_cell_centers(x, self.stride, sizes), x.shape[1] // 2)
        cells = Cells(x.flatten(2).transpose(1, 2), positions, inside)
        for layer in self.encoder:
            cells = cells._replace(content=layer(cells))

        count = len(self.anchors)
        content = self.label.weight[-1].expand(len(x), count, -1)  # (N, Q, D)
        anchors = self.anchors.expand(len(x), -1, -1)  # (N, Q, 4)
        if not (self.training and self.denoising and batch is not None):
            return DETRRaw(*self.decoder(content, anchors, None, cells), sizes)

        truth = batch.ground_truth("DenoisingDETRHead")
        noised, labels = self.denoising.noised(_to_center(truth.boxes / sizes[:, None]), truth.classes)
        content = torch.cat((content, self.label(labels)), dim=1)  # (N, T, D)
        anchors = torch.cat((anchors, noised.logit(eps=1e-3)), dim=1)  # (N, T, 4)
        logits, boxes = self.decoder(content, anchors, self.denoising.attention_mask(count, truth.valid), cells)
        parts = (one[:, :, count:].unflatten(2, (-1, self.denoising.num_groups)) for one in (logits, boxes))
        return DETRRaw(logits[:, :, :count], boxes[:, :, :count], sizes, *parts)

    def losses(self, raw: DETRRaw, batch: Batch) -> dict[str, Tensor]:
        """Focal loss on the classes, L1 and GIoU on the boxes, per object and summed over the decoder layers; the same
        of the denoising queries, per copy of an object."""
        truth = batch.ground_truth("DenoisingDETRHead")
        wanted = _to_center(truth.boxes / raw.sizes[:, None])  # (N, M, 4)
        match = self.match(raw, truth)
        layer, image, row = (match >= 0).nonzero(as_tuple=True)
        query = match[layer, image, row]
        classes = torch.full_like(raw.logits[..., 0], self.num_classes, dtype=torch.int64)  # (L, N, Q), K: no object
        classes[layer, image, query] = truth.classes[image, row]
        found = self._weighted(raw.logits, classes, raw.boxes[layer, image, query], wanted[image, row])
        if raw.denoised_logits is not None and raw.denoised_boxes is not None:
            logits, boxes = raw.denoised_logits[:, truth.valid], raw.denoised_boxes[:, truth.valid]  # (L, P, G, ..)
            classes = truth.classes[truth.valid][:, None].expand(logits.shape[:3])
            losses = self._weighted(logits, classes, boxes, wanted[truth.valid][:, None].expand_as(boxes))
            found |= {f"denoising_{name}": loss / logits.shape[2] for name, loss in losses.items()}
        return {name: loss / truth.valid.sum().clamp(min=1) for name, loss in found.items()}

    def _weighted(self, logits: Tensor, classes: Tensor, boxes: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        """Sums over logits (.., K) with classes (..), and over pairs of boxes before the sigmoid and after (.., 4)."""
        boxes = boxes.sigmoid()
        return {
            "loss_cls": CLS_WEIGHT * self.cls_loss(logits, classes).sum(),
            "loss_l1": L1_WEIGHT * (boxes - wanted).abs().sum(),
            "loss_giou": GIOU_WEIGHT * self.giou_loss(_to_corners(boxes), _to_corners(wanted)).sum(),
        }

    @torch.no_grad()
    def match(self, raw: DETRRaw, truth: GroundTruth) -> Tensor:
        """The query of each ground-truth box, one to one and of least total cost: (L, N, M), -1 for padding.

        Each layer is matched by its own predictions. Where an image has more objects than queries, some have none (-1).
        """
        boxes, wanted = raw.boxes.sigmoid(), _to_center(truth.boxes / raw.sizes[:, None])
        positive = self.cls_loss(raw.logits, torch.ones_like(raw.logits))
        negative = self.cls_loss(raw.logits, torch.zeros_like(raw.logits))
        classes = truth.classes[None, :, None].expand(*boxes.shape[:3], -1)  # (L, N, Q, M)
        cost = CLS_WEIGHT * (positive - negative).gather(3, classes)
        cost += L1_WEIGHT * torch.cdist(boxes, wanted.expand(len(boxes), -1, -1, -1), p=1)
        pairs = torch.broadcast_tensors(_to_corners(boxes)[..., None, :], _to_corners(wanted)[:, None])
        cost += GIOU_WEIGHT * self.giou_loss(*pairs)  # its constant 1 changes no assignment
        costs, valid = cost.cpu().numpy(), truth.valid.cpu().numpy()  # one transfer for all layers and images
        match = np.full((len(boxes), *valid.shape), -1)
        for layer, image in np.ndindex(match.shape[:2]):
            rows = np.flatnonzero(valid[image])
            query, column = linear_sum_assignment(costs[layer, image][:, rows])
            match[layer, image, rows[column]] = query
        return torch.from_numpy(match).to(cost.device)

    def candidates(self, raw: DETRRaw) -> Candidates:
        """The best (query, class) pairs of the last layer, best first; boxes xyxy in input pixels."""
        scores, index = top_values(raw.logits[-1].sigmoid().flatten(1), self.max_detections)  # (N, D)
        query, classes = index // self.num_classes, index % self.num_classes
        boxes = raw.boxes[-1].sigmoid().gather(1, query[..., None].expand(-1, -1, 4))
        boxes = _to_corners(boxes) * raw.sizes[:, None]
        return Candidates(boxes, scores, classes, scores > self.score_threshold)

    def predict(self, raw: DETRRaw, batch: Batch) -> list[dict]:
        """The best pairs of each image as they are: the set has no duplicates that NMS would have to drop."""
        found = self.candidates(raw)
        outputs = []
        for row, (size, original) in enumerate(zip(batch.image_sizes, batch.original_sizes, strict=True)):
            boxes, scores, classes = (column[row][found.valid[row]] for column in found[:3])
            instances = Instances(size, pred_boxes=Boxes(boxes), scores=scores, pred_classes=classes)
            outputs.append({"instances": rescale_instances(instances, *original)})
        return outputs

    def export_predictions(self, raw: DETRRaw, image_size: tuple[int, int]) -> dict[str, Tensor]:
        """The same as tensors of fixed rank, 0 in the rows that only fill up."""
        boxes, scores, classes, valid, _ = self.candidates(raw)
        return {"boxes": boxes * valid[..., None], "scores": scores * valid, "classes": classes * valid}


class Decoder(nn.Module):
    """Decoder layers that move anchors toward objects, as in DAB-DETR; all MLPs are shared by the layers."""

    def __init__(self, width: int, num_heads: int, num_layers: int, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(width, num_heads) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)
        self.place = _mlp(2 * width, width, width)  # P_q: an anchor's encoding to the position of its query
        self.scale = _mlp(width, width, width)  # MLP^csq: what of the encoding matters to the query's content
        self.reference = _mlp(width, width, 2)  # w_ref, h_ref of the modulated attention
        self.move = _mlp(width, width, 4)
        self.score = nn.Linear(width, num_classes)

    def forward(self, content: Tensor, anchors: Tensor, visible: Tensor | None, cells: Cells) -> tuple[Tensor, Tensor]:
        """Queries (N, T, D), (N, T, 4) -> logits (L, N, T, K) and boxes (L, N, T, 4), before the sigmoid."""
        found = []
        for layer in self.layers:
            x = anchors.sigmoid()
            encoded = _sine(x, content.shape[2] // 2)  # (N, T, 2 D): center x, center y, width, height
            # Modulated attention: the wider a box, the less sharply its query looks at its center x; likewise in y.
            sharpness = self.reference(content).sigmoid() / x[..., 2:]  # (N, T, 2)
            center = encoded.chunk(2, dim=2)[0].unflatten(2, (2, -1)) * sharpness[..., None]  # (N, T, 2, D / 2)
            center = center.flatten(2) * self.scale(content)
            content = layer(content, self.place(encoded), visible, center, cells)
            out = self.norm(content)
            boxes = anchors + self.move(out)
            found.append((self.score(out).float(), boxes.float()))
            anchors = boxes.detach()  # each layer learns its own step, from where the layer before has come
        logits, boxes = zip(*found, strict=True)
        return torch.stack(logits), torch.stack(boxes)


class DecoderLayer(nn.Module):
    """Queries look at each other, then at the cells. Normalized after each step, as in DETR."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.among = Attention(width, num_heads)
        self.across = Attention(width, num_heads)
        self.mlp = _mlp(width, 4 * width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))

    def forward(self, x: Tensor, place: Tensor, visible: Tensor | None, center: Tensor, cells: Cells) -> Tensor:
        x = self.norms[0](x + self.among(x, place, x, place, visible))
        x = self.norms[1](x + self.across(x, center, *cells))
        return self.norms[2](x + self.mlp(x))


class EncoderLayer(nn.Module):
    """Cells look at each other, but not at padding."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.among = Attention(width, num_heads)
        self.mlp = _mlp(width, 4 * width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, cells: Cells) -> Tensor:
        x = self.norms[0](cells.content + self.among(cells.content, cells.positions, *cells))
        return self.norms[1](x + self.mlp(x))


class Attention(nn.Module):
    """Multi-head attention whose scores are a product of contents plus a product of positions.

    So it is in the cross-attention of Conditional DETR (arXiv:2108.06152) and DAB-DETR, which concatenate content and
    position. Their self-attention adds the two instead; here all attentions are alike.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query, self.query_position, self.key, self.key_position, self.value, self.out = (
            nn.Linear(width, width) for _ in range(6)
        )

    def forward(
        self, query: Tensor, query_position: Tensor, key: Tensor, key_position: Tensor, mask: Tensor | None
    ) -> Tensor:
        """(N, T, D) twice, (N, R, D) twice, a mask to (N, 1, T, R), True where attention is allowed -> (N, T, D)."""
        q = torch.cat((self._heads(self.query(query)), self._heads(self.query_position(query_position))), dim=3)
        k = torch.cat((self._heads(self.key(key)), self._heads(self.key_position(key_position))), dim=3)
        x = F.scaled_dot_product_attention(q, k, self._heads(self.value(key)), attn_mask=mask)
        return self.out(x.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # (N, heads, T, D / heads)


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def _sine(x: Tensor, width: int) -> Tensor:
    """Coordinates (.., c) as fractions of the image to their encoding (.., c * width), each (sines, cosines)."""
    share = torch.arange(width // 2, device=x.device) / (width // 2)
    periods = MOST_PERIODS * (LEAST_PERIODS / MOST_PERIODS) ** share
    angle = 2 * math.pi * x[..., None] * periods  # (.., c, width / 2)
    return torch.cat((angle.sin(), angle.cos()), dim=-1).flatten(-2)


def _cell_centers(cells: Tensor, stride: int, sizes: Tensor) -> Tensor:
    """Centers of the cells of a map (N, D, H/s, W/s) as fractions of each image: (N, R, 2), x before y."""
    y, x = torch.meshgrid(*(torch.arange(side) for side in cells.shape[2:]), indexing="ij")
    centers = (torch.stack((x, y), dim=2).flatten(0, 1).to(sizes) + 0.5) * stride  # (R, 2) in input pixels
    return centers / sizes[:, None, :2]


def _to_center(boxes: Tensor) -> Tensor:
    """xyxy to cxcywh."""
    first, second = boxes.chunk(2, dim=-1)
    return torch.cat(((first + second) / 2, second - first), dim=-1)


def _to_corners(boxes: Tensor) -> Tensor:
    """cxcywh to xyxy."""
    center, sides = boxes.chunk(2, dim=-1)
    return torch.cat((center - sides / 2, center + sides / 2), dim=-1)
