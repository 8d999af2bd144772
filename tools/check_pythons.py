"""Checks that pip resolves what `make setup` installs on every supported Python, and with the oldest supported torch.

    make check-pythons          python tools/check_pythons.py -e '.[test]' -e plugins/fcn

The arguments are what pip is to install. The supported Pythons are the classifiers of pyproject.toml, the oldest torch
and torchvision the lower bounds of its dependencies. Nothing is installed: pip runs with --dry-run in a throwaway
environment of each interpreter. For a Python newer than all installed ones, the newest of them resolves the wheels;
environment markers are then those of the Python that runs pip. One line per combination; exits with 1 if one fails.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TIME_LIMIT = 1800  # seconds per call of pip: a search through old releases can go on for hours
# Metadata alone, by range requests, from an index that does not serve it separately.
RESOLVE = ["install", "--quiet", "--use-feature=fast-deps", "--dry-run", "--ignore-installed"]


def supported_minors(pyproject: str) -> list[int]:
    """The 3.x Pythons of the classifiers, oldest first."""
    return sorted(int(minor) for minor in re.findall(r'"Programming Language :: Python :: 3\.(\d+)"', pyproject))


def oldest_torch(pyproject: str) -> list[str]:
    """Requirements for the lower bounds of torch and torchvision: `torch==2.6.*`, ..."""
    return [f"{name}=={bound}.*" for name, bound in re.findall(r'"(torch|torchvision)>=(\d+\.\d+)"', pyproject)]


def candidates(minor: int) -> Iterator[str]:
    """Programs that may be Python 3.<minor>: the one on PATH, then those that pyenv installed."""
    if on_path := shutil.which(f"python3.{minor}"):
        yield on_path
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from map(str, sorted(pyenv.glob(f"versions/*/bin/python3.{minor}"), reverse=True))


def find_interpreter(minor: int) -> str | None:
    """The first candidate that runs; of pyenv's versions, the inactive ones are on PATH but fail."""
    ask = ["-c", "import sys; print(sys.version_info[1])"]
    for program in candidates(minor):
        asked = subprocess.run([program, *ask], capture_output=True, text=True)
        if asked.returncode == 0 and asked.stdout.strip() == str(minor):
            return program
    return None


class Pip:
    """A recent pip in a throwaway environment of one interpreter."""

    def __init__(self, program: str, folder: Path) -> None:
        subprocess.run([program, "-m", "venv", folder], check=True)
        self.python = folder / "bin" / "python"
        self.report = folder / "report.json"
        self.run("install", "--quiet", "--upgrade", "pip")

    def run(self, *arguments: str) -> None:
        """Raises RuntimeError with pip's own words."""
        command = [self.python, "-m", "pip", "--disable-pip-version-check", *arguments]
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIME_LIMIT)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"pip found no answer within {TIME_LIMIT} s") from None
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
            raise RuntimeError("\n".join(said[-20:]))

    def resolve(self, requirements: list[str]) -> list[dict]:
        """What pip would install, as its report lists it."""
        self.run(*RESOLVE, "--report", str(self.report), *requirements)
        return json.loads(self.report.read_text())["install"]

    def resolve_for(self, minor: int, requirements: list[str], sources: list[str]) -> list[dict]:
        """The same for the wheels of Python 3.<minor>. What exists only as source is built first, as pure Python."""
        with tempfile.TemporaryDirectory() as wheels:
            self.run("wheel", "--quiet", "--no-deps", "--wheel-dir", wheels, *sources)
            wanted = ["--only-binary=:all:", "--python-version", f"3.{minor}", "--find-links", wheels, *requirements]
            return self.resolve(wanted)


def source_distributions(installed: list[dict]) -> list[str]:
    """Addresses of what a report takes from an index as source."""
    addresses = [item["download_info"]["url"] for item in installed if "archive_info" in item["download_info"]]
    return [address for address in addresses if not address.endswith(".whl")]


def check(requirements: list[str], folder: Path) -> bool:
    """Prints a line per combination; True if pip resolves all of them."""
    pyproject = (ROOT / "pyproject.toml").read_text()
    pinned = ["--constraint", "constraints.txt", *requirements]
    minors = supported_minors(pyproject)
    programs = {minor: program for minor in minors if (program := find_interpreter(minor))}
    if not programs:
        print(f"none of Python {', '.join(f'3.{minor}' for minor in minors)} is installed")
        return False
    results = []

    def attempt(python: str, torch: str, resolve, *arguments) -> list[dict]:
        installed, error = [], ""
        try:
            installed = resolve(*arguments)
            versions = {item["metadata"]["name"]: item["metadata"]["version"] for item in installed}
            torch = f"torch {versions['torch']}, torchvision {versions['torchvision']}"
        except RuntimeError as problem:
            error = str(problem)
        results.append(not error)
        print(f"Python {python}: {torch}: {'FAILS' if error else 'resolves'}", flush=True)
        if error:
            print("    " + error.replace("\n", "\n    "))
        return installed

    for minor in minors:
        if minor in programs:
            pip = Pip(programs[minor], folder / f"3.{minor}")
            installed = attempt(f"3.{minor}", "the pinned torch", pip.resolve, pinned)
            if minor == min(programs):
                oldest = oldest_torch(pyproject)
                attempt(f"3.{minor}", " ".join(oldest), pip.resolve, [*requirements, *oldest])
        elif minor > max(programs):
            label = f"3.{minor} (not installed; its wheels, by 3.{max(programs)})"
            sources = source_distributions(installed)
            attempt(label, "the pinned torch", pip.resolve_for, minor, pinned, sources)
        else:
            print(f"Python 3.{minor}: not installed, not tried")
    return all(results)


if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as throwaway:
        sys.exit(0 if check(sys.argv[1:], Path(throwaway)) else 1)
