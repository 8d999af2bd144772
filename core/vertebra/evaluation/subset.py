"""Evaluation on a dataset that has only some of the model's classes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch

from vertebra.data.panoptic_labels import segment_stuff_names
from vertebra.models.inference import Predict
from vertebra.runtime.distributed import gather_to_main, on_main_process
from vertebra_eval.nearest import listed

__all__ = ["SubsetOfClasses"]


class SubsetOfClasses:
    """Predicts, and drops what is of classes that the dataset does not have: nothing says whether it is right.

    Semantic labels stay, as a pixel of such a label is wrong whatever the truth is.

    Args:
        predict: input dicts to predictions.
        metadata: the dataset's, after `match_classes`.
    """

    def __init__(self, predict: Predict, metadata: Any) -> None:
        self.predict = predict
        self.metadata = metadata
        self.things = list(metadata.get("absent_things") or ())
        self.stuff = list(metadata.get("absent_stuff") or ())
        self.dropped: Counter[str] = Counter()

    @staticmethod
    def is_needed(metadata: Any) -> bool:
        """Whether the model has classes that the dataset does not have."""
        return bool(getattr(metadata, "absent_things", None) or getattr(metadata, "absent_stuff", None))

    def __call__(self, inputs: list[dict]) -> list[dict]:
        return [self._judged(output) for output in self.predict(inputs)]

    def note(self) -> str:
        """What was dropped in all processes; each has to call this."""
        counts = gather_to_main(self.dropped)
        total: Counter[str] = on_main_process(lambda: sum(counts or (), Counter()))
        dropped = " and ".join(f"{count} {what}" for what, count in total.items()) or "no predictions"
        names = [self.metadata.thing_classes[number] for number in self.things]
        stuff = segment_stuff_names(self.metadata) if self.stuff else []
        names += [stuff[number] for number in self.stuff]
        return (
            f"evaluated on a subset of the model's classes: the dataset does not have {listed(names)}; {dropped} of "
            "these were dropped"
        )

    def _judged(self, output: dict) -> dict:
        output = dict(output)
        if self.things and "instances" in output:
            instances = output["instances"]
            known = ~torch.isin(instances.pred_classes, torch.tensor(self.things, device=instances.pred_classes.device))
            self.dropped["detections"] += len(known) - int(known.sum())
            output["instances"] = instances[known]
        if "panoptic_seg" in output:
            ids, segments = output["panoptic_seg"]
            gone = [
                one["id"] for one in segments if one["category_id"] in (self.things if one["isthing"] else self.stuff)
            ]
            self.dropped["segments"] += len(gone)
            void = torch.isin(ids, torch.tensor(gone, dtype=ids.dtype, device=ids.device))
            output["panoptic_seg"] = (ids.masked_fill(void, 0), [one for one in segments if one["id"] not in gone])
        return output
