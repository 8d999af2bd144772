"""What is distributed: pure wheels with all their data, that work far from the source tree."""

import re
import shutil
import zipfile

import pytest
from fresh_venv import FreshVenv

CONFORMANCE = "plugins/*/tests/test*conformance*.py"
IN_KIT = re.compile(r'entry-points."vertebra\.(backbones|necks|heads|losses|hooks|evaluators)"')  # kinds that it checks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def contents(wheel):
    with zipfile.ZipFile(wheel) as file:
        return set(file.namelist())


def test_every_wheel_is_pure_python(wheels):
    assert len(wheels) >= 2
    assert [wheel.name for wheel in wheels.values() if not wheel.name.endswith("-py3-none-any.whl")] == []


@pytest.mark.parametrize(
    ("name", "folder", "some"),
    [
        ("core", "core/vertebra", {"vertebra/py.typed", "vertebra/scaffold/templates/common/pyproject.toml.template"}),
        ("eval", "core/eval/vertebra_eval", {"vertebra_eval/py.typed", "vertebra_eval/report/templates/page.html"}),
    ],
)
def test_a_core_wheel_holds_every_file_of_its_package_and_nothing_else(wheels, repository, name, folder, some):
    package = repository / folder
    wanted = {
        path.relative_to(package.parent).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert some < wanted
    found = {file for file in contents(wheels[name]) if ".dist-info/" not in file}
    assert sorted(wanted ^ found) == []


def test_plugin_wheels_hold_their_packages_and_recipes_and_no_tests(wheels, repository):
    for name, wheel in wheels.items():
        if name in ("core", "eval"):
            continue
        folder = repository / "plugins" / name
        (package,) = (path for path in folder.glob("vertebra_*") if (path / "__init__.py").is_file())
        wanted = {
            path.relative_to(folder).as_posix()
            for path in package.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        found = {file for file in contents(wheel) if ".dist-info/" not in file}
        assert sorted(wanted ^ found) == [], wheel.name


def test_the_installed_core_is_not_the_source_tree(installed, repository, tmp_path):
    found = installed.run("python", "-c", "import vertebra; print(vertebra.__file__)", cwd=tmp_path)
    assert str(installed.folder) in found
    assert str(repository) not in found


def test_results_are_evaluated_without_torch(wheels, tmp_path):
    """The wheel of vertebra-eval without torch and vertebra: numbers and a report are there."""
    fresh = FreshVenv(tmp_path / "venv", without=("torch", "torchvision", "vertebra"))
    fresh.install(wheels["eval"])
    code = (
        "import importlib.util as u; assert not u.find_spec('torch') and not u.find_spec('vertebra')\n"
        "from vertebra_eval import coco_evaluate\n"
        "box = {'image_id': 1, 'category_id': 1, 'bbox': [1, 1, 9, 9]}\n"
        "truth = {'images': [{'id': 1}], 'categories': [{'id': 1, 'name': 'a'}], 'annotations': [box | {'id': 1}]}\n"
        "metrics = coco_evaluate(truth, [box | {'score': 1.0}])\n"
        "from pathlib import Path; from vertebra_eval.report import write_report\n"
        "write_report(Path('report.html'), title='t', subtitle='s', metrics=metrics, reasons={})\n"
        "print('AP', metrics['bbox/AP'])"
    )
    assert "AP 0.99" in fresh.run("python", "-c", code, cwd=tmp_path)
    assert "Boxes" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_installed_plugins_and_their_recipes_are_listed(installed, wheels, tmp_path):
    listing = installed.run("vertebra", "plugins", cwd=tmp_path)
    for name in set(wheels) - {"core", "eval"}:
        assert f"vertebra-{name}" in listing
    assert "PROBLEM" not in listing


def test_recipes_resolve_without_a_clone(installed, tmp_path):
    code = (
        "from vertebra.config import list_recipes, load_recipe\n"
        "names = [name for name in list_recipes() if not name.startswith('datasets:')]\n"
        "assert names\n"
        "for name in names: load_recipe(name)\n"
        "print(len(names), 'recipes load')"
    )
    assert "recipes load" in installed.run("python", "-c", code, cwd=tmp_path)


def test_bundled_plugins_pass_the_conformance_kit_from_their_wheels(installed, repository, tmp_path):
    """Built, trained for two steps and spawned; each plugin's own test files are all that is taken along.

    The rest of the kit does not depend on where the code lies; it runs from the source tree.
    """
    files = []
    for file in sorted(repository.glob(CONFORMANCE)):
        target = tmp_path / file.parent.parent.name / f"{file.stem}_{file.parent.parent.name}.py"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(file, target)
        files.append(str(target))
    missing = {
        path.parent.name for path in repository.glob("plugins/*/pyproject.toml") if IN_KIT.search(path.read_text())
    } - {path.parent.parent.name for path in repository.glob(CONFORMANCE)}
    assert not missing, f"plugins without a test of conformance: {', '.join(sorted(missing))}"
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow: takes long\naddopts = --import-mode=importlib\n")
    chosen = "builds or survives or trains_by_its_recipe"
    installed.run("python", "-m", "pytest", "-q", "-m", "not slow", "-k", chosen, *files, cwd=tmp_path)
