"""U-Net (arXiv:1505.04597) and U-Net++ (arXiv:1807.10165) for Vertebra: encoder, decoders, heads and their parts."""

from vertebra_unet.attention import AttentionGate
from vertebra_unet.decoder import UNetDecoder
from vertebra_unet.encoder import UNetEncoder
from vertebra_unet.head import UNetHead
from vertebra_unet.plusplus import UNetPlusPlusDecoder, UNetPlusPlusHead
from vertebra_unet.upsampling import Interpolation, TransposedConvolution, Upsampling

__all__ = [
    "AttentionGate",
    "Interpolation",
    "TransposedConvolution",
    "UNetDecoder",
    "UNetEncoder",
    "UNetHead",
    "UNetPlusPlusDecoder",
    "UNetPlusPlusHead",
    "Upsampling",
]
