"""No module imports itself by a detour, for type annotations either, and packages of one floor have an order."""

import ast
from pathlib import Path

import pytest


def module_names(package: Path) -> dict[str, Path]:
    """{module's name: its file} of a package."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(modules: dict[str, Path]) -> dict[str, set[str]]:
    """{module: modules it imports}, anywhere in its file; `from a import b` is a.b if that is a module, else a.

    The `__init__` of each package around what is imported is imported too, unless the module is in that package itself.
    """
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        graph[name] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            wanted = []
            if isinstance(node, ast.ImportFrom) and node.module:
                wanted = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                wanted = [alias.name for alias in node.names]
            for target in wanted:
                while target and target not in modules:
                    target = target.rpartition(".")[0]
                while target and target != name and not name.startswith(f"{target}."):
                    graph[name].add(target)
                    target = target.rpartition(".")[0]
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Nodes that reach each other, as sorted lists: repeatedly drops what nothing leads to or from."""
    left = {name: set(targets) & set(graph) for name, targets in graph.items()}
    while True:
        ends = {name for name, targets in left.items() if not targets}
        unused = set(left) - {target for targets in left.values() for target in targets}
        if not ends | unused:
            return [sorted(left)] if left else []
        left = {
            name: {target for target in targets if target not in ends | unused}
            for name, targets in left.items()
            if name not in ends | unused
        }


@pytest.fixture(scope="module")
def graph(repository):
    core = repository / "core"
    modules = module_names(core / "vertebra") | module_names(core / "eval" / "vertebra_eval")
    assert len(modules) > 300
    return imports_of(modules)


def test_no_module_is_in_a_circle(graph):
    assert circles(graph) == []


def test_no_package_of_the_core_is_in_a_circle(graph):
    packages: dict[str, set[str]] = {}
    for name, targets in graph.items():
        own = ".".join(name.split(".")[:2])
        others = {".".join(target.split(".")[:2]) for target in targets if target.count(".")}  # not the package itself
        packages.setdefault(own, set()).update(others - {own})
    packages.pop("vertebra", None)
    assert circles(packages) == []


def test_a_circle_would_be_seen(tmp_path):
    (tmp_path / "pack").mkdir()
    for name, text in (("__init__", ""), ("a", "import pack.b"), ("b", "from pack.c import x"), ("c", "import pack.a")):
        (tmp_path / "pack" / f"{name}.py").write_text(text)
    assert circles(imports_of(module_names(tmp_path / "pack"))) == [["pack.a", "pack.b", "pack.c"]]


def test_a_circle_through_a_package_around_would_be_seen(tmp_path):
    inner = tmp_path / "pack" / "inner"
    inner.mkdir(parents=True)
    (inner.parent / "__init__.py").touch()
    (inner.parent / "low.py").write_text("from pack.inner.plain import x")
    (inner / "__init__.py").write_text("from pack.inner.user import y")
    (inner / "plain.py").touch()
    (inner / "user.py").write_text("import pack.low")
    assert circles(imports_of(module_names(tmp_path / "pack"))) == [["pack.inner", "pack.inner.user", "pack.low"]]
