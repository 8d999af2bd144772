"""Where proposals come from: the contract, and proposals that were made beforehand."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vertebra.errors import DataError
from vertebra.models import Batch, describe_input
from vertebra.structures import pad_rows
from vertebra_rcnn.regions import Proposals, Truth

__all__ = ["PrecomputedProposals", "ProposalGenerator"]


class ProposalGenerator(nn.Module):
    """Features to proposals, in the three parts of a head: what needs no ground truth, losses, and the proposals."""

    component_kind: ClassVar[str] = "part"

    def forward(self, features: dict[str, Tensor]) -> Any:
        """Features to raw outputs: a tensor, or a dict, list or NamedTuple of tensors, perhaps an empty one."""
        raise NotImplementedError

    def losses(self, raw: Any, truth: Truth) -> dict[str, Tensor]:
        """Named scalars, already weighted; none where nothing is learned."""
        raise NotImplementedError

    def proposals(self, raw: Any, batch: Batch) -> Proposals:
        """Boxes for each image, best first, without a gradient."""
        raise NotImplementedError


class PrecomputedProposals(ProposalGenerator):
    """Fast R-CNN's: the inputs bring them as `proposals`, Instances with `proposal_boxes` and `objectness_logits`.

    A dataset brings them with the format `with_proposals`, or by Detectron2's keys of its dicts: `proposal_boxes`,
    `proposal_objectness_logits` and `proposal_bbox_mode`.

    Args:
        topk_train, topk_test: number of the best per image used in training, and in evaluation.
    """

    def __init__(self, *, topk_train: int = 2000, topk_test: int = 1000) -> None:
        super().__init__()
        if min(topk_train, topk_test) < 1:
            raise ValueError(f"PrecomputedProposals: topk_train {topk_train} and topk_test {topk_test} must be above 0")
        self.topk_train = topk_train
        self.topk_test = topk_test

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {}

    def losses(self, raw: dict[str, Tensor], truth: Truth) -> dict[str, Tensor]:
        return {}

    @torch.no_grad()
    def proposals(self, raw: dict[str, Tensor], batch: Batch) -> Proposals:
        most = self.topk_train if self.training else self.topk_test
        given = [self._of(sample, row, most, batch.device) for row, sample in enumerate(batch.inputs)]
        boxes, valid = pad_rows([boxes for boxes, _ in given])
        logits, _ = pad_rows([logits for _, logits in given])
        return Proposals(boxes, logits, valid)

    def _of(self, sample: dict[str, Any], row: int, most: int, device: torch.device) -> tuple[Tensor, Tensor]:
        found = sample.get("proposals")
        if found is None or not found.has("proposal_boxes") or not found.has("objectness_logits"):
            raise DataError(
                f"{describe_input(sample, row)}: has no `proposals` (Instances with proposal_boxes and "
                "objectness_logits), and the model makes none.\n"
                "  Give the dataset as {format: with_proposals, dataset: ..., proposals: FILE}, or use the RPN"
            )
        boxes, logits = found.proposal_boxes.tensor.to(device), found.objectness_logits.float().to(device)
        best = logits.topk(min(most, len(logits))).indices
        return boxes[best], logits[best]
