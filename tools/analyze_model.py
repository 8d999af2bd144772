"""Prints the parameters and FLOPs of a recipe's model, part by part, as Detectron2's tools/analyze_model.py does.

    python tools/analyze_model.py --config-file RECIPE [--size 800 1088] [--depth 3] [KEY=VALUE ...]

Counted by fvcore: a multiply-add is one FLOP; operations that it has no rule for are named and not counted. It is the
part of the model between the normalized image and the heads' raw outputs, for one image. What a two-stage head does
with its proposals comes after that.
"""

from __future__ import annotations

import argparse
import logging
import warnings

import torch
from fvcore.nn import FlopCountAnalysis, flop_count_table
from torch import Tensor, nn

from vertebra.config import load_recipe
from vertebra.models import Model, build_model
from vertebra.models.contracts import named_tensors


class Network(nn.Module):
    """The model between images (N, 3, H, W) and raw outputs, as a list of tensors."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> list[Tensor]:
        return [tensor for _, tensor in named_tensors(self.model.compute(images))]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="recipe: a file or plugin:recipe")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(800, 1088), metavar=("H", "W"), help="image in pixels; default: 800 1088"
    )
    parser.add_argument("--depth", type=int, default=3, help="levels of modules in the table; default: 3")
    parser.add_argument("--num-classes", type=int, default=None, help="default: those of the recipe's dataset")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY=VALUE", help="keys of the recipe to replace")
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s")  # fvcore's notes of operations without a rule
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")  # fvcore traces by torch.jit
    model = build_model(load_recipe(options.config_file, options.opts), options.num_classes, pretrained=False).eval()
    with torch.no_grad():
        counted = FlopCountAnalysis(Network(model), torch.zeros(1, model.pixels["image"].channels, *options.size))
        print(flop_count_table(counted, max_depth=options.depth + 1))


if __name__ == "__main__":
    main()
