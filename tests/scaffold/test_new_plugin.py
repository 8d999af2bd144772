"""`vertebra plugins new`: names, refusals, and one kind run without installing anything."""

import os
import re
import subprocess
import sys

import pytest

from vertebra.errors import PluginError
from vertebra.scaffold import SCAFFOLD_KINDS, new_plugin


@pytest.mark.parametrize("kind", SCAFFOLD_KINDS)
def test_what_is_written_is_tidy_and_complete(kind, tmp_path):
    made = new_plugin("My_Part", kind, tmp_path)
    assert made.folder == tmp_path / "my-part"
    assert made.components == {kind: "MyPart"}
    assert made.recipes[0][0] == "my-part:shapes"
    files = {path.relative_to(made.folder) for path in made.folder.rglob("*") if path.is_file()}
    assert files == set(made.files)
    assert {str(path) for path in files} >= {
        "pyproject.toml",
        "README.md",
        ".github/workflows/tests.yml",
        f"my_part/{kind}.py",
        "my_part/recipes/shapes.yaml",
        "tests/test_my_part.py",
    }
    for path in files - {path for path in files if path.suffix == ".png"}:
        text = (made.folder / path).read_text(encoding="utf-8")
        assert not re.search(r"\$(?!\{\{)", text), f"{path} has a placeholder left"
    # ruff is a program
    ruff = [sys.executable, "-m", "ruff"]
    subprocess.run([*ruff, "check", "--isolated", "--line-length", "120", "."], cwd=made.folder, check=True)
    subprocess.run([*ruff, "format", "--isolated", "--line-length", "120", "--check", "."], cwd=made.folder, check=True)


def test_the_core_it_needs_is_this_minor_release(tmp_path):
    import vertebra

    text = (new_plugin("my-part", "head", tmp_path).folder / "pyproject.toml").read_text()
    major, minor = vertebra.__version__.split(".")[:2]
    assert f'dependencies = ["vertebra>={major}.{minor},<{major}.{int(minor) + 1}"]' in text


def test_several_kinds_have_a_class_a_recipe_and_tests_each(tmp_path):
    made = new_plugin("my-idea", ["neck", "loss", "format"], tmp_path)
    assert made.components == {"neck": "MyIdeaNeck", "loss": "MyIdeaLoss", "format": "MyIdeaFormat"}
    sample = (tmp_path / "my-idea" / "sample").resolve()
    assert made.recipes == (
        ("my-idea:neck_shapes",),
        ("my-idea:loss_shapes",),
        ("my-idea:format_shapes", f"data.root={sample}"),
    )
    written = {str(path) for path in made.files}
    for kind in made.components:
        expected = {f"my_idea/{kind}.py", f"my_idea/recipes/{kind}_shapes.yaml", f"tests/test_{kind}.py"}
        assert expected <= written
    project = (made.folder / "pyproject.toml").read_text()
    assert 'MyIdeaFormat = "my_idea.format:MyIdeaFormat"' in project
    ruff = [sys.executable, "-m", "ruff"]
    subprocess.run([*ruff, "check", "--isolated", "--line-length", "120", "."], cwd=made.folder, check=True)


def test_classes_are_named_by_hand_where_wanted(tmp_path):
    made = new_plugin("my-idea", ["neck", "loss"], tmp_path, class_names=["Pyramid", "Focus"])
    assert made.components == {"neck": "Pyramid", "loss": "Focus"}
    for names, words in (
        (["One"], r"1 class names \(One\) for 2 kinds \(neck, loss\); expected one for each"),
        (["One", "One"], r"the classes cannot have these names:\n  two classes have one name: One, One\n  Name others"),
        (["2One", "Two"], "'2One' cannot be the name of a class"),
        (["FPN", "Two"], "has a neck FPN already"),
    ):
        with pytest.raises(PluginError, match=words):
            new_plugin("other-idea", ["neck", "loss"], tmp_path, class_names=names)
    with pytest.raises(PluginError, match="kinds are neck, neck; expected one or several, each once"):
        new_plugin("other-idea", ["neck", "neck"], tmp_path)


@pytest.mark.slow  # a pytest of its own
def test_a_loss_plugin_passes_its_own_tests_without_being_installed(tmp_path):
    made = new_plugin("sample-loss", "loss", tmp_path)
    advertise(made.folder)
    # a process of its own: pytest as the plugin's author runs it
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "not spawned", "tests"]
    path = os.pathsep.join([str(made.folder), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=made.folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def advertise(folder):
    """Beside the package the metadata that an installation would leave."""
    text = (folder / "pyproject.toml").read_text()
    sections = re.findall(r'\[project\.entry-points\."(.+)"\]\n((?:\S+ = ".+"\n)+)', text)
    assert {group for group, _ in sections} == {"vertebra.losses", "vertebra.recipes"}
    info = folder / f"{folder.name.replace('-', '_')}-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {folder.name}\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(
        "\n".join(f"[{group}]\n{lines.replace(chr(34), '')}" for group, lines in sections)
    )


def test_an_existing_folder_is_never_written_to(tmp_path):
    (tmp_path / "my-head").mkdir()
    (tmp_path / "my-head" / "precious.py").write_text("mine")
    with pytest.raises(PluginError, match="my-head already exists; remove it, or choose another name"):
        new_plugin("my-head", "head", tmp_path)
    assert [path.name for path in (tmp_path / "my-head").iterdir()] == ["precious.py"]


@pytest.mark.parametrize("name", ["", "2fast", "my head", "../evil", "-x", "my--head", "naïve", "a/b", "x" * 61])
def test_names_that_cannot_be_are_refused(name, tmp_path):
    with pytest.raises(PluginError, match="cannot be a plugin's name: expected"):
        new_plugin(name, "head", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("class", "head", "a Python keyword"),
        ("json", "hook", "module of Python's standard library"),
        ("torch", "head", "a package torch can be imported here already"),
        ("vertebra", "head", "a package vertebra can be imported"),
        ("early-stop", "hook", "has a hook EarlyStop already"),
        ("vertebra-retinanet", "head", "a plugin vertebra-retinanet .* is installed"),
        ("retinanet", "neck", "ships its recipes as retinanet:"),
    ],
)
def test_names_that_are_taken_are_refused(name, kind, words, tmp_path):
    with pytest.raises(PluginError, match=rf"(?s){words}.*Try "):
        new_plugin(name, kind, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_kind_without_a_template_names_those_with_one(tmp_path):
    with pytest.raises(
        PluginError, match=r"no template exists for a 'heads'.*\n  Nearest: head. All: model, backbone, neck"
    ):
        new_plugin("my-part", "heads", tmp_path)


def test_a_base_without_a_detection_head_is_explained(tmp_path):
    with pytest.raises(PluginError, match=r"Tried: nobody:nothing: .*no installed plugin"):
        new_plugin("my-neck", "neck", tmp_path, base="nobody:nothing")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PluginError, match=r"cannot write .*my-head: .*Choose another --output"):
        new_plugin("my-head", "head", tmp_path / "file")


def test_the_command_says_what_comes_next(command_line, tmp_path):
    said = command_line("plugins", "new", "my-head", "--kind", "head", "--output", tmp_path).stdout
    assert "pip install -e" in said
    assert "vertebra train my-head:shapes" in said


def test_writing_a_plugin_needs_no_torch(tmp_path):
    # a process of its own: this one has imported torch
    code = (
        "import sys; from vertebra.scaffold import new_plugin\n"
        f"new_plugin('my-neck', 'neck', {str(tmp_path)!r})\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
