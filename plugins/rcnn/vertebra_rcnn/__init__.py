"""Fast, Faster, Cascade, Mask and Keypoint R-CNN and R-FCN for Vertebra: the head `RCNNHead` and its parts."""

from vertebra_rcnn.boxes import BoxBranch, BoxPredictor, ROIBoxes
from vertebra_rcnn.cascade import CascadeBoxes
from vertebra_rcnn.head import RCNNHead, RCNNRaw
from vertebra_rcnn.keypoints import KeypointBranch, ROIKeypoints
from vertebra_rcnn.mask_output import BitmapOutput, MaskOutput, RunLengthOutput
from vertebra_rcnn.masks import MaskBranch, ROIMasks
from vertebra_rcnn.pooling import PSROIAlign, PSROIPool, RegionOperator, RegionPooler, ROIAlign, ROIPool, ROIPooler
from vertebra_rcnn.proposals import PrecomputedProposals, ProposalGenerator
from vertebra_rcnn.region_heads import FastRCNNConvFCHead, RegionHead, Res5
from vertebra_rcnn.regions import Proposals, Regions, Truth
from vertebra_rcnn.rfcn import RFCNBoxes
from vertebra_rcnn.rpn import RPN, RPNRaw
from vertebra_rcnn.samplers import OrderedSampler, RandomSampler, Sampler
from vertebra_rcnn.shared_features import SharedBoxFeatures

__all__ = [
    "RPN",
    "BitmapOutput",
    "BoxBranch",
    "BoxPredictor",
    "CascadeBoxes",
    "FastRCNNConvFCHead",
    "KeypointBranch",
    "MaskBranch",
    "MaskOutput",
    "OrderedSampler",
    "PSROIAlign",
    "PSROIPool",
    "PrecomputedProposals",
    "ProposalGenerator",
    "Proposals",
    "RCNNHead",
    "RCNNRaw",
    "RFCNBoxes",
    "ROIAlign",
    "ROIBoxes",
    "ROIKeypoints",
    "ROIMasks",
    "ROIPool",
    "ROIPooler",
    "RPNRaw",
    "RandomSampler",
    "RegionHead",
    "RegionOperator",
    "RegionPooler",
    "Regions",
    "Res5",
    "RunLengthOutput",
    "Sampler",
    "SharedBoxFeatures",
    "Truth",
]
