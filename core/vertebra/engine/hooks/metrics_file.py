"""MetricsFile: metrics.jsonl, one JSON object a line."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import IO, Any

from vertebra.engine.hook import Hook, Training
from vertebra_eval.files import read_text, write_text

__all__ = ["MetricsFile", "read_metrics"]


class MetricsFile(Hook):
    """Appends each record to the run's metrics.jsonl; NaN and infinity become null, as JSON has neither.

    A resumed run first takes out what the file says of steps that it is going to do again, and a half-written line.
    """

    def __init__(self) -> None:
        self._file: IO[str] | None = None
        self._evaluated: set[int] = set()  # steps whose evaluation the file has

    def before_train(self, trainer: Training) -> None:
        if trainer.folder is None or not trainer.is_main_process:
            return
        path = trainer.folder.metrics
        kept = [record for record in read_metrics(path) if record["step"] <= trainer.step]
        write_text(path, "".join(f"{json.dumps(record)}\n" for record in kept), durable=True)
        self._evaluated = {record["step"] for record in kept if "loss" not in record}
        self._file = path.open("a", encoding="utf-8")

    def write(self, trainer: Training, record: dict[str, Any]) -> None:
        if "loss" not in record:
            if record["step"] in self._evaluated:
                return  # the same again: a resumed run knows it, or it is repeated with the report
            self._evaluated.add(record["step"])
        if self._file is not None:
            self._file.write(f"{json.dumps({name: _plain(value) for name, value in record.items()})}\n")
            self._file.flush()

    def close(self, trainer: Training) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl; a line that a kill cut short is skipped. No file: no records."""
    if not path.exists():
        return []
    records = []
    for line in read_text(path, errors="replace").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
    return records


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
