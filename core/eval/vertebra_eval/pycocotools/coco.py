"""`COCO` of pycocotools, loading faster."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pycocotools import coco as reference

__all__ = ["COCO", "collector_paused"]


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pauses Python's cyclic garbage collector: creating a million objects triggers it often, and it finds nothing."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class COCO(reference.COCO):
    """A COCO annotation file and its index. Attributes, methods, printed lines and errors are pycocotools'.

    `loadRes` gives an object of this class, also when called with an object of pycocotools' class.
    """

    def __init__(self, annotation_file: str | None = None) -> None:
        with collector_paused():
            super().__init__(annotation_file)

    def createIndex(self) -> None:  # noqa: N802
        with collector_paused():
            super().createIndex()

    def getAnnIds(  # noqa: N802
        self, imgIds: Any = (), catIds: Any = (), areaRng: Sequence[float] = (), iscrowd: bool | None = None
    ) -> list:
        if isinstance(catIds, list):
            catIds = set(catIds)  # every annotation is looked up in it
        return super().getAnnIds(imgIds, catIds, areaRng, iscrowd)

    def loadRes(self, resFile: Any) -> COCO:  # noqa: N802
        with collector_paused():
            loaded = reference.COCO.loadRes(self, resFile)
        results = COCO()
        results.__dict__.update(loaded.__dict__)
        return results
