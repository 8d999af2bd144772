"""Pairing candidates (anchors, proposals) with ground-truth boxes by their overlap. Knows no model.

Source: the rule of Detectron2's `Matcher`, ties included; the batched form does all images at once.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from vertebra.structures import pairwise_iou

__all__ = ["BACKGROUND", "IGNORE", "Matcher"]

BACKGROUND = -1
"""The candidate is a negative example."""
IGNORE = -2
"""The candidate takes no part in the loss."""

MAX_PAIRS = {"cpu": 2**20}
"""Candidate-truth pairs looked at together, by device: 4 MB for each tensor of them stays in a CPU's cache."""
MAX_PAIRS_ELSEWHERE = 2**25
"""The same for GPUs, where fewer and larger steps are faster: 128 MB for each tensor."""


class Matcher:
    """Labels each candidate by its best overlap with a ground-truth box.

    With low-quality matches allowed, the candidates that overlap a ground-truth box best (all, if several tie) are
    positive however small the overlap is; each keeps its own best ground-truth box, which may be another one. As in
    Detectron2 that holds for an overlap of 0 as well, where every candidate ties: drop empty ground-truth boxes first.

    Args:
        thresholds: ascending, more than 0; `labels[i]` is for overlaps in [thresholds[i-1], thresholds[i]).
        labels: one more than thresholds: 0 negative, 1 positive, -1 neither.
        allow_low_quality_matches: see above.
    """

    component_kind: ClassVar[str] = "part"

    def __init__(self, thresholds: list[float], labels: list[int], allow_low_quality_matches: bool = False) -> None:
        if list(thresholds) != sorted(thresholds) or any(threshold <= 0 for threshold in thresholds):
            raise ValueError(f"Matcher: thresholds are {thresholds}, must ascend and be more than 0")
        if len(labels) != len(thresholds) + 1:
            raise ValueError(
                f"Matcher: {len(labels)} labels for {len(thresholds)} thresholds; there is one more interval than"
                " thresholds, the first is below all of them"
            )
        if any(label not in (-1, 0, 1) for label in labels):
            raise ValueError(f"Matcher: labels are {labels}, each must be -1 (ignore), 0 (negative) or 1 (positive)")
        self.thresholds = [float(threshold) for threshold in thresholds]
        self.labels = [int(label) for label in labels]
        self.allow_low_quality_matches = allow_low_quality_matches

    def __call__(self, match_quality_matrix: Tensor) -> tuple[Tensor, Tensor]:
        """One image, Detectron2's form.

        Args:
            match_quality_matrix: (M, R), the overlap of M ground-truth boxes with R candidates.
        Returns:
            (R,) int64, the best ground-truth box of each candidate (0 if there is none), and (R,) int8, its label.
        """
        quality = match_quality_matrix
        if quality.numel() == 0:
            matches = torch.zeros(quality.shape[1], dtype=torch.int64, device=quality.device)
            return matches, torch.full_like(matches, self.labels[0], dtype=torch.int8)
        best, matches = quality.max(dim=0)
        labels = self._label(best)
        if self.allow_low_quality_matches:
            labels = labels.masked_fill(_is_best_of_a_row(quality).any(dim=0), 1)
        return matches, labels

    @torch.no_grad()
    def match_boxes(self, candidates: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
        """All images at once, by IoU.

        Args:
            candidates: (R, 4) for all images, or (N, R, 4), `xyxy`.
            truth: (N, M, 4) ground-truth boxes, `xyxy`, padded.
            valid: (N, M) bool, false where `truth` is padding, which never matches.
        Returns:
            (N, R) int64: row of `truth`, or BACKGROUND, or IGNORE.
        """
        num_images, num_truth = valid.shape
        num_candidates = candidates.shape[-2]
        best = truth.new_full((num_images, num_candidates), -1.0)
        matches = torch.zeros((num_images, num_candidates), dtype=torch.int64, device=truth.device)
        forced = torch.zeros_like(matches, dtype=torch.bool)
        max_pairs = MAX_PAIRS.get(truth.device.type, MAX_PAIRS_ELSEWHERE)
        step = max(1, max_pairs // max(1, num_images * num_candidates))
        for start in range(0, num_truth if num_candidates else 0, step):  # few rounds, bounded memory
            rows = slice(start, start + step)
            quality = pairwise_iou(truth[:, rows], candidates)  # (N, m, R)
            quality = quality.masked_fill(~valid[:, rows, None], -1.0)
            found, row = quality.max(dim=1)  # (N, R)
            matches = torch.where(found > best, row + start, matches)  # of equals the first, as in one round
            best = torch.maximum(found, best)
            if self.allow_low_quality_matches:
                forced |= (_is_best_of_a_row(quality) & valid[:, rows, None]).any(dim=1)
        labels = self._label(best).masked_fill(forced, 1)
        rows_or_labels = torch.where(labels == 0, BACKGROUND, IGNORE)
        positive = (labels == 1) & valid.any(dim=1, keepdim=True)
        return torch.where(positive, matches, rows_or_labels)

    def _label(self, best: Tensor) -> Tensor:
        """Best overlaps to int8 labels; what is below every threshold, or NaN, gets the first label."""
        labels = torch.full_like(best, self.labels[0], dtype=torch.int8)
        for threshold, label in zip(self.thresholds, self.labels[1:], strict=True):
            labels = labels.masked_fill(best >= threshold, label)
        return labels

    def __repr__(self) -> str:
        return f"Matcher({self.thresholds}, {self.labels}, allow_low_quality_matches={self.allow_low_quality_matches})"


def _is_best_of_a_row(quality: Tensor) -> Tensor:
    """(..., M, R) -> bool: this candidate overlaps this ground-truth box as well as the best one does."""
    return quality == quality.amax(dim=-1, keepdim=True)
