"""SamplerConformance: what every sampler promises."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import torch

from vertebra.data import Sampler
from vertebra.structures import BoxMode
from vertebra.testing.checks import build_from_defaults, require
from vertebra.testing.elsewhere import there
from vertebra.testing.training import check_trains_by_recipe

__all__ = ["SamplerConformance"]

_EPOCHS = 5
_MANY = 60  # epochs whose mean length is compared


class SamplerConformance:
    """Subclass it with `component`. The dataset is 40 dicts, some of them without objects, with rare classes.

    Attributes:
        component: the sampler's name, as a recipe writes it.
        arguments: for its constructor, where it has arguments without default.
        recipe: a path or `plugin:recipe` that uses it; two steps are trained where it is given.
        shuffles: another seed gives another order.
    """

    component: ClassVar[str] = ""
    arguments: ClassVar[Mapping[str, Any]] = {}
    recipe: ClassVar[str] = ""
    shuffles: ClassVar[bool] = True

    def test_epochs_are_indices_without_end(self) -> None:
        for dicts in (self.make_dicts(), self.make_dicts()[:1]):
            for number, epoch in enumerate(self.epochs(dicts)):
                where = f"epoch {number} of {len(dicts)} images"
                good = epoch.ndim == 1 and np.issubdtype(epoch.dtype, np.integer)
                require(good, f"{where} is {epoch!r:.80}, expected a one-dimensional array of integers")
                require(len(epoch) > 0, f"{where} is empty: a training would wait for images for ever")
                low, high = int(epoch.min()), int(epoch.max())
                require(
                    low >= 0 and high < len(dicts),
                    f"{where} has indices from {low} to {high}, expected 0 to {len(dicts) - 1}",
                )

    def test_the_seed_alone_decides(self) -> None:
        """Two samplers give the same, whatever other random numbers have been drawn, as does one asked twice."""
        dicts, sampler = self.make_dicts(), self.make()
        first = self.epochs(dicts, sampler=sampler)
        torch.manual_seed(99), random.seed(99), np.random.seed(99)
        for other, what in ((self.make(), "two samplers of one seed"), (sampler, "a sampler asked twice")):
            require(
                _same(first, self.epochs(dicts, sampler=other)),
                f"{what} give other orders, so that processes and resumed runs see other images. Make the generator in "
                "`epochs`, from its seed, and draw from nothing else",
            )
        changed = not _same(first, self.epochs(dicts, seed=1))
        require(changed or not self.shuffles, "another seed gives the same order. If meant to, set shuffles = False")

    def test_a_process_elsewhere_gets_the_same_order(self) -> None:
        dicts = self.make_dicts()
        require(
            _same(self.epochs(dicts), there(_epochs, self.make(), dicts, 0, _EPOCHS)),
            "the order differs in another process, which then trains on other images than its part. Does it depend on "
            "a set, or on hash()?",
        )

    def test_the_dicts_stay_as_they_are(self) -> None:
        dicts = self.make_dicts()
        before = copy.deepcopy(dicts)
        self.epochs(dicts)
        self.make().epoch_length(dicts)
        require(dicts == before, "the sampler changes the dataset's dicts or their order; work on a copy")

    def test_the_length_is_the_mean_of_the_epochs(self) -> None:
        dicts, sampler = self.make_dicts(), self.make()
        said = float(sampler.epoch_length(dicts))
        mean = sum(map(len, self.epochs(dicts, count=_MANY, sampler=sampler))) / _MANY
        require(
            abs(said - mean) <= max(0.5, 0.05 * mean),
            f"epoch_length is {said:g}, but epochs have {mean:g} indices on average; plans by epochs would be wrong",
        )

    def test_images_without_objects(self) -> None:
        self.epochs([{**one, "annotations": []} for one in self.make_dicts()], what="images without objects")

    def test_trains_by_its_recipe(self) -> None:
        if self.recipe:
            check_trains_by_recipe(self.recipe, "sampler", self.component)

    # What the checks are made of; a subclass may replace these.

    def make(self) -> Sampler:
        """A new sampler."""
        return build_from_defaults("sampler", self.component, self.arguments)

    def make_dicts(self) -> list[dict[str, Any]]:
        """40 standard dicts: every fifth without objects, class 1 in every tenth alone."""
        dicts = []
        for number in range(40):
            box = {"bbox": [0.0, 0.0, 9.0, 9.0], "bbox_mode": BoxMode.XYXY_ABS}
            objects = [] if number % 5 == 0 else [{**box, "category_id": 0}]
            objects += [{**box, "category_id": 1}] if number % 10 == 3 else []
            record = {"file_name": f"{number}.png", "image_id": number, "height": 32, "width": 32}
            dicts.append({**record, "annotations": objects})
        return dicts

    def epochs(
        self,
        dicts: list[dict[str, Any]],
        seed: int = 0,
        count: int = _EPOCHS,
        sampler: Sampler | None = None,
        what: str = "the dataset",
    ) -> list[np.ndarray]:
        """The first epochs of a sampler, by default a new one."""
        found = _epochs(sampler or self.make(), dicts, seed, count)
        require(
            len(found) == count,
            f"{what}: epochs() ended after {len(found)} epochs; it must go on without end: while True: yield ...",
        )
        return found


def _epochs(sampler: Sampler, dicts: list[dict[str, Any]], seed: int, count: int) -> list[np.ndarray]:
    return [np.asarray(epoch) for epoch in islice(sampler.epochs(dicts, seed), count)]


def _same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return len(first) == len(second) and all(map(np.array_equal, first, second))
