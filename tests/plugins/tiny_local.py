"""The source of a local plugin: a head that learns a constant, and a transform that does nothing."""

SOURCE = """
import torch
from torch import nn

from vertebra import HEADS, TRANSFORMS, Boxes, Head, Instances, Transform


@HEADS.register()
class TinyHead(Head):
    def __init__(self, input_shape: dict, num_classes: int, *, gain: float = 1.0) -> None:
        super().__init__()
        self.name = max(input_shape, key=lambda name: input_shape[name].stride)
        self.conv = nn.Conv2d(input_shape[self.name].channels, 1, 1)
        self.gain = gain

    def forward(self, features):
        return self.conv(features[self.name])

    def losses(self, raw, batch):
        return {"distance": (raw.mean() - self.gain) ** 2}

    def predict(self, raw, batch):
        none = torch.zeros(0)
        return [
            {"instances": Instances(size, pred_boxes=Boxes(none.view(0, 4)), scores=none, pred_classes=none.long())}
            for size in batch.original_sizes
        ]


@TRANSFORMS.register()
class Nothing(Transform):
    def __call__(self, sample, rng):
        return sample
"""

RECIPE = """
plugins: [./my_head.py]
model:
  backbone: {name: ResNet, depth: 18, norm: bn, freeze_at: 0, stem_out_channels: 8,
             out_features: [res2]}
  heads: {boxes: {name: TinyHead}}
data:
  train: {format: shapes, images: 4, split: train, size: [64, 64]}
  val: {format: shapes, images: 4, split: val, size: [64, 64]}
  train_transforms: [Nothing]
  eval_transforms: []
  workers: 0
train: {steps: 2, batch_size: 2, log_every: 1, checkpoint_every: 2}
evaluate: {pictures: 0, report: false}
"""
