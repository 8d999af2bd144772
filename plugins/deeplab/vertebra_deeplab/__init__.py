"""DeepLab for Vertebra: the heads of v2 (arXiv:1606.00915), v3 (1706.05587) and v3+ (1802.02611), and Xception."""

from vertebra_deeplab.v2_head import DeepLabV2Head
from vertebra_deeplab.v3_head import DeepLabV3Head
from vertebra_deeplab.v3plus_head import DeepLabV3PlusHead
from vertebra_deeplab.xception import Xception

__all__ = ["DeepLabV2Head", "DeepLabV3Head", "DeepLabV3PlusHead", "Xception"]
