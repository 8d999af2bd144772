"""Thirteen bands: materials that look alike in red, green and blue, told apart by what they reflect elsewhere.

Source: the bands of Sentinel-2's instrument MSI (Drusch et al., "Sentinel-2: ESA's Optical High-Resolution Mission for
GMES Operational Services", Remote Sensing of Environment 120, 2012, table 1).

    vertebra train docs/examples/spectral.yaml -o runs/spectral
    vertebra predict runs/spectral/recipe.yaml scene.tif -w runs/spectral/final.pth
"""

from pathlib import Path

import numpy as np
import tifffile
import torch
from PIL import Image
from torch import Tensor

from vertebra import FORMATS, TRANSFORMS, Dataset, Metadata
from vertebra.data import ShapesFormat
from vertebra.data.transforms import ColorTransform

__all__ = ["BandDropout", "SpectralShapes"]

WAVELENGTHS = (443, 490, 560, 665, 705, 740, 783, 842, 865, 945, 1375, 1610, 2190)  # nm, bands B1 to B12 with B8A
BLUE, GREEN, RED = 1, 2, 3
MATERIALS = {  # typical reflectances in percent, rounded
    "soil": (10, 12, 16, 20, 23, 25, 27, 28, 30, 30, 1, 38, 33),
    "grass": (3, 4, 8, 5, 12, 30, 38, 40, 42, 40, 1, 22, 12),
    "water": (6, 6, 5, 3, 2, 2, 1, 1, 1, 1, 0, 1, 0),
    "concrete": (20, 22, 25, 27, 28, 29, 30, 30, 31, 30, 1, 32, 30),
    "snow": (90, 90, 88, 86, 85, 84, 82, 80, 78, 70, 2, 12, 8),
    "straw": (4, 6, 10, 16, 19, 22, 25, 28, 31, 32, 1, 38, 26),
}
GROUND = 3  # the first three materials are those of the background
WHITE = 10000  # the files hold reflectances times this number, as Sentinel-2's products do


@FORMATS.register()
class SpectralShapes(ShapesFormat):
    """`shapes` whose objects have a random material each, whatever their form and color. Semantic labels: `MATERIALS`.

    Args:
        noise: standard deviation of a band's relative error.
    """

    def __init__(
        self,
        images: int = 400,
        split: str = "train",
        val_images: int | None = None,
        size: int = 128,
        noise: float = 0.3,
    ) -> None:
        super().__init__(images, split, val_images, size=size)
        self.noise = noise

    def extend(self, folder, image, annotations, scene, rng):
        labels = scene.stuff.astype(np.int64) % GROUND
        for thing in scene.things:
            labels[thing.visible] = rng.integers(GROUND, len(MATERIALS))
        spectra = np.array(list(MATERIALS.values()), np.float32) * (WHITE / 100)  # (materials, bands)
        shade = scene.image.mean(axis=2, keepdims=True) / 128  # (H, W, 1): lit and shadowed parts
        bands = spectra[labels] * shade * (1 + rng.normal(0, self.noise, (*labels.shape, len(WAVELENGTHS))))
        # What the eye sees tells nothing about the material.
        bands[..., [RED, GREEN, BLUE]] = scene.image / 255.0 * WHITE
        stem = Path(image["file_name"]).stem
        image["file_name"] = f"{stem}.tif"
        values = bands.clip(0, WHITE).astype(np.uint16)
        tifffile.imwrite(folder / image["file_name"], values, photometric="minisblack", planarconfig="contig")
        labels[scene.border] = 255
        Image.fromarray(labels.astype(np.uint8)).save(folder / f"{stem}_labels.png")

    def load(self, root=None) -> Dataset:
        dicts = [
            {
                **{key: one[key] for key in ("file_name", "height", "width", "image_id")},
                "sem_seg_file_name": one["file_name"].replace(".tif", "_labels.png"),
            }
            for one in super().load(root)
        ]
        return Dataset(dicts, Metadata(f"spectral/{self.split}").set(stuff_classes=list(MATERIALS), ignore_label=255))


@TRANSFORMS.register()
class BandDropout(ColorTransform):
    """Sets random bands to 0, as where a detector fails, so that a model does not hang on a single one.

    Args:
        bands: at most this many.
        prob, images: see `ColorTransform`.
    """

    def __init__(self, bands: int = 3, prob: float = 0.5, images: tuple[str, ...] = ("image",)) -> None:
        super().__init__(prob, images)
        self.bands = bands

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(1, self.bands + 1))

    def recolor(self, pixels: Tensor, highest: float, amounts: int, rng: np.random.Generator) -> Tensor:
        """(C, H, W) with `amounts` channels of 0."""
        dropped = torch.from_numpy(rng.permutation(len(pixels))[:amounts])
        return pixels.index_fill(0, dropped, 0)
