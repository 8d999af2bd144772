"""The core's own backbones, neck, losses, evaluator and hooks keep what the conformance kit asks of a plugin's."""

from __future__ import annotations

from vertebra.registry import LOSSES
from vertebra.testing import (
    BackboneConformance,
    EvaluatorConformance,
    HookConformance,
    LossConformance,
    NeckConformance,
)


class TestResNet(BackboneConformance):
    component = "ResNet"
    arguments = {"depth": 18, "norm": "bn"}


class TestFrozenBottleneckResNet(BackboneConformance):
    component = "ResNet"
    arguments = {"depth": 50, "norm": "frozen_bn", "freeze_at": 2}
    cells = (1, 2)


class TestVGG(BackboneConformance):
    component = "VGG"
    arguments = {"depth": 11}


class TestMobileNetV2(BackboneConformance):
    component = "MobileNetV2"


class TestMobileNetV3(BackboneConformance):
    component = "MobileNetV3"


class TestTimm(BackboneConformance):
    component = "timm"
    arguments = {"model": "resnet10t", "pretrained": False}


class TestTimmTransformer(BackboneConformance):
    component = "timm"
    arguments = {"model": "vit_tiny_patch16_224", "out_indices": [1], "depth": 2, "embed_dim": 48}


class TestLoRA(BackboneConformance):
    component = "LoRA"
    arguments = {
        "backbone": {"name": "timm", "model": "vit_tiny_patch16_224", "out_indices": [1], "depth": 2, "embed_dim": 48}
    }


class TestFPN(NeckConformance):
    component = "FPN"
    arguments = {"out_channels": 32}


class TestFPNWithMoreLevels(NeckConformance):
    component = "FPN"
    arguments = {"out_channels": 32, "top_block": {"name": "p6p7"}}


class TestSimpleFeaturePyramid(NeckConformance):
    component = "SimpleFeaturePyramid"
    arguments = {"out_channels": 32}


class TestSigmoidFocalLoss(LossConformance):
    component = "SigmoidFocalLoss"


class TestBinaryCrossEntropy(LossConformance):
    component = "BinaryCrossEntropy"


class TestCrossEntropy(LossConformance):
    component = "CrossEntropy"
    takes = "labels"


class TestHardPixelCrossEntropy(LossConformance):
    component = "HardPixelCrossEntropy"
    takes = "labels"


class TestPixelFocalLoss(LossConformance):
    component = "PixelFocalLoss"
    takes = "labels"


class TestPixelBCE(LossConformance):
    component = "PixelBCE"
    takes = "labels"


class TestDiceLoss(LossConformance):
    component = "DiceLoss"
    arguments = {"squared": True}
    takes = "labels"


class TestJaccardLoss(LossConformance):
    component = "JaccardLoss"
    takes = "labels"


class TestTverskyLoss(LossConformance):
    component = "TverskyLoss"
    takes = "labels"


class TestLovaszSoftmax(LossConformance):
    component = "LovaszSoftmax"
    takes = "labels"


class TestBoundaryLoss(LossConformance):
    component = "BoundaryLoss"
    takes = "labels"


class TestDistanceWeightedCrossEntropy(LossConformance):
    component = "DistanceWeightedCrossEntropy"
    takes = "labels"


class TestCompoundLoss(LossConformance):
    component = "CompoundLoss"
    arguments = {"losses": ["CrossEntropy", {"name": "DiceLoss", "squared": True}], "weights": [1.0, 0.5]}
    takes = "labels"


class TestSmoothL1Loss(LossConformance):
    component = "SmoothL1Loss"
    arguments = {"beta": 0.5}
    takes = "values"


class TestL1Loss(LossConformance):
    component = "L1Loss"
    takes = "values"


class TestIoULoss(LossConformance):
    component = "IoULoss"


class TestGIoULoss(LossConformance):
    component = "GIoULoss"


class TestDIoULoss(LossConformance):
    component = "DIoULoss"


class TestCIoULoss(LossConformance):
    component = "CIoULoss"


class TestCOCOEvaluator(EvaluatorConformance):
    component = "COCOEvaluator"


class TestVOCEvaluator(EvaluatorConformance):
    component = "VOCEvaluator"


class TestLVISEvaluator(EvaluatorConformance):
    component = "LVISEvaluator"
    arguments = {"tasks": ["bbox", "segm"]}


class TestSemSegEvaluator(EvaluatorConformance):
    component = "SemSegEvaluator"


class TestPanopticEvaluator(EvaluatorConformance):
    component = "PanopticEvaluator"


class TestEMA(HookConformance):
    component = "EMA"


class TestEarlyStop(HookConformance):
    component = "EarlyStop"


class TestWarmupMomentum(HookConformance):
    component = "WarmupMomentum"
    changes_training = True
    arguments = {"steps": 3}


class TestTensorBoard(HookConformance):
    component = "TensorBoard"


def test_every_loss_of_the_core_is_among_these():
    from vertebra.plugins import core

    tested = {cls.component for cls in LossConformance.__subclasses__()}
    missing = set(core().components["loss"]) - tested
    assert not missing, f"give each of these a class above: {', '.join(sorted(missing))}"
    assert all(LOSSES.get(name) for name in tested)
