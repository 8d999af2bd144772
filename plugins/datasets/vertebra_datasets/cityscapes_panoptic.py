"""The format `cityscapes_panoptic`: Cityscapes' panoptic files, as cityscapesscripts makes them."""

from __future__ import annotations

from typing import Literal

from vertebra.data import CocoPanopticFormat

__all__ = ["CityscapesPanopticFormat"]


class CityscapesPanopticFormat(CocoPanopticFormat):
    """Cityscapes: `gtFine/cityscapes_panoptic_<split>.json`, its PNG files, and `leftImg8bit/<split>/<city>/`.

    JSON and PNG files are made by cityscapesscripts (createPanopticImgs), with the 19 train ids or all label ids.

    Args:
        split: train, val or test.
        train_ids: whether the files were made with train ids (their names then end in `_trainId`).
        labels: see `coco_panoptic`.
    """

    def __init__(
        self,
        split: Literal["train", "val", "test"] = "train",
        *,
        train_ids: bool = False,
        labels: Literal["all", "stuff"] = "all",
    ) -> None:
        stem = f"gtFine/cityscapes_panoptic_{split}" + "_trainId" * train_ids
        super().__init__(f"{stem}.json", f"leftImg8bit/{split}", panoptic_images=stem, labels=labels, name=stem)

    def image_records(self, images: list) -> list:
        """`aachen_000000_000019_gtFine_leftImg8bit.png` lies in `aachen/`, without `gtFine`."""
        found = []
        for record in images:
            name = record.get("file_name") if isinstance(record, dict) else None
            if isinstance(name, str):
                name = name.replace("_gtFine_leftImg8bit", "_leftImg8bit")
                record = {**record, "file_name": f"{name.split('_')[0]}/{name}"}
            found.append(record)
        return found
