"""Forty installed distributions, ten of them broken in ten ways."""

from pathlib import Path

GOOD = """
from vertebra.models import Head

class {name}(Head):
    def __init__(self, input_shape: dict, num_classes: int, *, width: int = {number}) -> None:
        super().__init__()
"""

LOUD = "import sys, warnings\nprint('hello from loud')\nwarnings.warn('loud warns')\nsys.stderr.write('loud errs\\n')\n"

BROKEN = {  # distribution: (source of its module, words that explain it in `plugins check`)
    "b-raises": ("raise RuntimeError('no license file')", "RuntimeError: no license file"),
    "b-exits": ("import sys\nsys.exit(3)", "SystemExit: 3"),
    "b-syntax": ("class Broken(:\n", "SyntaxError: invalid syntax"),
    "b-hangs": ("import time\ntime.sleep(1000)", "it hangs: its import did not finish within 3 s"),
    "b-quits": ("import os\nos._exit(7)", "it ended the process during its import (exit code 7)"),
    "b-crashes": (
        "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)",
        "it ended the process during its import (signal SIGSEGV)",
    ),
    "b-future": (GOOD.format(name="Broken", number=1), "it needs vertebra<100,>=99, but vertebra"),
    "b-renamed": (GOOD.format(name="BrokenHead", number=1), "has no 'Broken'.\n      Nearest: BrokenHead"),
    "b-dependency": ("import no_such_package_anywhere", "No module named 'no_such_package_anywhere'"),
    "b-neck": (
        GOOD.format(name="Broken", number=1).replace("Head", "Neck"),
        "is a neck, but it is registered as a head",
    ),
}


def install(
    site: Path, name: str, source: str, component: str, attribute: str, requires: str = "vertebra>=0.1,<0.2"
) -> None:
    """A distribution with one module and one head, as pip leaves it."""
    module = "dummy_" + name.replace("-", "_")
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nSummary: A dummy.\nRequires-Dist: {requires}\n"
    )
    (info / "entry_points.txt").write_text(f"[vertebra.heads]\n{component} = {module}:{attribute}\n")
    (site / f"{module}.py").write_text(source)
