"""PanopticHead: things of one head and stuff of another, merged into one map.

Source: Kirillov et al., "Panoptic Feature Pyramid Networks", arXiv:1901.02446; Cheng et al., "Panoptic-DeepLab",
arXiv:1911.10194. Which of the two it is, its parts say: Mask R-CNN, a semantic head and `CombineInstances` are Panoptic
FPN; centers with offsets, a semantic head and `GroupCenters` are Panoptic-DeepLab. Any other heads that fit do too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from vertebra.models import Batch, Head, ShapeSpec
from vertebra_panoptic.combine import CombineInstances
from vertebra_panoptic.combined_ids import num_thing_labels
from vertebra_panoptic.merge import Merge

__all__ = ["PanopticHead"]


class PanopticHead(Head):
    """`panoptic_seg` beside what its two heads predict; losses are theirs, as `things/<loss>` and `stuff/<loss>`.

    `panoptic_seg` is (H, W) int32 segment ids, 0 for void, in the original size, and `segments_info`: a dict for each
    segment with `id`, `isthing`, `category_id` (from 0 among things or among stuff), and `score` or `area`.

    Args:
        things: predicts what `merge` needs: `instances` with `pred_masks`, or `centers` and `offsets`.
        stuff: predicts `sem_seg`, with its labels as the dataset's `stuff_classes` name them.
        merge: None: CombineInstances().
        thing_labels: number of the semantic labels, from 0 on, that are things and never become stuff. None: found by
            the dataset's names: all things first, one label "things" first, or stuff alone.
        metadata: injected; the dataset's `thing_classes` and `stuff_classes`.
    """

    task_outputs: ClassVar[Sequence[str]] = ("panoptic_seg", "instances", "sem_seg")

    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        things: Head,
        stuff: Head,
        merge: Merge | None = None,
        thing_labels: int | None = None,
        metadata: Any = None,
    ) -> None:
        super().__init__()
        self.things = things
        self.stuff = stuff
        self.merge = CombineInstances() if merge is None else merge
        for role, head, needed in (("things", things, self.merge.things_outputs), ("stuff", stuff, ("sem_seg",))):
            lacking = [key for key in needed if key not in head.task_outputs]
            if lacking:
                raise ValueError(
                    f"PanopticHead: {role} is {type(head).__name__}, which predicts {', '.join(head.task_outputs)}, "
                    f"but {type(self.merge).__name__} needs {', '.join(needed)}. "
                    + ("Choose another things head, or another merge" if role == "things" else "Choose a semantic head")
                )
        self.thing_labels = _thing_labels(metadata) if thing_labels is None else thing_labels
        self.task_outputs = tuple(  # type: ignore[misc]  # the class can only name what usual parts give
            dict.fromkeys(("panoptic_seg", *things.task_outputs, *stuff.task_outputs))
        )

    @property
    def detectron2_names(  # type: ignore[override]  # what its parts say, which the class does not know
        self,
    ) -> Sequence[tuple[str, str]]:
        """The parts' own names for Detectron2's, below theirs."""
        return [
            (pattern, f"{role}.{name}")
            for role in ("things", "stuff")
            for pattern, name in getattr(self, role).detectron2_names
        ]

    def forward(self, features: dict[str, Tensor]) -> dict[str, Any]:
        """Both heads' raw outputs."""
        return {"things": self.things(features), "stuff": self.stuff(features)}

    def losses(self, raw: dict[str, Any], batch: Batch) -> dict[str, Tensor]:
        return {
            f"{role}/{name}": loss
            for role in ("things", "stuff")
            for name, loss in getattr(self, role).losses(raw[role], batch).items()
        }

    def predict(self, raw: dict[str, Any], batch: Batch) -> list[dict]:
        things, stuff = self.things.predict(raw["things"], batch), self.stuff.predict(raw["stuff"], batch)
        outputs = []
        for thing, semantic in zip(things, stuff, strict=True):
            labels = semantic["sem_seg"]
            labels = labels.argmax(dim=0) if labels.ndim == 3 else labels.long()
            outputs.append({**thing, **semantic, "panoptic_seg": self.merge(thing, labels, self.thing_labels)})
        return outputs

    def export_raw(self, raw: dict[str, Any], image_size: tuple[int, int]) -> dict[str, Tensor]:
        return {
            f"{role}_{name}": value
            for role in ("things", "stuff")
            for name, value in getattr(self, role).export_raw(raw[role], image_size).items()
        }


def _thing_labels(metadata: Any) -> int:
    if not getattr(metadata, "stuff_classes", None):
        raise ValueError(
            "PanopticHead cannot tell which semantic labels are things, as the dataset has no stuff_classes; load it "
            "with panoptic labels (panoptic_labels: all), or write thing_labels"
        )
    return num_thing_labels(metadata)
