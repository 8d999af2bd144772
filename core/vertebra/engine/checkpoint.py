"""Checkpoint files: written beside and renamed into place, read without running anything that lies in them.

A checkpoint is a dict: model, optimizer, scaler, schedule, step, rng (one state per process), hooks, recipe (YAML
text), classes, vertebra (version) and format (of this dict). `final.pth` holds only what prediction needs.
"""

from __future__ import annotations

import logging
import re
from collections import Counter, OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from vertebra.errors import CheckpointError
from vertebra.models.torch_files import read_torch_file
from vertebra_eval.files import free_path, open_whole, read_text, write_text

__all__ = ["FORMAT", "CheckpointStore", "DamagedCheckpoint", "Found", "read_checkpoint"]
__all__ += ["check_plain", "write_checkpoint"]

logger = logging.getLogger(__name__)

FORMAT = 1
_NAME = re.compile(r"step_(\d{7,})\.pth")
_PLAIN = (str, int, float, bool, type(None), torch.Tensor, nn.Parameter)
_NESTED = (dict, OrderedDict, Counter, list, tuple, torch.Size)
"""What `torch.load` reads with `weights_only`. It refuses subclasses, such as NumPy's float64 and named tuples."""
_REQUIRED = {"model": dict, "optimizer": dict, "step": int, "rng": list, "hooks": dict, "format": int}
_KINDS = _REQUIRED | {"scaler": dict, "schedule": dict, "recipe": str, "plugins": dict, "metadata": dict}
_KINDS |= {"buffers": list, "vertebra": str}


class DamagedCheckpoint(CheckpointError):
    """A checkpoint whose content is not what a training writes, so that an older one may do."""


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Writes a checkpoint atomically.

    Raises:
        CheckpointError: the disk is full or not writable, or something in it is not plain data.
    """
    check_plain(content, "checkpoint")
    try:
        with open_whole(path, durable=True) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as err:  # torch.save turns a full disk into a RuntimeError
        raise CheckpointError(
            f"{path}: could not write the checkpoint: {err}\n"
            "  Free some space or choose another folder with --output; earlier checkpoints are intact"
        ) from err


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a training checkpoint onto the CPU. Nothing in the file is executed.

    Raises:
        CheckpointError: no such file, not a checkpoint, damaged, with a value of another type, or of a newer format.
    """
    content = read_torch_file(path)
    missing = [key for key in _REQUIRED if key not in content]
    if missing:
        raise CheckpointError(
            f"{path}: not a training checkpoint, it has no {', '.join(missing)}; training resumes from files in "
            "checkpoints/ only.\n  To start a new training from weights, set model.weights"
        )
    named = _NAME.fullmatch(Path(path).name)
    problems = list(_wrong_types(content))
    if named and not problems and content["step"] != int(named[1]):
        problems = [f"its step is {content['step']}, not that of its name"]
    for problem in problems:
        raise DamagedCheckpoint(f"{path}: {problem}.\n  Was it written or changed by another program?")
    if content["format"] > FORMAT:
        raise CheckpointError(
            f"{path}: written by vertebra {content.get('vertebra')} in format {content['format']}, "
            f"this version reads up to {FORMAT}; upgrade vertebra"
        )
    return content


def _wrong_types(content: dict[str, Any]) -> Iterator[str]:
    wrong = [key for key, kind in _KINDS.items() if key in content and type(content[key]) is not kind]
    for key in wrong:
        yield f"its entry {key} is of type {type(content[key]).__name__}, expected {_KINDS[key].__name__}"
    if wrong:
        return
    if not 0 <= content["step"] < 2**63:
        yield f"its step is {hex(content['step'])[:20]}"
    for name, value in content["model"].items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            yield f"model[{name!r:.80}] is of type {type(value).__name__}, expected Tensor"
        elif value.layout != torch.strided or value.is_meta:
            yield f"model[{name!r:.80}] holds no plain numbers ({value.layout}, {value.device})"


class Found(NamedTuple):
    """A checkpoint to resume from, and what a user should know about its choice."""

    path: Path
    content: dict[str, Any]
    notes: list[str]


class CheckpointStore:
    """The folder `checkpoints` of a run: step_0000100.pth, ..., and `last`, a text file with the newest name.

    Args:
        keep: number of the newest checkpoints that are kept.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"keep_checkpoints must be at least 1, got {keep}")
        self.folder = folder
        self.keep = keep

    def save(self, step: int, content: dict[str, Any]) -> Path:
        """Writes the checkpoint of `step`, points `last` at it, then removes what is too old.

        What is in the way and not a file is renamed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step_{step:07d}.pth"
        for place in (path, self.folder / "last"):
            _clear(place)
        write_checkpoint(path, content)
        write_text(self.folder / "last", f"{path.name}\n", durable=True)
        old = [(number, file) for number, file in self._files() if number <= step][: -self.keep]
        for leftover in [*(file for _, file in old), *self.folder.glob(".*.tmp")]:
            if leftover.is_file():
                leftover.unlink(missing_ok=True)
        return path

    def newest(self, refused: dict[Path, str] | None = None) -> Found | None:
        """The checkpoint to resume from: what `last` names; if that is damaged, the newest older one that is whole.

        None where the folder holds no checkpoint at all.

        Args:
            refused: files that were found damaged on use, and why; they are not tried again.
        Raises:
            CheckpointError: there are checkpoints and none can be read.
        """
        candidates, notes = self._candidates()
        failures = []
        for path in candidates:
            try:
                if refused and path in refused:
                    raise DamagedCheckpoint(refused[path])
                return Found(path, read_checkpoint(path), notes)
            except CheckpointError as err:
                failures.append(str(err))
                notes.append(f"cannot resume from the newest checkpoint, trying the one before: {err}")
        if failures:
            raise CheckpointError(
                f"{self.folder}: none of the {len(failures)} checkpoints can be read.\n  "
                + "\n  ".join(failures)
                + "\n  To train from the start, choose another folder with --output"
            )
        for note in notes:
            logger.warning("%s", note)
        return None

    def _candidates(self) -> tuple[list[Path], list[str]]:
        """The files in the order in which to try them, and notes."""
        notes = [f"{path} is not a file, and is ignored" for path in self._others()]
        files = [file for _, file in reversed(self._files())]
        pointer = self.folder / "last"
        if not pointer.is_file():
            return files, notes
        try:
            name = read_text(pointer, errors="replace").strip()
        except OSError as err:
            return files, [*notes, f"{pointer} cannot be read ({err.strerror}): using the newest checkpoint"]
        names = [file.name for file in files]
        if name not in names:  # compared with names that are here, so it can lead nowhere else
            return files, [*notes, f"{pointer} names {name[:100]!r}, which does not exist: using the newest checkpoint"]
        at = names.index(name)
        return [*files[at:], *files[:at]], notes

    def _files(self) -> list[tuple[int, Path]]:
        """(step, file), oldest first."""
        return [(step, path) for step, path in self._named() if path.is_file()]

    def _others(self) -> list[Path]:
        """What has the name of a checkpoint and is a folder, a pipe or a device; opening it would fail or never end."""
        return [path for _, path in self._named() if path.exists() and not path.is_file()]

    def _named(self) -> list[tuple[int, Path]]:
        if not self.folder.is_dir():
            return []
        found = ((_NAME.fullmatch(path.name), path) for path in self.folder.iterdir())
        return sorted((int(match[1]), path) for match, path in found if match)


def _clear(place: Path) -> None:
    """Renames what is not a file, so that one can be written there."""
    if not place.exists() or place.is_file():
        return
    aside = free_path(place.parent, f"{place.name}.aside")
    place.rename(aside)
    logger.warning("%s is not a file; it is now %s", place, aside)


def check_plain(value: Any, where: str) -> None:
    """What `weights_only` could not load again must fail now, not at the resume.

    Raises:
        CheckpointError: names the value by its keys.
    """
    kind = type(value)
    if isinstance(value, dict) and kind in _NESTED:
        for key, inner in value.items():
            if type(key) not in (str, int, float):
                raise CheckpointError(f"{where}: the key {key!r:.80} cannot be saved; keys are strings or numbers")
            check_plain(inner, f"{where}[{key!r}]")
    elif kind in _NESTED:
        for index, inner in enumerate(value):
            check_plain(inner, f"{where}[{index}]")
    elif kind not in _PLAIN:
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        raise CheckpointError(
            f"{where} is a {name}; a state_dict holds numbers, strings, tensors, lists and dicts only"
        )
