"""The whole pipeline as a model: an image's proposals, their features, the SVMs' answers, the refined boxes.

Source: Girshick et al., "Rich feature hierarchies for accurate object detection", arXiv:1311.2524.
Letters: P proposals of an image, D features, K classes, M ground-truth boxes.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vertebra.data import Dataset, Metadata, build_mapper
from vertebra.detection import Suppression, rescale_instances
from vertebra.errors import DataError
from vertebra.files import open_whole
from vertebra.models import check_archive
from vertebra.structures import pairwise_iou
from vertebra_rcnn.classic.linear import BoxRidges, LinearClassifiers
from vertebra_rcnn.classic.selective_search import selective_search
from vertebra_rcnn.classic.warped import WarpedFeatures
from vertebra_rcnn.detections import select_detections

__all__ = ["ClassicRCNN"]

logger = logging.getLogger(__name__)


class ClassicRCNN(nn.Module):
    """Takes inputs and gives predictions as any other model; learns by `fit` and not by gradients.

    Args:
        features: of warped regions.
        num_classes: K.
        max_proposals: of an image.
        max_regions: kept of all images together to learn from, each image as many; bounds the memory (8 KB each with
            512 channels and 2 x 2 cells). Regions that overlap an object come first, the others by chance.
        reverse_channels: the backbone wants blue first.
        score_threshold, nms_threshold, max_detections: see `Suppression`; scores are the sigmoid of the SVMs' answers.
        metadata: facts of the dataset whose classes it learns.
    """

    def __init__(
        self,
        features: WarpedFeatures,
        num_classes: int,
        *,
        max_proposals: int = 300,
        max_regions: int = 20_000,
        reverse_channels: bool = False,
        score_threshold: float = 0.2,
        nms_threshold: float = 0.3,
        max_detections: int = 100,
        seed: int = 0,
        metadata: Metadata | None = None,
    ) -> None:
        super().__init__()
        self.metadata = metadata
        self.features = features
        self.num_classes = num_classes
        if max_proposals < 1 or max_regions < 1:
            raise ValueError(
                f"ClassicRCNN: max_proposals {max_proposals} and max_regions {max_regions} must be above 0"
            )
        self.max_proposals = max_proposals
        self.max_regions = max_regions
        self.reverse_channels = reverse_channels
        self.score_threshold = score_threshold
        self.nms_threshold = nms_threshold
        self.max_detections = max_detections
        self.seed = seed
        self.classifiers: LinearClassifiers | None = None
        self.ridges: BoxRidges | None = None

    @property
    def device(self) -> torch.device:
        return self.features.pixel_mean.device

    def propose(self, image: Tensor) -> Tensor:
        """Image (3, H, W) uint8 RGB to boxes (P, 4) xyxy in pixels."""
        pixels = image.permute(1, 2, 0).cpu().numpy()
        boxes = selective_search(pixels, np.random.default_rng(self.seed))[: self.max_proposals]
        return torch.from_numpy(boxes)

    def describe(self, image: Tensor, boxes: Tensor) -> np.ndarray:
        """Feature vectors (P, D) of boxes."""
        image = image.to(self.device)
        return self.features(image.flip(0) if self.reverse_channels else image, boxes).cpu().numpy()

    def fit(self, dataset: Dataset, recipe: Any) -> dict[str, int]:
        """Learns SVMs and box regressions from a dataset, its images as the recipe's `eval_transforms` make them.

        Returns:
            Numbers of images, regions and ground-truth boxes learned from.
        Raises:
            DataError: no image has a ground-truth box.
        """
        mapper = build_mapper(_plain(recipe), dataset, training=True)
        rng = np.random.default_rng(self.seed)
        most = max(1, self.max_regions // max(len(dataset.dicts), 1))
        columns: dict[str, list[np.ndarray]] = {}
        for number, record in enumerate(dataset.dicts):
            sample = mapper(record, index=number)
            for name, rows in self._rows(sample["image"], sample["instances"], most, rng).items():
                columns.setdefault(name, []).append(rows)
            if number % 20 == 19:
                logger.info("features of %d of %d images", number + 1, len(dataset.dicts))
        if not any(rows.any() for rows in columns.get("is_truth", ())):
            raise DataError(f"{dataset.name}: no image has a ground-truth box; there is nothing to learn")
        table = {name: np.concatenate(columns.pop(name)) for name in list(columns)}
        self.classifiers = LinearClassifiers.fit(table["features"], table["overlaps"], table["is_truth"], rng)
        self.ridges = BoxRidges.fit(table["features"], table["boxes"], table["truth"], table["overlaps"])
        objects = int(table["is_truth"].sum())
        return {"images": len(dataset.dicts), "regions": len(table["features"]) - objects, "objects": objects}

    @torch.no_grad()
    def forward(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """One dict with `instances` for each input, in the original size."""
        classifiers, ridges = self._learned()
        return [{"instances": self._detect(sample, classifiers, ridges)} for sample in inputs]

    def save(self, path: Path) -> None:
        """What `fit` has learned, as an `.npz` of numbers; the backbone is not in it."""
        svm, ridge = self._learned()
        with open_whole(path) as file:
            np.savez_compressed(
                file,
                svm_weight=svm.weight,
                svm_bias=svm.bias,
                svm_factor=svm.factor,
                ridge_weight=ridge.weight,
                ridge_bias=ridge.bias,
                ridge_factor=ridge.factor,
            )

    def load(self, path: Path) -> None:
        """What `save` has written."""
        check_archive(path)
        with np.load(path, allow_pickle=False) as file:
            svm = LinearClassifiers(file["svm_weight"], file["svm_bias"], float(file["svm_factor"]))
            ridge = BoxRidges(file["ridge_weight"], file["ridge_bias"], float(file["ridge_factor"]))
        if svm.weight.shape != (self.num_classes, self.features.out_channels):
            raise DataError(
                f"{path}: is for {svm.weight.shape[0]} classes and {svm.weight.shape[1]} features, "
                f"this model has {self.num_classes} and {self.features.out_channels}"
            )
        self.classifiers, self.ridges = svm, ridge

    def _learned(self) -> tuple[LinearClassifiers, BoxRidges]:
        if self.classifiers is None or self.ridges is None:
            raise ValueError("ClassicRCNN is not trained yet; call fit first, or load a saved state")
        return self.classifiers, self.ridges

    def _rows(self, image: Tensor, instances: Any, most: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """What one image adds to the training: at most this many of its proposals, then its ground-truth boxes."""
        truth, classes = instances.gt_boxes.tensor, instances.gt_classes
        boxes = torch.cat((_chosen(self.propose(image), truth, most, rng), truth))  # (P + M, 4)
        iou = pairwise_iou(boxes, truth)  # (P + M, M)
        overlaps, best = torch.zeros(len(boxes), self.num_classes), torch.zeros(len(boxes), self.num_classes, 4)
        is_truth = torch.zeros(len(boxes), self.num_classes, dtype=torch.bool)
        for label in classes.unique().tolist():
            mine = (classes == label).nonzero().flatten()
            overlaps[:, label], row = iou[:, mine].max(dim=1)
            best[:, label] = truth[mine[row]]
            is_truth[len(boxes) - len(truth) + mine, label] = True
        return {
            "features": self.describe(image, boxes),
            "boxes": boxes.numpy(),
            "overlaps": overlaps.numpy(),
            "truth": best.numpy(),
            "is_truth": is_truth.numpy(),
        }

    def _detect(self, sample: dict[str, Any], classifiers: LinearClassifiers, ridges: BoxRidges) -> Any:
        image = sample["image"]
        size = tuple(image.shape[-2:])
        boxes = self.propose(image)
        features = self.describe(image, boxes)
        scores = torch.from_numpy(classifiers.scores(features)).float().sigmoid()
        found = select_detections(
            scores,
            ridges.refined(features, boxes),
            torch.zeros(len(boxes), dtype=torch.int64),
            [size],
            Suppression(self.score_threshold, None, self.nms_threshold, max_detections=self.max_detections),
        )[0]
        return rescale_instances(found, sample.get("height", size[0]), sample.get("width", size[1]))


def _chosen(boxes: Tensor, truth: Tensor, most: int, rng: np.random.Generator) -> Tensor:
    """At most this many of the boxes (P, 4), those that overlap an object first, otherwise by chance."""
    if len(boxes) <= most:
        return boxes
    lots = torch.from_numpy(rng.random(len(boxes)))
    if len(truth):
        lots += pairwise_iou(boxes, truth).max(dim=1).values >= 0.3
    return boxes[lots.topk(most).indices.sort().values]


def _plain(recipe: Any) -> Any:
    """The recipe with the transforms of evaluation in training too: nothing here is trained for several epochs."""
    from dataclasses import replace

    return replace(recipe, data=replace(recipe.data, train_transforms=recipe.data.eval_transforms, mask_format="none"))
