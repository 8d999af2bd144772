"""Depth as a further task: a field of the data, a head beside the detector's, an evaluator and pictures, in one file.

Source: Eigen, Puhrsch, Fergus, "Depth Map Prediction from a Single Image using a Multi-Scale Deep Network",
arXiv:1406.2283: the scale-invariant loss (section 3.2) and the measures (section 4).
Letters: N images, C channels, H x W padded input pixels, h x w cells of the finest level.

    vertebra train docs/examples/depth.yaml -o runs/depth
    vertebra predict runs/depth/recipe.yaml photo.jpg -w runs/depth/final.pth
"""

from pathlib import Path

import matplotlib
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vertebra import EVALUATORS, FORMATS, HEADS, Batch, Evaluator, Head, ShapeSpec
from vertebra.data import ShapesFormat
from vertebra.detection import sem_seg_postprocess
from vertebra.evaluation import Gallery, Section, draw_pairs
from vertebra.models import finest_first, same_channels
from vertebra.runtime import gather_to_main, on_main_process
from vertebra.visualize import side_by_side

__all__ = ["DepthEvaluator", "DepthHead", "DepthShapes"]

NEAR, FAR = 2.0, 12.0  # meters: the ends of the colors


@FORMATS.register()
class DepthShapes(ShapesFormat):
    """`shapes` with a depth map of each picture: every object is a meter wide, and stands before a sloping ground."""

    extra_fields = {"depth": {"geometry": "dense_map", "fill": "nan"}}

    def extend(self, folder, image, annotations, scene, rng):
        height, width = scene.stuff.shape
        depth = np.linspace(12, 8, height, dtype=np.float32)[:, None].repeat(width, axis=1)  # farther at the top
        for thing in scene.things:
            # A pinhole camera sees an object of one meter at distance d over focal / d pixels. Crowds are not measured.
            depth[thing.visible] = np.nan if thing.crowd else 200 / np.sqrt(np.count_nonzero(thing.mask))
        image["depth"] = f"{Path(image['file_name']).stem}_depth.npy"
        np.save(folder / image["depth"], depth)


@HEADS.register()
class DepthHead(Head):
    """`depth` (height, width) float32 in meters, from all levels of a pyramid.

    Args:
        width: channels of the two hidden layers.
        invariance: lambda of the loss: 0 judges each pixel alone, 1 is blind to a factor common to all pixels.
        loss_weight: of this task beside the others.
    """

    task_outputs = ("depth",)
    needs_fields = {"depth": "dense_map"}

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        width: int = 64,
        invariance: float = 0.5,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.levels = finest_first("DepthHead", input_shape)
        channels = same_channels("DepthHead", input_shape, self.levels)
        self.hidden = nn.Sequential(
            *(nn.Conv2d(channels, width, 3, padding=1), nn.GroupNorm(8, width), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(8, width), nn.ReLU()),
        )
        self.log_depth = nn.Conv2d(width, 1, 1)
        nn.init.constant_(self.log_depth.bias, 2.0)  # exp(2) = 7 m, about the middle of the range
        self.invariance = invariance
        self.loss_weight = loss_weight

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Log depth (N, 1, h, w) of the cells."""
        maps = [features[name] for name in self.levels]
        size = maps[0].shape[-2:]
        return self.log_depth(self.hidden(sum(F.interpolate(one, size, mode="bilinear") for one in maps)))

    def losses(self, raw: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Equation 4: the mean of d^2 less lambda times the squared mean of d, d being the error of the log depth."""
        truth = batch.field("depth").flatten(1)  # (N, H * W), nan where nothing is known
        known = truth > 0
        log_depth = F.interpolate(raw.float(), batch.padded_size, mode="bilinear").flatten(1)
        # `where` before the logarithm too: the gradient of log(nan) would be nan even where it is masked afterward
        error = torch.where(known, log_depth - truth.where(known, 1.0).log(), 0.0)
        count = known.sum(dim=1).clamp(min=1)
        loss = (error**2).sum(dim=1) / count - self.invariance * (error.sum(dim=1) / count) ** 2
        return {"loss_depth": self.loss_weight * loss.mean()}

    def predict(self, raw: Tensor, batch: Batch) -> list[dict]:
        """{"depth": (height, width)} for each image, in its original size."""
        depth = F.interpolate(raw.float(), batch.padded_size, mode="bilinear").exp()
        sizes = zip(depth, batch.image_sizes, batch.original_sizes, strict=True)
        return [{"depth": sem_seg_postprocess(one, size, *original)[0]} for one, size, original in sizes]

    def draw(self, picture: np.ndarray, output: dict, metadata) -> np.ndarray:
        return side_by_side(picture, in_color(output["depth"].numpy()), ("image", "depth"))


@EVALUATORS.register()
class DepthEvaluator(Evaluator):
    """`depth/abs_rel`, `depth/rmse` (meters) and `depth/within_1.25`, over all pixels whose depth is known."""

    needs_fields = {"depth": "dense_map"}

    def reset(self) -> None:
        self.sums = np.zeros(4)  # pixels, and of them: relative errors, squared errors, ratios below 1.25
        self.shown: list[tuple[str, str, np.ndarray, float]] = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for one, output in zip(inputs, outputs, strict=True):
            predicted, truth = output["depth"].cpu().numpy(), np.load(one["depth"])
            known = truth > 0
            ratio = predicted[known] / truth[known]
            errors = np.abs(ratio - 1).sum(), ((predicted - truth)[known] ** 2).sum()
            self.sums += known.sum(), *errors, (np.maximum(ratio, 1 / ratio) < 1.25).sum()
            self.shown.append((one["file_name"], one["depth"], predicted.astype(np.float16), float(errors[0])))

    def evaluate(self) -> dict[str, float | None]:
        shares = gather_to_main((self.sums, self.shown))
        return on_main_process(lambda: self._numbers(shares))

    def _numbers(self, shares: list) -> dict[str, float | None]:
        count, relative, squared, close = sum(sums for sums, _ in shares)
        self.shown = [one for _, shown in shares for one in shown]
        names = ("depth/abs_rel", "depth/rmse", "depth/within_1.25")
        if not count:
            self.reasons |= dict.fromkeys(names, "no pixel has a known depth")
            return dict.fromkeys(names)
        return dict(zip(names, (relative / count, (squared / count) ** 0.5, close / count), strict=True))

    def sections(self, folder: Path, pictures: int) -> list[Section]:
        """The images with the largest errors."""
        worst = sorted(self.shown, key=lambda one: -one[3])
        items = (
            (file, lambda _, truth=truth: in_color(np.load(truth)), lambda _, found=found: in_color(found), "depth")
            for file, truth, found, _ in worst
        )
        drawn = draw_pairs(items, folder / "pictures" / "depth", pictures)
        return [Section("Depth", [Gallery(drawn, f"Red is near ({NEAR:g} m), blue is far ({FAR:g} m).")])]


def in_color(depth: np.ndarray) -> np.ndarray:
    """Meters (H, W) to (H, W, 3) uint8, black where nothing is known."""
    share = np.clip((FAR - depth.astype(np.float32)) / (FAR - NEAR), 0, 1)
    colors = matplotlib.colormaps["turbo"](np.nan_to_num(share))[..., :3]
    return (255 * colors * np.isfinite(depth)[..., None]).astype(np.uint8)
