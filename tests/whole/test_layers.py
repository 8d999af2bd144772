"""Imports run downwards, the core names no plugin, and a plugin imports the core alone."""

import ast
import functools
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "draw_architecture.py"
spec = importlib.util.spec_from_file_location("draw_architecture", TOOL)
draw_architecture = importlib.util.module_from_spec(spec)
spec.loader.exec_module(draw_architecture)  # the picture of the layers, and this test, have them from one place
imported_modules = draw_architecture.imported_modules
RANK = {name: rank for rank, names in enumerate(draw_architecture.LAYERS.values()) for name in names}
CORE = ("vertebra", "vertebra_eval")
LIGHT = (
    "vertebra",
    "vertebra.registry",
    "vertebra.plugins",
    "vertebra.config.describe",
    "vertebra.config",
    "vertebra.cli",
)


def core_files(repository: Path) -> list[Path]:
    files = sorted((repository / "core" / "vertebra").rglob("*.py"))
    assert len(files) > 30
    return files


def test_core_imports_run_downwards(repository):
    core = repository / "core" / "vertebra"
    wrong = []
    for path in core_files(repository):
        own = path.relative_to(core).parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for module in imported_modules(path):
            parts = module.split(".")
            if parts[0] != "vertebra" or len(parts) < 2 or parts[1] not in RANK:
                continue
            if RANK[parts[1]] > RANK[own]:
                wrong.append(f"{path.relative_to(core)} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_every_core_module_has_a_layer(repository):
    tops = draw_architecture.top_levels(repository / "core" / "vertebra")
    assert tops <= set(RANK), f"no layer for {sorted(tops - set(RANK))}"


def test_evaluation_of_results_stands_below_all(repository):
    """`vertebra_eval` imports neither vertebra nor torch, inside functions either."""
    folder = repository / "core" / "eval" / "vertebra_eval"
    files = sorted(folder.rglob("*.py"))
    assert len(files) > 30
    wrong = [
        f"{path.relative_to(folder)} imports {module}"
        for path in files
        for module in imported_modules(path)
        if module.split(".")[0] in ("vertebra", "torch", "torchvision", "fvcore", "iopath")
    ]
    assert not wrong, "\n".join(wrong)


def test_the_core_names_no_plugin(repository):
    packages = [path.name for path in repository.glob("plugins/*/vertebra_*")]
    assert "vertebra_retinanet" in packages
    wrong = [
        f"{path}: {package}"
        for path in core_files(repository)
        for package in packages
        if package in path.read_text(encoding="utf-8")
    ]
    assert not wrong, "\n".join(wrong)


def test_a_plugin_imports_no_other_plugin(repository):
    wrong = []
    for package in repository.glob("plugins/*/vertebra_*"):
        for path in package.rglob("*.py"):
            for module in imported_modules(path):
                top = module.split(".")[0]
                if top.startswith("vertebra_") and top != package.name:
                    wrong.append(f"{path} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_a_plugin_imports_public_names_alone(repository):
    wrong, seen = [], 0
    for path in repository.glob("plugins/*/vertebra_*/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
                wrong += [
                    f"{path}: import {name}" for name in modules if name.split(".")[0] in CORE and name != "vertebra"
                ]
            if not isinstance(node, ast.ImportFrom) or (node.module or "").split(".")[0] not in CORE:
                continue
            names = public_names().get(node.module, set())
            seen += len(node.names)
            wrong += [f"{path}: {node.module}.{alias.name}" for alias in node.names if alias.name not in names]
    assert seen > 200
    assert not wrong, "\n".join(wrong)


@functools.cache
def public_names() -> dict[str, set[str]]:
    """Of the modules whose names are promised to stay, see tests/plugins/test_public_names.py."""
    text = (TOOL.parents[1] / "tests/plugins/test_public_names.py").read_text(encoding="utf-8")
    tree = ast.parse(text)
    table = next(node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "PUBLIC")
    return {module: set(names.split()) for module, names in ast.literal_eval(table).items()}


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_import_no_torch(module):
    # a process of its own: this one has imported torch
    code = f"import sys, {module}; assert 'torch' not in sys.modules and 'torchvision' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_are_all_there():
    import vertebra

    missing = [name for name in vertebra.__all__ if getattr(vertebra, name, None) is None]
    assert not missing
