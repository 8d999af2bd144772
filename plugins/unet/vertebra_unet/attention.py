"""Attention gates: a skip connection is weighed, place by place, by what the coarser level knows.

Source: Oktay et al., "Attention U-Net: Learning Where to Look for the Pancreas", arXiv:1804.03999, section 2.1.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["AttentionGate"]


@dataclass(frozen=True)
class AttentionGate:
    """Describes the gate of every skip connection of a decoder; the decoder makes the modules.

    Args:
        ratio: channels of the joint space, as a part of the skip's own; at least one.
    """

    component_kind: ClassVar[str] = "part"

    ratio: float = 0.5

    def __post_init__(self) -> None:
        if not self.ratio > 0:
            raise ValueError(f"AttentionGate: ratio is {self.ratio}, it must be above 0")

    def make(self, skip_channels: int, gate_channels: int) -> nn.Module:
        """A module from a skip (N, C, H, W) and the coarser map (N, G, h, w) to the weighed skip."""
        return _Gate(skip_channels, gate_channels, max(round(skip_channels * self.ratio), 1))


class _Gate(nn.Module):
    """skip * sigmoid(psi(relu(W_x skip + W_g gate + b_g)) + b_psi), equations 1 and 2.

    The sum is taken at the coarser map's size, where W_x has stride 2, and the weights are interpolated bilinearly.
    """

    def __init__(self, skip_channels: int, gate_channels: int, joint_channels: int) -> None:
        super().__init__()
        self.skip = nn.Conv2d(skip_channels, joint_channels, 2, stride=2, bias=False)
        self.gate = nn.Conv2d(gate_channels, joint_channels, 1)
        self.psi = nn.Conv2d(joint_channels, 1, 1)

    def forward(self, skip: Tensor, gate: Tensor) -> Tensor:
        joint = self.skip(skip)  # (N, J, H / 2, W / 2)
        if joint.shape[-2:] != gate.shape[-2:]:
            gate = F.interpolate(gate, size=joint.shape[-2:], mode="bilinear", align_corners=False)
        weight = self.psi(F.relu(joint + self.gate(gate))).sigmoid()  # (N, 1, H / 2, W / 2)
        return skip * F.interpolate(weight, size=skip.shape[-2:], mode="bilinear", align_corners=False)
