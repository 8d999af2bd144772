"""RCNNHead: proposals, then for each of them a class, a box, and where wanted a mask and keypoints.

Sources: Girshick, "Fast R-CNN", arXiv:1504.08083; Ren et al., "Faster R-CNN", arXiv:1506.01497; He et al., "Mask
R-CNN", arXiv:1703.06870. Which of these (and Cascade R-CNN, R-FCN) it is depends on the parts that it is made of.
Letters: N images, P proposals of the image with most of them, M ground-truth boxes in the fullest image, T regions.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from vertebra.detection import IGNORE, Matcher, Suppression, rescale_instances
from vertebra.models import Batch, DetectionHead, Head, ShapeSpec
from vertebra.structures import Instances
from vertebra_rcnn.boxes import BoxBranch, ROIBoxes
from vertebra_rcnn.detections import select_detections
from vertebra_rcnn.keypoints import KeypointBranch, rescored
from vertebra_rcnn.masks import MaskBranch
from vertebra_rcnn.proposals import ProposalGenerator
from vertebra_rcnn.regions import Proposals, Regions, Truth, rois_of
from vertebra_rcnn.rpn import RPN
from vertebra_rcnn.samplers import RandomSampler, Sampler
from vertebra_rcnn.shared_features import SharedBoxFeatures, check_shared

__all__ = ["RCNNHead", "RCNNRaw"]


class RCNNRaw(NamedTuple):
    """What needs no ground truth.

    Args:
        features: the feature maps, and what the box branch makes of whole maps.
        proposals: the proposal generator's raw outputs.
    """

    features: dict[str, Tensor]
    proposals: Any


class RCNNHead(DetectionHead):
    """A two-stage detector; `predict` gives `instances` with boxes, scores, classes, and masks or keypoints.

    Args:
        proposals: None: RPN().
        boxes: None: ROIBoxes(), Fast R-CNN's.
        masks: None: no masks.
        keypoints: None: no keypoints.
        matcher: regions to ground-truth boxes. None: an object from IoU 0.5, background below.
        sampler: which regions are learned from. None: RandomSampler(512, 0.25).
        append_truth: ground-truth boxes join the proposals in training, so that there are good ones from the start.
        score_threshold, nms_threshold, max_detections, class_agnostic_nms: see `Suppression`.
    """

    detectron2_names: ClassVar = (
        (r"proposal_generator\.rpn_head\.(.+)", r"proposals.\1"),
        (r"roi_heads\.res5\.(.+)", r"boxes.head.res5.\1"),
        (r"roi_heads\.box_head\.(\d+)\.(.+)", r"boxes.stages.\1.head.\2"),
        (r"roi_heads\.box_predictor\.(\d+)\.(.+)", r"boxes.stages.\1.predictor.\2"),
        (r"roi_heads\.box_head\.(.+)", r"boxes.head.\1"),
        (r"roi_heads\.box_predictor\.(.+)", r"boxes.predictor.\1"),
        (r"roi_heads\.mask_head\.(.+)", r"masks.\1"),
        (r"roi_heads\.keypoint_head\.(.+)", r"keypoints.\1"),
    )

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        num_classes: int,
        *,
        proposals: ProposalGenerator | None = None,
        boxes: BoxBranch | None = None,
        masks: MaskBranch | None = None,
        keypoints: KeypointBranch | None = None,
        matcher: Matcher | None = None,
        sampler: Sampler | None = None,
        append_truth: bool = True,
        score_threshold: float = 0.05,
        nms_threshold: float = 0.5,
        max_detections: int = 100,
        class_agnostic_nms: bool = False,
    ) -> None:
        super().__init__(
            num_classes, Suppression(score_threshold, None, nms_threshold, class_agnostic_nms, max_detections)
        )
        self.proposals = RPN(input_shape) if proposals is None else proposals
        self.boxes = ROIBoxes(input_shape, num_classes) if boxes is None else boxes
        self.masks = masks
        self.keypoints = keypoints
        if self.boxes.num_classes != num_classes:
            raise ValueError(f"RCNNHead has {num_classes} classes, its box branch {self.boxes.num_classes}")
        for branch in (masks, keypoints):
            check_shared(branch, self.boxes)
        self.matcher = Matcher([0.5], [0, 1]) if matcher is None else matcher
        self.sampler = RandomSampler(512, 0.25) if sampler is None else sampler
        self.append_truth = append_truth

    def forward(self, features: dict[str, Tensor]) -> RCNNRaw:
        """{l: (N, C, H_l, W_l)} to the same, the box branch's maps, and the proposal generator's."""
        return RCNNRaw({**features, **self.boxes(features)}, self.proposals(features))

    def losses(self, raw: RCNNRaw, batch: Batch) -> dict[str, Tensor]:
        """The losses of all parts."""
        truth = Truth.of(batch, "RCNNHead")
        losses = self.proposals.losses(raw.proposals, truth)
        regions = self.sample(self.proposals.proposals(raw.proposals, batch), truth)
        features = _poolable(raw.features)
        branches = [branch for branch in (self.masks, self.keypoints) if branch is not None]
        if not any(map(_shares, branches)):
            losses |= self.boxes.losses(features, regions, truth)
        else:
            shared = self.boxes.region_features(features, regions.rois)
            losses |= self.boxes.losses_of(shared, regions)
        rows = regions.rows_with_object(self.num_classes)
        found = regions.take(rows)
        for branch in branches:
            seen = shared[rows] if _shares(branch) else branch.pooler(features, found.rois)
            losses |= branch.losses(seen, found, batch)
        return losses

    def predict(self, raw: RCNNRaw, batch: Batch) -> list[dict]:
        """The best detections of each image, scaled to its original size and clipped to it, best first."""
        return [
            {"instances": self._in_original_size(found, original)}
            for found, original in zip(self.detect(raw, batch), batch.original_sizes, strict=True)
        ]

    export_predictions = Head.export_predictions  # two stages have no end-to-end form

    @torch.no_grad()
    def sample(self, proposals: Proposals, truth: Truth) -> Regions:
        """Proposals (and ground-truth boxes) matched with the truth, and as many of them drawn as are learned from."""
        boxes, valid = proposals.boxes, proposals.valid
        if self.append_truth:
            boxes, valid = torch.cat((boxes, truth.boxes), dim=1), torch.cat((valid, truth.valid), dim=1)
        if not boxes.shape[1]:
            nothing = boxes.new_zeros(0, dtype=torch.int64)
            return Regions(boxes.new_zeros(0, 5), nothing, boxes.new_zeros(0, 4), nothing)
        matched = self.matcher.match_boxes(boxes, truth.boxes, truth.valid).masked_fill(~valid, IGNORE)  # (N, P + M)
        index, positive, valid = self.sampler(matched)
        image, slot = valid.nonzero(as_tuple=True)  # (T,) each
        index = index[image, slot]
        row = matched[image, index].clamp(min=0)
        classes = truth.classes[image, row].where(positive[image, slot], self.num_classes)
        rois = torch.cat((image[:, None].to(boxes.dtype), boxes[image, index]), dim=1)
        return Regions(rois, classes, truth.boxes[image, row], row)

    def detect(self, raw: RCNNRaw, batch: Batch) -> list[Instances]:
        """Detections in input pixels: `pred_boxes`, `scores`, `pred_classes`, and with the branches for them
        `box_masks` (n, S, S), probabilities in the frame of the box, and `pred_keypoints` (n, J, 3).
        """
        features = _poolable(raw.features)
        proposals = self.proposals.proposals(raw.proposals, batch)
        rois = rois_of(proposals.boxes, proposals.valid)
        sizes = rois.new_tensor([(width, height) for height, width in batch.image_sizes])
        scores, boxes = self.boxes.predict(features, rois, sizes)
        detections = select_detections(scores, boxes, rois[:, 0].long(), batch.image_sizes, self.suppression)
        self.add_details(features, detections)
        if self.keypoints is not None and self.keypoints.rescore:
            return [rescored(found) for found in detections]
        return detections

    def add_details(self, features: dict[str, Tensor], detections: list[Instances]) -> None:
        """Masks and keypoints of boxes in input pixels, as new fields; all images at once."""
        if self.masks is None and self.keypoints is None:
            return
        counts = [len(found) for found in detections]
        boxes = torch.cat([found.pred_boxes.tensor for found in detections])  # (F, 4)
        image = torch.arange(len(counts), device=boxes.device).repeat_interleave(
            torch.tensor(counts, device=boxes.device)
        )
        rois = torch.cat((image[:, None].to(boxes.dtype), boxes), dim=1)
        if self.masks is not None:
            classes = torch.cat([found.pred_classes for found in detections])
            masks = self.masks.predict(self._seen(self.masks, features, rois), classes)
            for found, part in zip(detections, masks.split(counts), strict=True):
                found.box_masks = part
        if self.keypoints is not None:
            points = self.keypoints.predict(self._seen(self.keypoints, features, rois), boxes)
            for found, part in zip(detections, points.split(counts), strict=True):
                found.pred_keypoints = part

    def _seen(self, branch: MaskBranch | KeypointBranch, features: dict[str, Tensor], rois: Tensor) -> Tensor:
        """What a branch sees of regions: what its pooler gives, or what the box branch has made of them."""
        if _shares(branch):
            return self.boxes.region_features(features, rois)
        return branch.pooler(features, rois)

    def _in_original_size(self, found: Instances, size: tuple[int, int]) -> Instances:
        result = rescale_instances(found, *size)
        if self.masks is not None and result.has("box_masks"):
            result.pred_masks = self.masks.output(result.box_masks, result.pred_boxes, size)
            result.remove("box_masks")
        return result


def _shares(branch: MaskBranch | KeypointBranch) -> bool:
    return isinstance(branch.pooler, SharedBoxFeatures)


def _poolable(features: dict[str, Tensor]) -> dict[str, Tensor]:
    """Float32, row by row in memory: what the pooling operators would otherwise make of them at every call."""
    return {name: x.float().contiguous() for name, x in features.items()}
