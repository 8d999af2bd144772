"""What to say of an error that nobody foresaw: whose code raised it, and a file that holds the traceback."""

from __future__ import annotations

import os
import platform
import re
import sys
import tempfile
import traceback

from vertebra import __version__
from vertebra.plugins import CORE, installed_plugins
from vertebra.plugins.local_files import __name__ as LOCAL
from vertebra.registry import REGISTRIES
from vertebra.traces import CarriedError, frames_of

__all__ = ["describe_unforeseen", "is_of_local_plugin", "is_out_of_memory"]

_ALLOCATORS = ("DefaultCPUAllocator: ", "CUDA out of memory")


def describe_unforeseen(err: BaseException) -> tuple[str, int]:
    """The message, and the exit code: 2 where a local plugin is at fault, which is the user's own, otherwise 1."""
    cause = (str(err).strip().splitlines() or ["no message"])[0]
    if not isinstance(err, CarriedError):
        cause = f"{type(err).__name__}: {cause}"
    owner, place = _blamed(err)
    place += "".join(f", {note}" for note in getattr(err, "__notes__", ()))
    path = _write(err)
    if path is None:
        traceback.print_exception(err)
    details = "The traceback stands above" if path is None else f"The traceback is in {path}"
    if owner.startswith("local plugin"):
        return f"{owner} failed: {cause}\n  in {place}.\n  {details}", 2
    report = "report it to the plugin's authors" if owner != CORE else "report it"
    return f"this is a bug in {owner}: {cause}\n  in {place}.\n  {details}; please {report} with that file", 1


def is_of_local_plugin(err: BaseException, *, raised: bool = False) -> bool:
    """Whether code of a local plugin was running; with `raised`, whether its own line raised the error."""
    frames = frames_of(err)[-1:] if raised else frames_of(err)
    return any(module.startswith(f"{LOCAL}.") for module, _ in frames)


def is_out_of_memory(err: BaseException) -> bool:
    """Whether memory did not suffice, on the device or in the computer; torch raises RuntimeErrors for it."""
    if isinstance(err, MemoryError) or type(err).__name__ == "OutOfMemoryError":
        return True
    return isinstance(err, RuntimeError) and any(words in str(err) for words in _ALLOCATORS)


def _blamed(err: BaseException) -> tuple[str, str]:
    """(whose code, `file:line (function)`): the last frame of a local plugin, otherwise the last of core or plugin."""
    roots = {CORE: CORE}
    for plugin in installed_plugins():
        for _, _, value in plugin.entries:
            roots.setdefault(value.partition(".")[0].partition(":")[0], plugin.distribution)
    owner, place = CORE, "an unknown place"
    for module, here in frames_of(err):
        if module.startswith(f"{LOCAL}."):
            owner, place = f"local plugin {here.rpartition(':')[0]}", here
        elif module.partition(".")[0] in roots and not owner.startswith("local plugin"):
            owner, place = roots[module.partition(".")[0]], here
    return _miscalled(err) or (owner, place)


def _miscalled(err: BaseException) -> tuple[str, str] | None:
    """A local plugin's method that does not take the arguments it is called with: it has no frame of its own."""
    found = re.search(r"TypeError: (\w+)\.(\w+)\(\) (?:takes|missing|got)", f"{type(err).__name__}: {err}")
    for cls in (cls for registry in REGISTRIES.values() for cls in registry.registered().values()) if found else ():
        if found and cls.__name__ == found[1] and cls.__module__.startswith(f"{LOCAL}."):
            path = sys.modules[cls.__module__].__file__
            line = getattr(getattr(vars(cls).get(found[2]), "__code__", None), "co_firstlineno", 0)
            return f"local plugin {path}", f"{path}:{line} ({found[2]})"
    return None


def _write(err: BaseException) -> str | None:
    """A new file with all that a report needs; None where no place can be written."""
    torch = sys.modules.get("torch")
    lines = [
        f"vertebra {__version__}, Python {platform.python_version()}, torch {getattr(torch, '__version__', '-')}",
        f"{platform.platform()}; {' '.join(map(str, sys.argv))}",
        *(f"plugin {plugin}" for plugin in installed_plugins()),
        "",
        *(part.rstrip() for part in traceback.format_exception(err)),
        getattr(err, "details", ""),
    ]
    try:
        handle, path = tempfile.mkstemp(prefix="vertebra-traceback-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write("\n".join(lines))
    except OSError:
        return None
    return path
