"""Imports a plugin in a process of its own and reports what came of it; nothing else notices.

The processes are forked, where the system can, after torch and the core have been imported; so a plugin's own import
time is what is measured beyond them.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vertebra.cli.plugin_apps import load_command
from vertebra.config import ComponentSpec
from vertebra.errors import SetupError, VertebraError
from vertebra.plugins import Offer, PluginInfo, installed_plugins, isolation
from vertebra_eval.files import read_text

__all__ = ["Finding", "PluginReport", "check_plugins"]

_START_SECONDS = 300.0  # for importing torch on a slow disk, before a plugin's own time begins
_MOST_OUTPUT = 4000  # characters
_NEEDED = ("torch", "torchvision", "vertebra.models", "vertebra.data", "vertebra.engine", "vertebra.evaluation")


@dataclass(frozen=True)
class Finding:
    """One component, or the recipes, of a plugin: what it is, and what is wrong with it."""

    title: str
    problem: str | None = None
    trace: str | None = None


@dataclass(frozen=True)
class PluginReport:
    """What came of importing a plugin.

    Args:
        problem: why nothing more is known; None where `findings` tell.
        seconds: its import took, beyond torch and the core.
        output: what it wrote to stdout and stderr meanwhile.
    """

    plugin: PluginInfo
    findings: list[Finding] = field(default_factory=list)
    problem: str | None = None
    seconds: float | None = None
    output: str = ""

    @property
    def works(self) -> bool:
        return self.problem is None and all(finding.problem is None for finding in self.findings)


def check_plugins(plugins: Iterable[PluginInfo], timeout: float) -> Iterator[PluginReport]:
    """Checks one plugin after the other; each report comes as soon as it is there.

    Args:
        timeout: seconds that one plugin's import may take.
    Raises:
        SetupError: torch or the core cannot be imported, so no plugin could be.
    """
    _import_what_all_need()
    methods = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("fork" if "fork" in methods else "spawn")
    for plugin in plugins:
        if plugin.problem:
            yield PluginReport(plugin, problem=plugin.problem)
        else:
            yield _check(plugin, timeout, context)


def _check(plugin: PluginInfo, timeout: float, context: Any) -> PluginReport:
    with tempfile.TemporaryDirectory(prefix="vertebra-check-") as folder:
        output, stack = Path(folder, "output"), Path(folder, "stack")
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_examine, args=(plugin.distribution, timeout, output, stack, there))
        process.start()
        there.close()
        found: list[Finding] = []
        seconds, problem = None, None
        try:
            if not here.poll(_START_SECONDS):
                problem = f"importing torch did not finish within {_START_SECONDS:g} s"
            elif here.recv() == "ready" and not here.poll(timeout + 1):
                problem = f"it hangs: its import did not finish within {timeout:g} s{_place(stack)}"
            else:
                found, seconds = here.recv()
        except EOFError:
            process.join(10)
            problem = f"it ended the process during its import ({_ending(process.exitcode)}){_place(stack)}"
        process.kill()
        process.join()
        return PluginReport(plugin, found, problem, seconds, _read(output))


def _examine(distribution: str, timeout: float, output: Path, stack: Path, results: Any) -> None:
    """In the process of its own: imports, and sends findings and seconds."""
    _import_what_all_need()  # done already, unless this process was spawned
    file = os.open(output, os.O_WRONLY | os.O_CREAT)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    with stack.open("w") as trace:
        faulthandler.enable(trace, all_threads=False)
        faulthandler.dump_traceback_later(timeout, file=trace)
        results.send("ready")
        plugin = next(found for found in installed_plugins() if found.distribution == distribution)
        started = time.perf_counter()
        findings = [_find(offer) for offer in (*plugin.offers, *plugin.commands)]
        seconds = time.perf_counter() - started
        findings += [finding for prefix in plugin.recipe_packages for finding in _read_recipes(prefix)]
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        results.send((findings, seconds))
        os._exit(0)  # a plugin's threads and exit functions are not waited for


def _import_what_all_need() -> None:
    try:
        for name in _NEEDED:
            importlib.import_module(name)
    except VertebraError:
        raise
    except Exception as err:
        raise SetupError(f"no plugin can be checked: {type(err).__name__}: {err}\n  See: vertebra doctor") from err


def _find(offer: Offer) -> Finding:
    title = f"{offer.kind} {offer.name}"
    try:
        if offer.kind == "command":
            load_command(offer)
            return Finding(title)
        signature = ComponentSpec(offer.kind, offer.qualified).signature
        _ = signature.arguments  # resolves its annotations
        if getattr(signature.cls, "component_kind", None) is None:
            return Finding(title, f"{offer.value} does not inherit from the contract of a {offer.kind}")
    except VertebraError as err:
        problem = getattr(err, "summary", str(err)).removeprefix(f"{title} of plugin {offer.plugin}")
        return Finding(title, problem.lstrip(" :"), getattr(err, "trace", None))  # the report names the plugin
    return Finding(title)


def _read_recipes(prefix: str) -> list[Finding]:
    """Reads a plugin's recipes with their bases; what they name is checked when one is used."""
    from vertebra.config import find_recipe, list_recipes
    from vertebra.config.bases import read_with_bases
    from vertebra.config.requires import RequirementError

    names = [name for name in list_recipes() if name.startswith(f"{prefix}:")]
    problems = [] if names else [f"the package of {prefix!r} has no YAML files"]
    waiting: dict[str, list[str]] = {}
    for name in names:
        try:
            read_with_bases(find_recipe(name, Path.cwd()))
        except RequirementError as err:  # another plugin is missing, and this one is not to blame
            waiting.setdefault(err.reason, []).append(name)
        except VertebraError as err:
            problems.append(f"{name}: {err}")
    here = [name for name in names if not any(name in some for some in waiting.values())]
    return [
        Finding(f"recipes {', '.join(here) or prefix}", "\n".join(problems) or None),
        *(Finding(f"recipes {', '.join(some)} (not read: {reason})") for reason, some in waiting.items()),
    ]


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def _place(stack: Path) -> str:
    """Where a plugin was, from what faulthandler wrote: its own frames, without ours and the import machinery's."""
    for block in _read(stack).split("\n\n"):
        before, ours, _ = block.partition(f'  File "{isolation.__file__}"')
        frames = [line for line in before.splitlines() if line.startswith("  File ") and "importlib" not in line]
        if ours and frames:
            return ". It was at (innermost first):\n" + "\n".join(frames)
    return ""


def _read(path: Path) -> str:
    text = read_text(path, errors="replace").strip() if path.exists() else ""
    return text if len(text) <= _MOST_OUTPUT else f"{text[:_MOST_OUTPUT]}\n... ({len(text)} characters in all)"
