"""The one reader of files that torch.save wrote. Nothing in them is executed, and their checksums are compared."""

from __future__ import annotations

import io
import mmap
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from vertebra.errors import CheckpointError
from vertebra.models.growth import GrowthError, check_archive, check_pickle, check_tensors
from vertebra_eval.files import check_regular

__all__ = ["read_torch_file"]

_PICKLES_OF_OLD_FORMAT = 5  # magic number, version, facts of the system, the content, names of storages


def read_torch_file(path: str | Path, name: str | Path | None = None) -> dict[str, Any]:
    """The dict that a file holds, as plain data and tensors on the CPU.

    Args:
        name: what messages call the file, such as its URL; None: its path.
    Raises:
        CheckpointError: missing, damaged, empty, not a dict, or it asks for code to be run (none is).
    """
    path, name = Path(path), name or path
    try:
        check_regular(path)
    except FileNotFoundError as err:
        raise CheckpointError(f"{name}: no such file") from err
    except OSError as err:
        raise CheckpointError(f"{name}: cannot be read: {err.strerror or err}") from err
    try:
        _check_before(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
        check_tensors(content, path.stat().st_size)
    except GrowthError as err:
        raise CheckpointError(f"{name}: refused, nothing was run: {err}.\n  Get it from a source you trust") from err
    except pickle.UnpicklingError as err:
        raise CheckpointError(
            f"{name}: refused: it is not a checkpoint, or it holds something other than tensors and plain data.\n"
            f"  Nothing in it was executed{_global_of(err)}.\n"
            "  Save weights as a dict of tensors with torch.save(module.state_dict(), path), or as .safetensors"
        ) from err
    except Exception as err:  # damaged files make torch raise nearly anything
        size = path.stat().st_size if path.is_file() else 0
        raise CheckpointError(
            f"{name}: damaged, or not a checkpoint ({size} bytes): {_first_line(err)}.\n"
            "  Was it cut off or changed while it was written, copied or downloaded?"
        ) from err
    if not isinstance(content, dict):
        raise CheckpointError(f"{name}: holds a {type(content).__name__}, expected a dict")
    return content


def _check_before(path: Path) -> None:
    """What torch.load does not look at: checksums, where a flipped bit would only show in the results, and growth.

    Raises:
        GrowthError, and whatever a damaged file makes zipfile and pickletools raise.
    """
    if not zipfile.is_zipfile(path):  # torch's format before 1.6: pickles one after the other, then the numbers
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for _ in range(_PICKLES_OF_OLD_FORMAT):
                check_pickle(content)  # type: ignore[arg-type]  # it has what is needed of a file
                if content.tell() == len(content):
                    break
        return
    check_archive(path)
    with zipfile.ZipFile(path) as archive:
        bad = archive.testzip()
        if bad is not None:
            raise zipfile.BadZipFile(f"the checksum of its record {bad} is wrong")
        for record in archive.infolist():
            if not record.filename.endswith("/data.pkl"):
                continue
            if record.compress_type != zipfile.ZIP_STORED:
                raise GrowthError("its pickle is compressed, as torch.save never writes it")
            check_pickle(io.BytesIO(archive.read(record)))


def _global_of(err: BaseException) -> str:
    """The part of torch's message that names what the file wanted to load, without its advice to load it after all."""
    found = re.search(r"GLOBAL (\S+)", str(err))
    return f"; it wants to load {found[1]}" if found else ""


def _first_line(err: BaseException) -> str:
    return (str(err).strip().splitlines() or [type(err).__name__])[0][:300].rstrip(".")
