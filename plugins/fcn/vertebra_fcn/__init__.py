"""FCN (arXiv:1411.4038) for Vertebra: the paper's head, two light ones, and torchvision's on dilated networks."""

from vertebra_fcn.conv_head import FCNConvHead
from vertebra_fcn.head import FCNHead
from vertebra_fcn.light_heads import FCNLightHead, FCNSumHead

__all__ = ["FCNConvHead", "FCNHead", "FCNLightHead", "FCNSumHead"]
