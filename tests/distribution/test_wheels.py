"""What is distributed: pure wheels with all their data, that work far from the source tree."""

import shutil
import zipfile

import pytest

CONFORMANCE = "plugins/*/tests/test*conformance*.py"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def contents(wheel):
    with zipfile.ZipFile(wheel) as file:
        return set(file.namelist())


def test_every_wheel_is_pure_python(wheels):
    assert len(wheels) >= 2
    assert [wheel.name for wheel in wheels.values() if not wheel.name.endswith("-py3-none-any.whl")] == []


def test_the_core_wheel_holds_every_file_of_the_package_and_nothing_else(wheels, repository):
    package = repository / "core" / "vertebra"
    wanted = {
        path.relative_to(package.parent).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"vertebra/py.typed", "vertebra/evaluation/report/report.css"} < wanted
    assert any(name.endswith(".template") for name in wanted)
    found = {name for name in contents(wheels["core"]) if ".dist-info/" not in name}
    assert sorted(wanted ^ found) == []


def test_plugin_wheels_hold_their_packages_and_recipes_and_no_tests(wheels, repository):
    for name, wheel in wheels.items():
        if name == "core":
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


def test_installed_plugins_and_their_recipes_are_listed(installed, wheels, tmp_path):
    listing = installed.run("vertebra", "plugins", cwd=tmp_path)
    for name in set(wheels) - {"core"}:
        assert f"vertebra-{name}" in listing
    assert "PROBLEM" not in listing


def test_recipes_resolve_without_a_clone(installed, tmp_path):
    code = (
        "from vertebra.config import list_recipes, load_recipe\n"
        "names = list_recipes()\n"
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
    missing = {path.parent.name for path in repository.glob("plugins/*/pyproject.toml")} - {
        path.parent.parent.name for path in repository.glob(CONFORMANCE)
    }
    assert not missing, f"plugins without a test of conformance: {', '.join(sorted(missing))}"
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow: takes long\naddopts = --import-mode=importlib\n")
    chosen = "builds or survives or trains_by_its_recipe"
    installed.run("python", "-m", "pytest", "-q", "-m", "not slow", "-k", chosen, *files, cwd=tmp_path)
