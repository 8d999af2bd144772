"""TensorBoard: the numbers of metrics.jsonl as TensorBoard curves."""

from __future__ import annotations

from typing import Any

from vertebra.engine.hook import Hook, Training
from vertebra.errors import SetupError

__all__ = ["TensorBoard"]


class TensorBoard(Hook):
    """Writes event files into the run's folder `tensorboard`. Needs the package `tensorboard`.

    A resumed run hides the events of steps that it does again.
    """

    def __init__(self) -> None:
        self._writer: Any = None

    def before_train(self, trainer: Training) -> None:
        if trainer.folder is None or not trainer.is_main_process:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as err:
            raise SetupError(
                "the hook TensorBoard needs a package that is not installed: pip install 'vertebra[tensorboard]'"
            ) from err
        self._writer = SummaryWriter(str(trainer.folder.tensorboard), purge_step=trainer.step + 1)

    def write(self, trainer: Training, record: dict[str, Any]) -> None:
        if self._writer is not None:
            for name, value in record.items():
                if name != "step" and isinstance(value, (int, float)):
                    self._writer.add_scalar(name, value, record["step"])

    def close(self, trainer: Training) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
