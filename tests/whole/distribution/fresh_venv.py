"""Wheels built from source, and virtual environments that hold nothing of this source tree.

torch and the other requirements are not downloaded again: links to the running interpreter's installed packages stand
in for them, without Vertebra and its plugins.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

OURS = re.compile(r"_*editable_*|vertebra|_distutils_hack|distutils-precedence", re.IGNORECASE)
LITTER = shutil.ignore_patterns("build", "dist", "*.egg-info", "__pycache__", ".venv", ".git", "runs")


def build_wheel(source: Path, work: Path, out: Path, parts: tuple[str, ...] = (".",)) -> Path:
    """The wheel of a source folder, built from a copy so that the folder stays as it is.

    Args:
        parts: what of the folder its wheel is made of; "." is all.
    """
    copy = work / source.name
    if parts == (".",):
        shutil.copytree(source, copy, ignore=LITTER)
    else:
        copy.mkdir(parents=True)
        for part in parts:
            if (source / part).is_dir():
                shutil.copytree(source / part, copy / part, ignore=LITTER)
            else:
                shutil.copy(source / part, copy / part)
    before = set(out.glob("*.whl"))
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(copy)], cwd=work)
    (wheel,) = set(out.glob("*.whl")) - before
    return wheel


class FreshVenv:
    """A virtual environment with the requirements linked in and no Vertebra."""

    def __init__(self, folder: Path, without: tuple[str, ...] = ()) -> None:
        """`without`: packages that are not linked in."""
        self.folder = folder
        venv.create(folder, with_pip=False, symlinks=os.name != "nt")
        self.scripts = folder / ("Scripts" if os.name == "nt" else "bin")
        self.python = self.scripts / ("python.exe" if os.name == "nt" else "python")
        links = folder / "requirements"
        links.mkdir()
        for place in {sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"]}:
            for path in Path(place).iterdir():
                if path.name not in without and not OURS.match(path.name) and not (links / path.name).exists():
                    (links / path.name).symlink_to(path, target_is_directory=path.is_dir())
        where = run(
            [self.python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"], cwd=folder
        ).strip()
        Path(where, "requirements.pth").write_text(f"{links}\n")

    def install(self, *wheels: Path) -> None:
        """By pip, from the wheels alone."""
        pip = [sys.executable, "-m", "pip", "--python", str(self.python)]
        run([*pip, "install", "--quiet", "--no-deps", "--no-index", *map(str, wheels)], cwd=self.folder)

    def run(self, *command: str, cwd: Path, **environment: str) -> str:
        """A script or `python` of this environment, away from the source tree; what it printed."""
        program = self.python if command[0] == "python" else self.scripts / command[0]
        return run([program, *command[1:]], cwd=cwd, **environment)


def run(command: list, cwd: Path, **environment: str) -> str:
    """A command's output; its whole output in the error where it fails."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VERTEBRA_PLUGINS_DISABLE", "VERTEBRA_PLUGINS_ALLOW")
    inherited = {key: value for key, value in os.environ.items() if key not in hidden and not key.startswith("PYTEST_")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**inherited, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "MPLBACKEND": "Agg", **environment},
        capture_output=True,
        text=True,
        timeout=1000,
    )
    output = done.stdout + done.stderr
    if done.returncode:
        raise AssertionError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{output[-6000:]}")
    return output
