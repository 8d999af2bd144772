"""The fixture `write_pair`: small semantic datasets on disk."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def write_pair(tmp_path):
    """A function that writes an image of noise and its label file, of the labels' size; both paths below `tmp_path`.

    Labels are numbers (H, W) or colors (H, W, 3); `palette` writes numbers as indices of colors.
    """

    def write(image: str, mask: str, labels, palette=None) -> None:
        labels = np.asarray(labels)
        height, width = labels.shape[:2]
        noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        save(tmp_path / image, Image.fromarray(noise))
        picture = Image.fromarray(labels.astype(np.uint16 if labels.max() > 255 else np.uint8))
        if palette is not None:
            picture = picture.convert("P")
            picture.putpalette(palette)
        save(tmp_path / mask, picture)

    return write


def save(path: Path, picture: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
