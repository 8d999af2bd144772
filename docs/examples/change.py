"""Change detection: which pixels of a second image of the same place show something new, or miss something.

Source: Daudt, Le Saux, Boulch, "Fully Convolutional Siamese Networks for Change Detection", arXiv:1810.08462: one
encoder sees both images (section 3.2); as there, the decoder gets the features of both, and their difference besides.
Letters: N images, C channels, H x W padded input pixels, s a level's stride.

    vertebra train docs/examples/change.yaml -o runs/change
    vertebra predict runs/change/recipe.yaml before.png --input 'after=after.png' -w runs/change/final.pth
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from vertebra import BACKBONES, FORMATS, Backbone, Dataset, Metadata, ShapeSpec
from vertebra.data import ShapesFormat

__all__ = ["ChangeShapes", "SiameseBackbone"]

CLASSES = ("unchanged", "gone", "new")
GONE, NEW, IGNORED = 1, 2, 255


@FORMATS.register()
class ChangeShapes(ShapesFormat):
    """Two images of each scene of `shapes`: objects are gone or new in the second, whose light differs too.

    Args:
        share: of the objects that change.
    """

    extra_fields = {"after": {"geometry": "image"}}

    def __init__(
        self,
        images: int = 400,
        split: str = "train",
        val_images: int | None = None,
        size: int = 128,
        share: float = 0.5,
    ) -> None:
        super().__init__(images, split, val_images, size=size, crowds=0.0)
        self.share = share

    def extend(self, folder, image, annotations, scene, rng):
        # What covers something else stays, so that what is erased shows the background and nothing else.
        overlapped = [
            any((one.mask & other.mask).any() for other in scene.things if other is not one) for one in scene.things
        ]
        occupied = grown(np.any([thing.mask for thing in scene.things], axis=0)) if scene.things else None
        before, after = scene.image.copy(), scene.image.copy()
        labels = np.zeros(scene.stuff.shape, np.uint8)
        for thing, blocked in zip(scene.things, overlapped, strict=True):
            if blocked or rng.uniform() >= self.share:
                continue
            gone = rng.uniform() < 0.5
            erase(after if gone else before, thing.mask, occupied, rng)
            labels[thing.visible] = GONE if gone else NEW
        gain, offset = rng.uniform(0.7, 1.2), rng.uniform(-15, 15)
        noisy = after * gain + offset + rng.normal(0, 4, after.shape)
        stem = Path(image["file_name"]).stem
        image["file_name"], image["after"] = f"{stem}.png", f"{stem}_after.png"
        Image.fromarray(before).save(folder / image["file_name"])
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / image["after"])
        Image.fromarray(labels).save(folder / f"{stem}_change.png")

    def load(self, root=None) -> Dataset:
        kept = ("file_name", "after", "height", "width", "image_id")
        dicts = [
            {**{key: one[key] for key in kept}, "sem_seg_file_name": one["file_name"].replace(".png", "_change.png")}
            for one in super().load(root)
        ]
        facts = {"stuff_classes": list(CLASSES), "ignore_label": IGNORED, "extra_fields": self.extra_fields}
        return Dataset(dicts, Metadata(f"change/{self.split}").set(**facts))


def grown(mask: np.ndarray) -> np.ndarray:
    """The mask (H, W) and the two pixels around it, where an object's soft rim is."""
    return np.asarray(Image.fromarray(mask).convert("L").filter(ImageFilter.MaxFilter(5))) > 0


def erase(image: np.ndarray, mask: np.ndarray, occupied: np.ndarray, rng: np.random.Generator) -> None:
    """Covers an object in `image` (H, W, 3), in place, with the background from beside it.

    Args:
        mask: (H, W) bool, the object.
        occupied: (H, W) bool, all objects: the place that covers the least of them is taken.
    """
    hole = grown(mask)
    height, width = hole.shape
    shifts = rng.integers((-height // 2, -width // 2), (height // 2, width // 2), (24, 2))
    covered = [np.count_nonzero(np.roll(occupied, shift, axis=(0, 1)) & hole) for shift in shifts]
    image[hole] = np.roll(image, shifts[int(np.argmin(covered))], axis=(0, 1))[hole]


@BACKBONES.register()
class SiameseBackbone(Backbone):
    """The features of an encoder in both images, and how they differ: the levels of the encoder, three times as wide.

    Args:
        encoder: sees one image at a time.
    """

    needs_fields = {"after": "image"}

    def __init__(self, encoder: Backbone) -> None:
        super().__init__()
        self.encoder = encoder

    @property
    def size_divisibility(self) -> int:
        return self.encoder.size_divisibility

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {
            name: ShapeSpec(3 * shape.channels, shape.stride) for name, shape in self.encoder.output_shape().items()
        }

    def forward(self, images: Tensor, after: Tensor) -> dict[str, Tensor]:
        """Two images (N, C, H, W) to {level: (N, 3 C_l, H/s, W/s)}."""
        both = self.encoder(torch.cat((images, after)))  # in one call, so that a batch norm sees both alike
        features = {}
        for name, maps in both.items():
            first, second = maps.chunk(2)
            features[name] = torch.cat((first, second, (first - second).abs()), dim=1)
        return features
