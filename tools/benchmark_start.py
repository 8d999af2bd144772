"""Start-up of the command line: CPU time of whole processes, from start to exit.

    python tools/benchmark_start.py [--repeats 7] [--against OTHER_SOURCE_TREE] [--only predict] [--json FILE]

Every command runs in a process of its own, the commands and source trees in turns, and the medians are printed. CPU
seconds (user and system, of the process and its children) count, since other programs hardly disturb them.
`vertebra predict` runs on one picture, with the untrained weights of a small recipe; all of its outputs are written.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parents[1]
RECIPE = "retinanet:retinanet_shapes_quick"
PYTHON = [sys.executable]
VERTEBRA = [sys.executable, "-m", "vertebra"]
PREPARE = """
import sys
import torch
from torchvision.io import write_png
from vertebra import build_model, load_recipe
torch.manual_seed(0)
torch.save(build_model(load_recipe(sys.argv[1]), num_classes=3).state_dict(), "weights.pth")
write_png(torch.randint(0, 256, (3, 240, 320), dtype=torch.uint8), "picture.png")
"""


class Cost(NamedTuple):
    """Seconds of one process: on the CPU, and on the clock."""

    cpu: float
    wall: float


def commands(recipe: str) -> dict[str, list[str]]:
    """Each as arguments; `{output}` stands for a directory that does not exist yet."""
    predict = ["predict", recipe, "picture.png", "--weights", "weights.pth", "--device", "cpu", "--output", "{output}"]
    return {
        "python": [*PYTHON, "-c", "pass"],
        "import torch": [*PYTHON, "-c", "import torch"],
        "import torch, torchvision": [*PYTHON, "-c", "import torch, torchvision"],
        "import Trainer": [*PYTHON, "-c", "from vertebra import Trainer"],
        "import Predictor": [*PYTHON, "-c", "from vertebra import Predictor"],
        "import HeadConformance": [*PYTHON, "-c", "from vertebra.testing import HeadConformance"],
        "vertebra --help": [*VERTEBRA, "--help"],
        "vertebra components": [*VERTEBRA, "components"],
        "vertebra config": [*VERTEBRA, "config", recipe],
        "vertebra predict": [*VERTEBRA, *predict],
    }


def environment(tree: Path, folder: Path) -> dict[str, str]:
    """Python imports Vertebra and the bundled plugins from a source tree, and keeps compiled modules in `folder`."""
    paths = [tree / "core", *sorted(path.parent for path in tree.glob("plugins/*/pyproject.toml"))]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONPYCACHEPREFIX": str(folder / "compiled")}


def run(command: list[str], folder: Path, env: Mapping[str, str]) -> Cost:
    """Runs a command to its end and returns what it cost."""
    with tempfile.TemporaryDirectory(dir=folder) as name, (folder / "log").open("w+") as log:
        arguments = [part.format(output=f"{name}/output") if part == "{output}" else part for part in command]
        start = time.perf_counter()
        process = subprocess.Popen(arguments, cwd=folder, env=dict(env), stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            raise SystemExit(f"{' '.join(arguments)} ended with exit code {process.returncode}\n{log.read()}")
    return Cost(usage.ru_utime + usage.ru_stime, wall)


def measure(trees: Mapping[str, Path], work: Mapping[str, list[str]], repeats: int) -> dict[str, dict[str, Cost]]:
    """Medians by command and tree. The first round, in which Python compiles and the disk is cold, does not count."""
    costs: dict[str, dict[str, list[Cost]]] = {name: {tree: [] for tree in trees} for name in work}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run([*PYTHON, "-c", PREPARE, RECIPE], folder, environment(HERE, folder))
        for _ in range(repeats + 1):
            for what, command in work.items():
                for tree, path in trees.items():
                    costs[what][tree].append(run(command, folder, environment(path, folder)))
    return {
        what: {tree: Cost(*map(statistics.median, zip(*rounds[1:], strict=True))) for tree, rounds in of_trees.items()}
        for what, of_trees in costs.items()
    }


def main() -> None:
    """Measures, prints the table, and writes it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--against", type=Path, default=None, help="Source tree of Vertebra to compare with.")
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT", help="Commands with this text in the name.")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    trees = {"here": HERE} | ({"against": options.against.resolve()} if options.against else {})
    work = {name: part for name, part in commands(RECIPE).items() if any(text in name for text in options.only)}
    results = measure(trees, work, options.repeats)
    print(f"medians of {options.repeats}, seconds")
    heads = [f"{tree + ' ' + kind:>13s}" for tree in trees for kind in Cost._fields]
    print(" " * 26, *heads, " CPU ratio" if options.against else "")
    for what, by_tree in results.items():
        numbers = [f"{seconds:13.2f}" for cost in by_tree.values() for seconds in cost]
        ratio = f"{by_tree['here'].cpu / by_tree['against'].cpu:10.2f}" if options.against else ""
        print(f"{what:26s}", *numbers, ratio)
    if options.json:
        rows = {what: {tree: cost._asdict() for tree, cost in by_tree.items()} for what, by_tree in results.items()}
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
