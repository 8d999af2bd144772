"""Run as a program: trains without a stop, then again with a kill -9 at each of many points, resuming each time.

    python killed_runs.py FOLDER                                    the stub model
    python killed_runs.py FOLDER --recipe RECIPE [KEY=VALUE ...]    a real recipe; needs train.steps=12,
        train.checkpoint_every=5, train.evaluate_every=5 (or null) and train.log_every=3

Prints one JSON object: {kill point: [what differs from the uninterrupted run]}. torch is imported once and
every training is a forked process of its own, killed for good by SIGKILL.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch._dynamo  # what the first optimizer imports: once here, not in each process
from stub_parts import stub_parts

from vertebra.engine import trainer as trainer_module
from vertebra.engine.hook import Hook
from vertebra.engine.hooks.ema import EMA
from vertebra.engine.hooks.evaluate import Evaluate
from vertebra.engine.hooks.metrics_file import MetricsFile
from vertebra.engine.trainer import Trainer

TIMES = ("images_per_second", "step_seconds", "data_seconds", "eta_seconds")  # differ between any two runs


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class DieAt(Hook):
    """Kills the process when step `step` (counted from 1) comes to `event`."""

    def __init__(self, event: str, step: int) -> None:
        self.step = step
        setattr(self, event, self._maybe_die)

    def _maybe_die(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            die()


class Slow(Hook):
    """Waits in each step, so that a kill at a random time hits one."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def after_step(self, trainer: Trainer) -> None:
        time.sleep(self.seconds)


def in_hook(event: str, step: int) -> list[Hook]:
    return [DieAt(event, step)]


def in_file_call(module: object, name: str, number: int, before: bool = True) -> list[Hook]:
    """Dies before or after call `number` (from 1) of a function that the checkpoint writer uses."""
    original, calls = getattr(module, name), [0]

    def dying(*args: object, **kwargs: object) -> object:
        calls[0] += 1
        if calls[0] == number and before:
            die()
        result = original(*args, **kwargs)
        if calls[0] == number:
            die()
        return result

    setattr(module, name, dying)
    return []


def half_written_checkpoint(number: int) -> list[Hook]:
    """Dies with half of checkpoint `number`'s bytes on the disk."""
    original, calls = torch.save, [0]

    def dying(content: object, file: object) -> None:
        calls[0] += 1
        original(content, file)
        if calls[0] == number:
            file.truncate(file.tell() // 2)
            file.flush()
            die()

    torch.save = dying
    return []


def half_written_metrics(step: int) -> list[Hook]:
    original = MetricsFile.write

    def dying(self: MetricsFile, trainer: Trainer, record: dict) -> None:
        if record["step"] == step and self._file is not None:
            self._file.write(json.dumps(record)[:20])
            self._file.flush()
            die()
        original(self, trainer, record)

    MetricsFile.write = dying
    return []


def in_evaluation(step: int) -> list[Hook]:
    original = Evaluate._run

    def dying(self: Evaluate, trainer: Trainer, last: bool) -> None:
        if trainer.step == step:
            die()
        original(self, trainer, last)

    Evaluate._run = dying
    return []


KILLS: dict[str, Callable[[], list[Hook]]] = {
    "before the first checkpoint": partial(in_hook, "after_backward", 2),
    "between backward and step": partial(in_hook, "after_backward", 7),
    "after a step": partial(in_hook, "after_step", 8),
    "before a checkpoint of the step": partial(in_hook, "after_step", 10),
    "half a first checkpoint": partial(half_written_checkpoint, 1),
    "half a second checkpoint": partial(half_written_checkpoint, 2),
    "half the final weights": partial(half_written_checkpoint, 4),
    # replacements in order: recipe, metrics, checkpoint 5, last, checkpoint 10, last, checkpoint 12, last, final
    "before the rename": partial(in_file_call, os, "replace", 5),
    "after the rename, before the pointer": partial(in_file_call, os, "replace", 5, before=False),
    "before the pointer's rename": partial(in_file_call, os, "replace", 6),
    "before the final rename": partial(in_file_call, os, "replace", 9),
    "in the metrics file": partial(half_written_metrics, 9),
    "in an evaluation": partial(in_evaluation, 10),
    "in the last evaluation": partial(in_evaluation, 12),
}


def train(folder: Path, arguments: argparse.Namespace, extra: list[Hook]) -> None:
    hooks = [EMA(decay=0.9, ramp_steps=0), *extra]
    if arguments.wrong:
        trainer_module.set_rng_state = lambda state: None
    if arguments.recipe is None:
        Trainer(parts=stub_parts(seed=3), output_dir=folder, resume=True, hooks=hooks).train()
    else:
        from vertebra import load_recipe

        recipe = load_recipe(arguments.recipe, arguments.overrides)
        Trainer(recipe, output_dir=folder, resume=True, hooks=hooks).train()


def in_new_process(function: Callable[[], None], log: Path, kill_after: float | None = None) -> int:
    """Runs the function in a forked process; returns its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(out, 1)
            os.dup2(out, 2)
            function()
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def differences(first: object, second: object, where: str = "") -> list[str]:
    """Where two nested structures differ; tensors are compared bit for bit."""
    if isinstance(first, dict) and isinstance(second, dict) and set(first) == set(second):
        return [text for key in first for text in differences(first[key], second[key], f"{where}/{key}")]
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)) and len(first) == len(second):
        return [
            text
            for i, (a, b) in enumerate(zip(first, second, strict=True))
            for text in differences(a, b, f"{where}/{i}")
        ]
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return [] if first.dtype == second.dtype and torch.equal(first, second) else [f"{where}: tensors differ"]
    return [] if first == second else [f"{where}: {str(first)[:80]} is not {str(second)[:80]}"]


def compare(reference: Path, folder: Path) -> list[str]:
    found = []
    for name in ("final.pth", "checkpoints/step_0000012.pth"):
        first, second = (torch.load(root / name, weights_only=True) for root in (reference, folder))
        found += differences(first, second, name)
    found += differences(*(metrics(root / "metrics.jsonl") for root in (reference, folder)), "metrics.jsonl")
    found += differences(*(sorted(p.name for p in (root / "checkpoints").iterdir()) for root in (reference, folder)))
    found += [f"left behind: {path}" for path in folder.rglob("*.tmp")]
    return found


def metrics(path: Path) -> list[dict]:
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in record.items() if name not in TIMES} for record in records]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe")
    parser.add_argument("--only", nargs="*", help="kill points; default: all")
    parser.add_argument("--wrong", action="store_true", help="resume without random state: the comparison must notice")
    parser.add_argument("--random-kills", type=int, default=0)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    log = arguments.folder / "processes.txt"
    reference = arguments.folder / "reference"
    started = time.monotonic()
    if in_new_process(lambda: train(reference, arguments, []), log) != 0:
        sys.exit(f"the uninterrupted run failed:\n{log.read_text()}")
    duration = time.monotonic() - started

    found: dict[str, list[str]] = {}
    for name in arguments.only or KILLS:
        folder = arguments.folder / name.replace(" ", "_").replace(",", "")
        killed = in_new_process(lambda name=name, folder=folder: train(folder, arguments, KILLS[name]()), log)
        if killed != -signal.SIGKILL:
            found[name] = [f"was not killed: exit code {killed}"]
            continue
        resumed = in_new_process(lambda folder=folder: train(folder, arguments, []), log)
        found[name] = compare(reference, folder) if resumed == 0 else [f"resuming failed:\n{log.read_text()[-3000:]}"]

    if arguments.random_kills:
        folder, rng = arguments.folder / "random", random.Random(0)
        for _ in range(arguments.random_kills):
            seconds = rng.uniform(0.1, 0.7) * duration
            in_new_process(lambda: train(folder, arguments, [Slow(duration / 12)]), log, kill_after=seconds)
        resumed = in_new_process(lambda: train(folder, arguments, []), log)
        found["random"] = (
            compare(reference, folder) if resumed == 0 else [f"resuming failed:\n{log.read_text()[-3000:]}"]
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
