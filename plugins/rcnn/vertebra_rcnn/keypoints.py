"""The keypoint branch: for each region a heat map of every keypoint.

Source: He et al., "Mask R-CNN", arXiv:1703.06870, section 5; normalization by the visible keypoints as in Detectron2.
Letters: T regions, F of them with an object, J keypoints, S cells along each side of a heat map.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from vertebra.errors import DataError
from vertebra.models import Batch, ShapeSpec, describe_input
from vertebra.models.layers import msra_fill
from vertebra.structures import Instances, Keypoints, heatmaps_to_keypoints, pad_rows
from vertebra_rcnn.pooling import RegionPooler, ROIPooler
from vertebra_rcnn.regions import Regions

__all__ = ["KeypointBranch", "ROIKeypoints", "rescored"]


class KeypointBranch(nn.Module):
    """Gives each region with an object its keypoints."""

    component_kind: ClassVar[str] = "part"
    pooler: RegionPooler
    rescore: bool = False
    """Whether detections are scored by their keypoints too, see `rescored`."""

    def losses(self, regions_seen: Tensor, regions: Regions, batch: Batch) -> dict[str, Tensor]:
        """Named scalars, already weighted, from pooled regions (F, C, S, S); all of them have an object."""
        raise NotImplementedError

    def predict(self, regions_seen: Tensor, boxes: Tensor) -> Tensor:
        """Pooled regions (F, C, S, S) and their boxes (F, 4) to (F, J, 3): x, y in the boxes' pixels, score."""
        raise NotImplementedError


class ROIKeypoints(KeypointBranch):
    """Convolutions, a transposed convolution and bilinear enlargement, each of the two doubling the resolution.

    The highest cell of a map is the keypoint; a region learns a softmax over all cells of each map.

    Args:
        num_keypoints: None: as many as the dataset has.
        pooler: None: ROIPooler with 14 x 14 cells.
        conv_dims: channels of the 3x3 convolutions.
        loss_weight: factor of the loss.
        rescore: in evaluation a detection's score is multiplied by the mean probability of its keypoints.
    """

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        metadata: Any = None,
        *,
        num_keypoints: int | None = None,
        pooler: RegionPooler | None = None,
        conv_dims: Sequence[int] = (512,) * 8,
        loss_weight: float = 1.0,
        rescore: bool = False,
    ) -> None:
        super().__init__()
        if num_keypoints is None:
            num_keypoints = len(getattr(metadata, "keypoint_names", None) or ())
        if num_keypoints < 1 or not conv_dims:
            raise ValueError(
                f"ROIKeypoints: {num_keypoints} keypoints and conv_dims {list(conv_dims)}. Write num_keypoints, or use "
                "a dataset whose metadata has keypoint_names; conv_dims needs at least one entry"
            )
        self.pooler = ROIPooler(input_shape, 14) if pooler is None else pooler
        self.num_keypoints = num_keypoints
        self.num_conv = len(conv_dims)
        widths = [self.pooler.channels, *conv_dims]
        convs = [nn.Conv2d(before, after, 3, padding=1) for before, after in pairwise(widths)]
        for number, conv in enumerate(convs, start=1):
            self.add_module(f"conv_fcn{number}", conv)
        self.score_lowres = nn.ConvTranspose2d(widths[-1], num_keypoints, kernel_size=4, stride=2, padding=1)
        for conv in convs:
            msra_fill(conv)
        msra_fill(self.score_lowres)
        self.loss_weight = loss_weight
        self.rescore = rescore

    def losses(self, regions_seen: Tensor, regions: Regions, batch: Batch) -> dict[str, Tensor]:
        """`loss_keypoint`: mean cross entropy over the keypoints that are labeled and inside their region."""
        maps = self.heatmaps(regions_seen)  # (F, J, S, S)
        points = _true_keypoints(regions, batch, self.num_keypoints)
        cells, valid = points.to_heatmap(regions.boxes, maps.shape[-1])  # (F, J) each
        entropy = F.cross_entropy(maps.flatten(2).flatten(0, 1).float(), cells.flatten(), reduction="none")
        loss = (entropy * valid.flatten()).sum() / valid.sum().clamp(min=1)
        return {"loss_keypoint": loss * self.loss_weight}

    def predict(self, regions_seen: Tensor, boxes: Tensor) -> Tensor:
        return heatmaps_to_keypoints(self.heatmaps(regions_seen), boxes)[:, :, [0, 1, 3]]

    def heatmaps(self, regions_seen: Tensor) -> Tensor:
        """(F, C, S, S) to logits (F, J, 4 S, 4 S)."""
        x = regions_seen
        for number in range(1, self.num_conv + 1):
            x = F.relu(getattr(self, f"conv_fcn{number}")(x))
        return F.interpolate(self.score_lowres(x), scale_factor=2.0, mode="bilinear", align_corners=False)


def rescored(found: Instances) -> Instances:
    """Detections whose score is their own times the mean score of their `pred_keypoints`, best first.

    As is usual where poses are found box by box: a person is as sure as its keypoints. Compare Papandreou et al.,
    "Towards Accurate Multi-person Pose Estimation in the Wild", arXiv:1701.01779.
    """
    found.scores = found.scores * found.pred_keypoints[..., 2].mean(dim=1)
    return found[found.scores.argsort(descending=True, stable=True)]


def _true_keypoints(regions: Regions, batch: Batch, count: int) -> Keypoints:
    """The true keypoints (F, J, 3) of each region's object.

    Raises:
        DataError: an image with objects has no `gt_keypoints`, or a different number.
    """
    given = []
    for number, instances in enumerate(batch.ground_truth_instances("a keypoint branch")):
        if len(instances) and not instances.has("gt_keypoints"):
            raise DataError(
                f"{describe_input(batch.inputs[number], number)}: has objects but no gt_keypoints, and a keypoint "
                "branch learns from them; the annotations need `keypoints`"
            )
        found = instances.gt_keypoints.tensor if len(instances) else regions.rois.new_zeros(0, count, 3)
        if found.shape[1] != count:
            raise DataError(
                f"{describe_input(batch.inputs[number], number)}: its objects have {found.shape[1]} keypoints, the "
                f"model {count}; write num_keypoints: {found.shape[1]}"
            )
        given.append(found)
    padded, _ = pad_rows(given)  # (N, M, J, 3)
    if not padded.shape[1]:
        return Keypoints(regions.rois.new_zeros(0, count, 3))
    return Keypoints(padded[regions.image, regions.row])
