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
from vertebra.errors import VertebraError
from vertebra.structures import BoxMode
from vertebra.testing.by_recipe import ByRecipe
from vertebra.testing.checks import build_from_defaults, require
from vertebra.testing.elsewhere import there

__all__ = ["SamplerConformance"]

_EPOCHS = 5
_MANY = 60  # epochs whose mean length is compared
_DRAWS = 400  # of each image on average, until all of them should have come
_SUBJECTS = ("object", "annotation", "instance", "image", "class", "categor", "dataset", "dicts")
"""What an error about the dataset speaks of."""


class SamplerConformance(ByRecipe):
    """Subclass it with `component`. The dataset is 40 dicts, some of them without objects, with rare classes.

    Attributes:
        component: the sampler's name, as a recipe writes it.
        arguments: for its constructor, where it has arguments without default.
        recipe, overrides, data: see `ByRecipe`; two steps are trained where a recipe is given.
        shuffles: another seed gives another order, and so does another epoch.
        skips_images: some images with objects never come, as they are meant to.
    """

    kind: ClassVar = "sampler"
    arguments: ClassVar[Mapping[str, Any]] = {}
    shuffles: ClassVar[bool] = True
    skips_images: ClassVar[bool] = False

    def test_epochs_are_indices_without_end(self) -> None:
        all_of = self.make_dicts()
        for dicts in (all_of, [next((one for one in all_of if one.get("annotations")), all_of[0])]):
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

    def test_epochs_differ(self) -> None:
        first, *others = self.epochs(self.make_dicts())
        require(
            not self.shuffles or any(not np.array_equal(first, other) for other in others),
            "all epochs have the same order: make the generator once, before the loop over epochs. If meant to, set "
            "shuffles = False",
        )

    def test_every_image_comes(self) -> None:
        """Those with objects; a sampler may drop the others."""
        dicts = self.make_dicts()
        missing = {index for index, one in enumerate(dicts) if one.get("annotations")}
        drawn = 0
        for epoch in self.make().epochs(dicts, 0):
            indices = np.asarray(epoch).ravel().tolist()
            missing -= set(indices)
            drawn += max(1, len(indices))
            if self.skips_images or not missing or drawn > _DRAWS * len(dicts):
                break
        require(
            self.skips_images or not missing,
            f"of {len(dicts)} images, those of the indices {', '.join(map(str, sorted(missing)[:5]))} have not come in "
            f"{drawn} draws. If they are meant to be skipped, set skips_images = True",
        )

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
        """They have epochs too, or are refused by an error that says what the dataset must have."""
        dicts = [{**one, "annotations": []} for one in self.make_dicts()]
        try:
            self.epochs(dicts, what="images without objects")
        except AssertionError:
            raise
        except VertebraError:
            return
        except Exception as err:
            if isinstance(err, ValueError) and any(word in str(err).lower() for word in _SUBJECTS):
                return
            raise AssertionError(
                f"a dataset without objects ends with {type(err).__name__}: {err}. Yield its images, or raise a "
                "ValueError that says what the images must have"
            ) from err

    def test_trains_by_its_recipe(self) -> None:
        self.train()

    # What the checks are made of; a subclass may replace these.

    def make(self) -> Sampler:
        """A new sampler."""
        self.load_plugins()
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
