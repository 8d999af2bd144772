"""What a person watches: a progress bar on a terminal, plain lines elsewhere and in log.txt."""

from __future__ import annotations

import logging
import sys
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from vertebra.engine.hook import Hook, Training
from vertebra.engine.run_folder import TO_FILE_ONLY

__all__ = ["LogLines", "ProgressBar"]

logger = logging.getLogger(__name__)


class LogLines(Hook):
    """One line a record in log.txt; on the console too where that is not a terminal (there the bar shows losses)."""

    def write(self, trainer: Training, record: dict[str, Any]) -> None:
        is_progress = "loss" in record
        line = _training_line(trainer, record) if is_progress else _evaluation_line(record)
        logger.info(line, extra=TO_FILE_ONLY if is_progress and sys.stdout.isatty() else None)


class ProgressBar(Hook):
    """Steps, loss, img/s, data wait and the time left; only on a terminal, only in the main process."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._facts = ""

    def before_train(self, trainer: Training) -> None:
        if not trainer.is_main_process or not sys.stdout.isatty():
            return
        self._progress = Progress(
            TextColumn("train"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            console=Console(file=sys.stdout),
            refresh_per_second=2,
        )
        self._task = self._progress.add_task("train", total=trainer.max_steps, completed=trainer.step, facts="")
        self._progress.start()

    def after_step(self, trainer: Training) -> None:
        if self._progress is not None:
            self._progress.update(self._task, completed=trainer.step)

    def write(self, trainer: Training, record: dict[str, Any]) -> None:
        if self._progress is not None and "loss" in record:
            self._progress.update(self._task, facts=_facts(record))

    def after_train(self, trainer: Training) -> None:
        self.close(trainer)  # so that the evaluation, which may show its own bar, starts on a line of its own

    def close(self, trainer: Training) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _facts(record: dict[str, Any]) -> str:
    return (
        f"loss {record['loss']:.4g}  {record['images_per_second']:.3g} img/s  "
        f"data {record['data_seconds']:.2g} s  eta {_clock(record['eta_seconds'])}"
    )


def _training_line(trainer: Training, record: dict[str, Any]) -> str:
    parts = [f"{name.removeprefix('loss/')} {value:.4g}" for name, value in record.items() if name.startswith("loss/")]
    losses = f"  ({', '.join(parts)})" if len(parts) > 1 else ""
    return f"step {record['step']}/{trainer.max_steps}  {_facts(record)}  lr {record['lr']:.3g}{losses}"


def _evaluation_line(record: dict[str, Any]) -> str:
    """Without the numbers of single classes (`bbox/AP-cat`), which metrics.jsonl has."""
    whole = {name: value for name, value in record.items() if name != "step" and "-" not in name}
    numbers = (f"{name} {'undefined' if value is None else format(value, '.4g')}" for name, value in whole.items())
    return f"evaluation at step {record['step']}: {', '.join(numbers)}"


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
