"""Parts that are slow in one phase, named by the variable SLOW; they write the file `slow` when they get there."""

import os
import time
from pathlib import Path

from vertebra import EVALUATORS, HOOKS, TRANSFORMS, Evaluator, Hook, Transform


def slow(phase: str, seconds: float = 300) -> None:
    if os.environ.get("SLOW") == phase:
        Path("slow").touch()
        end = time.monotonic() + seconds
        while time.monotonic() < end:  # as a library that goes on after an interrupted sleep
            time.sleep(0.05)


@HOOKS.register()
class SlowHook(Hook):
    stepped = False

    def after_backward(self, trainer) -> None:
        self.stepped = True
        if trainer.step == 2:
            slow("step", 2)

    def state_dict(self) -> dict:
        if self.stepped:  # also called once before the first step, to see that a checkpoint can hold it
            slow("saving", 2)
        return {}


@TRANSFORMS.register()
class SlowTransform(Transform):
    def __call__(self, sample, rng):
        slow("first batch")
        return sample


@EVALUATORS.register()
class SlowEvaluator(Evaluator):
    def check(self) -> None:
        slow("start")

    def reset(self) -> None: ...

    def process(self, inputs, outputs) -> None:
        slow("image")

    def evaluate(self) -> dict:
        slow("numbers")
        return {"slow/number": 0.5}

    def sections(self, folder, pictures) -> list:
        slow("report")
        return []
