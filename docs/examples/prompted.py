"""Detection of what words name: the class names are given with the image, when predicting, in one file.

Sources: cells are scored against embeddings of words as regions in Cheng et al., "YOLO-World: Real-Time Open-Vocabulary
Object Detection", arXiv:2401.17270, by the sigmoid of a scaled and shifted cosine as in Zhai et al., "Sigmoid Loss for
Language Image Pre-Training", arXiv:2303.15343. The text encoder is a toy that is trained along: hashed character
n-grams as in Bojanowski et al., "Enriching Word Vectors with Subword Information", arXiv:1607.04606, and a small MLP.
Letters: N images, T prompts of the image with the most, C channels, R cells, M ground-truth boxes in the fullest image,
P positive cells, W different prompts of a batch.

    vertebra train docs/examples/prompted.yaml -o runs/prompted
    vertebra predict runs/prompted/recipe.yaml IMAGE -w runs/prompted/final.pth --input 'text=[star, circles]'
"""

from zlib import crc32

import torch
from torch import nn
from torch.nn.functional import normalize, softplus

from vertebra import FORMATS, HEADS, Batch, DataError, ShapeSpec
from vertebra.data import ShapesFormat
from vertebra.detection import Candidates, Suppression
from vertebra.models import DetectionHead, finest_first, same_channels
from vertebra.models.layers import ConvNorm, resize
from vertebra.models.losses import GIoULoss, SigmoidFocalLoss

__all__ = ["PromptedHead", "PromptedShapes"]

PHRASES = ("{}", "a {}", "the {}", "{} shape", "one {}")
SYNONYMS = {"circle": ("disk",), "square": ("box",), "star": ("asterisk",), "cross": ("plus",), "ring": ("donut",)}
BUCKETS = 4096  # rows of the table that n-grams are hashed into


@FORMATS.register()
class PromptedShapes(ShapesFormat):
    """`shapes` with prompts for each image, `text`: one for each class, in the order of the classes.

    In split train they are synonyms in phrases, drawn for each image; in split val the names of the classes, so that
    detections count the classes of the dataset and any evaluator works.
    """

    def extend(self, folder, image, annotations, scene, rng):
        names = ("circle", "square", "triangle", "star", "cross", "heart", "ring")[: self.options.num_classes]
        if folder.name == "train":
            words = [rng.choice((name, *SYNONYMS.get(name, ()))) for name in names]
            names = [rng.choice(PHRASES).format(word) for word in words]
        image["text"] = list(names)


def prompts_of(text):
    """What was given as `text`, a list of prompts or one prompt, as a list.

    Raises:
        DataError: it is something else, or there is none.
    """
    prompts = [text] if isinstance(text, str) else text
    if not isinstance(prompts, (list, tuple)) or not prompts or not all(isinstance(one, str) for one in prompts):
        raise DataError(f"text is {text!r}, expected the names of what to find: [star, circle]")
    return list(prompts)


def ngrams(prompt):
    """The words of a prompt, and all 3 to 5 characters of them that follow each other: "<star>", "<st", "sta", ..."""
    words = [f"<{word}>" for word in prompt.lower().split()]
    parts = [word[i : i + size] for word in words for size in (3, 4, 5) for i in range(len(word) - size + 1)]
    return sorted({*words, *parts})


class TextEncoder(nn.Module):
    """Prompts to embeddings of length 1. Words that share n-grams, as "star" and "stars" do, begin alike."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(BUCKETS, width, mode="mean")
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, prompts):
        """W texts to (W, C)."""
        rows = [[crc32(gram.encode()) % BUCKETS for gram in ngrams(prompt)] for prompt in prompts]
        starts = torch.tensor([0, *(len(one) for one in rows[:-1])]).cumsum(0)
        device = self.table.weight.device
        flat = torch.tensor([row for one in rows for row in one], dtype=torch.int64)
        return normalize(self.mlp(self.table(flat.to(device), starts.to(device))), dim=-1)


@HEADS.register()
class PromptedHead(DetectionHead):
    """Boxes and the prompts that they fit, from the sum of all levels, which must have one width.

    `predict` gives `instances`, whose `pred_classes` count the prompts of the image, and these as `class_names`.
    Training data need one prompt for each class of the dataset, in its order.

    Args:
        num_convs: 3x3 convolutions with GroupNorm before the predictions.
        score_threshold: minimum score.
        nms_threshold: IoU threshold of NMS: of two boxes of a prompt that overlap more, the lower score is dropped.
    """

    task_outputs = ("instances", "class_names")
    needs_inputs = ("text",)

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        num_classes: int,
        *,
        num_convs: int = 3,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
    ) -> None:
        super().__init__(num_classes, Suppression(score_threshold, topk=300, nms_threshold=nms_threshold))
        self.levels = finest_first("PromptedHead", input_shape)
        self.stride = input_shape[self.levels[0]].stride
        width = same_channels("PromptedHead", input_shape, self.levels)
        self.tower = nn.Sequential(*(ConvNorm(width, width, 3, norm="gn", relu=True) for _ in range(num_convs)))
        self.cells, self.reach = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, 4, 3, padding=1)
        self.words = TextEncoder(width)
        # Section 3.2 of the sigmoid loss: learned, so that most pairs, which do not fit, cost little from the start.
        self.scale, self.shift = nn.Parameter(torch.tensor(10.0).log()), nn.Parameter(torch.tensor(-4.6))
        self.cls_loss, self.box_loss = SigmoidFocalLoss(), GIoULoss()

    def forward(self, features, text):
        """{l: (N, C, H/s, W/s)} and N lists of prompts to logits (N, T, H/s, W/s) and distances (N, 4, H/s, W/s).

        The distances are those of a cell's center to the four edges, in strides.
        """
        x = self.tower(sum(resize(features[name], features[self.levels[0]].shape[-2:]) for name in self.levels))
        lists = [prompts_of(one) for one in text]
        known = sorted({prompt for prompts in lists for prompt in prompts})  # each is encoded once for the whole batch
        row = {prompt: number for number, prompt in enumerate(known)}
        most = max(map(len, lists))
        rows = torch.tensor(
            [[row[prompt] for prompt in one] + [-1] * (most - len(one)) for one in lists], device=x.device
        )
        words = self.words(known)[rows]  # (N, T, C)
        cosine = torch.einsum("nchw,ntc->nthw", normalize(self.cells(x), dim=1), words)
        logits = self.scale.exp() * cosine + self.shift
        return {
            "scores": logits.masked_fill(
                (rows < 0)[..., None, None], -50.0
            ),  # fills up: found nowhere, learned nothing
            "reach": softplus(self.reach(x)),
        }

    def losses(self, raw, batch: Batch):
        """Focal loss of each cell and prompt, GIoU loss of the boxes; per positive cell."""
        logits, boxes, centers = self.decode(raw)
        if logits.shape[2] < self.num_classes:
            raise DataError(
                f"text has {logits.shape[2]} prompts; training needs one for each of {self.num_classes} classes"
            )
        row = assign(centers, batch.gt_boxes, batch.gt_valid, 1.5 * self.stride)  # (N, R)
        image, cell = (row >= 0).nonzero(as_tuple=True)  # (P,) each
        row, count = row[image, cell], max(len(image), 1)
        target = torch.zeros_like(logits)
        target[image, cell, batch.gt_classes[image, row]] = 1  # prompts are in the order of the classes
        loss_box = self.box_loss(boxes[image, cell], batch.gt_boxes[image, row])
        return {"loss_cls": self.cls_loss(logits, target).sum() / count, "loss_box": loss_box.sum() / count}

    def candidates(self, raw):
        """The best pairs of cell and prompt of each image."""
        logits, boxes, _ = self.decode(raw)
        best, index = logits.sigmoid().flatten(1).topk(min(self.topk_candidates, logits[0].numel()), dim=1)
        cell, prompts = index // logits.shape[2], index % logits.shape[2]
        return Candidates(
            boxes.gather(1, cell[..., None].expand(-1, -1, 4)), best, prompts, best > self.score_threshold
        )

    def predict(self, raw, batch: Batch):
        found = super().predict(raw, batch)
        names = [prompts_of(sample["text"]) for sample in batch.inputs]
        return [{**one, "class_names": prompts} for one, prompts in zip(found, names, strict=True)]

    def decode(self, raw):
        """Logits (N, R, T), boxes (N, R, 4) xyxy in input pixels, and the cells' centers (R, 2)."""
        y, x = torch.meshgrid(*(torch.arange(side) for side in raw["scores"].shape[-2:]), indexing="ij")
        logits, reach = (raw[name].flatten(2).transpose(1, 2).float() for name in ("scores", "reach"))
        centers = (torch.stack((x, y), dim=-1).view(-1, 2).to(reach) + 0.5) * self.stride
        reach = reach * self.stride
        return logits, torch.cat((centers - reach[..., :2], centers + reach[..., 2:]), dim=2), centers


def assign(centers, boxes, valid, radius):
    """(R, 2), (N, M, 4), (N, M) bool -> (N, R) row of the box whose center is nearest, -1 where all are too far.

    Far is more than `radius` pixels in x or in y.
    """
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    distance = (centers - middle[:, :, None]).abs().amax(dim=3)  # (N, M, R)
    nearest, row = distance.masked_fill(~valid[..., None], torch.inf).min(dim=1)
    return row.where(nearest < radius, -1)
