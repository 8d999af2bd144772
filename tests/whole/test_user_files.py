"""A pipe or a device in the place of a file is refused at once, whoever reads; and no reader opens paths on its own."""

import ast
import os

import pytest

from vertebra.config import load_recipe
from vertebra.data.images.read import read_image
from vertebra.data.semantic.file_pairs import read_names
from vertebra.errors import VertebraError
from vertebra.evaluation import coco_evaluate
from vertebra.models.weights import read_weights
from vertebra_eval.files import check_regular, open_regular, read_bytes, read_json, read_text
from vertebra_eval.panoptic.runs import read_id_runs

READERS = {
    "recipe": (load_recipe, ".yaml"),
    "annotations": (read_json, ".json"),
    "list": (read_names, ".txt"),
    "image": (read_image, ".png"),
    "weights": (read_weights, ".pth"),
    "pickle": (read_weights, ".pkl"),
    "safetensors": (read_weights, ".safetensors"),
    "panoptic": (read_id_runs, ".png"),
    "results": (lambda path: coco_evaluate(path, []), ".json"),
}


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("odd", ["pipe", "endless"])
@pytest.mark.timeout(20)
def test_readers_neither_wait_for_a_pipe_nor_read_a_device(tmp_path, kind, odd):
    read, suffix = READERS[kind]
    path = tmp_path / f"odd{suffix}"
    if odd == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(VertebraError, match=rf"(odd{suffix}|/dev/zero).*pipe or device, not a file"):
        read(path)


def test_files_are_read_and_all_else_is_an_os_error(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("a\nü", encoding="utf-8")
    assert read_bytes(file) == "a\nü".encode() and read_text(file) == "a\nü"
    check_regular(file)
    for read in (open_regular, check_regular, read_bytes, read_text):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "missing")
        with pytest.raises(IsADirectoryError, match="is a folder"):
            read(tmp_path)
        with pytest.raises(OSError, match="NUL byte"):
            read("a\0b")


# Files of the package itself, files that this process has just written, and a page of the system: none of a user's.
OWN_FILES = {
    ("runtime/fellows.py", "read_text"),
    ("report/html.py", "read_text"),
    ("report/embed.py", "open"),
    ("analysis/image_sums.py", "open"),  # a member of an archive in memory
    ("plugins/discovery.py", "read_text"),
    ("scaffold/write.py", "read_text"),
    ("predictor/video.py", "open"),  # after check_regular, and what it writes
    ("data/images/read.py", "open"),  # after check_regular
    ("panoptic/runs.py", "open"),  # of bytes in memory
    ("label_maps.py", "open"),  # of bytes in memory
    ("testing/formats.py", "read_bytes"),  # of a copy that it damages
    ("models/downloads.py", "open"),  # the copy that it has checked or writes
    ("models/torch_files.py", "open"),  # after check_regular
}


def core_packages(repository):
    return repository / "core" / "vertebra", repository / "core" / "eval" / "vertebra_eval"


def test_no_reader_opens_a_path_on_its_own(repository):
    """Reading goes through vertebra_eval.files.regular; a new reader that does not is named here."""
    found = set()
    for root in (*core_packages(repository), *sorted((repository / "plugins").glob("*/vertebra_*"))):
        for path in root.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and (name := _reads(node)):
                    found.add((path.relative_to(root).as_posix(), name))
    found = {item for item in found if item[0] != "files/regular.py"}
    assert found == OWN_FILES


def _reads(call: ast.Call) -> str | None:
    """The name of a call that opens a path for reading."""
    function = call.func
    if isinstance(function, ast.Attribute) and function.attr in ("read_bytes", "read_text"):
        return function.attr
    if isinstance(function, ast.Attribute) and function.attr == "open":
        if isinstance(function.value, ast.Name) and function.value.id == "os":
            return None
        mode = call.args[0] if call.args else None  # path.open("rb"), Image.open(path)
        writes = isinstance(mode, ast.Constant) and isinstance(mode.value, str) and mode.value[:1] in "wax"
        return None if writes else "open"
    if isinstance(function, ast.Name) and function.id == "open":
        mode = call.args[1] if len(call.args) > 1 else None
        return None if isinstance(mode, ast.Constant) and mode.value[:1] in "wax" else "open"
    return None


def test_the_walk_sees_each_way_to_read():
    for text in ("p.read_text()", "Path(p).read_bytes()", "p.open()", "p.open('rb')", "open(p)", "Image.open(p)"):
        assert _reads(ast.parse(text, mode="eval").body), text
    for text in ("p.open('w')", "open(p, 'wb')", "p.write_text('a')"):
        assert not _reads(ast.parse(text, mode="eval").body), text


def test_own_files_exist(repository):
    for name, _ in OWN_FILES:
        assert any((root / name).is_file() for root in core_packages(repository)), name


# What is written part by part on purpose, stands in a draft that is renamed later, or does not belong to a user.
OWN_WRITES = {
    ("files/regular.py", "fdopen"),  # for reading
    ("analysis/image_sums.py", "savez_compressed"),  # into memory
    ("engine/trainer.py", "save"),  # of checkpoints and of a recipe, which write through it
    ("classic/run.py", "save"),
    ("testing/formats.py", "write_bytes"),  # of that copy
    ("testing/whole_model.py", "save"),
    ("files/whole.py", "open"),
    ("files/whole.py", "replace"),
    ("files/whole.py", "rename"),
    ("runtime/folders.py", "open"),  # a claim, and empty
    ("engine/run_folder.py", "open"),  # a lock, and empty
    ("engine/checkpoint.py", "rename"),  # what is in the way and not a file
    ("engine/hooks/metrics_file.py", "open"),  # grows line by line; reading skips a half one
    ("evaluation/result_stream.py", "write_text"),  # parts that shall stay when a run breaks
    ("evaluation/result_stream.py", "open"),
    ("evaluation/result_stream.py", "replace"),
    ("data/shapes/files.py", "write_text"),  # in a `whole_folder`
    ("data/shapes/files.py", "save"),
    ("scaffold/write.py", "write_bytes"),  # in a `whole_folder`
    ("export/onnx_file.py", "save"),  # in a draft that is compared before it gets the name
    ("export/onnx_file.py", "replace"),
    ("predictor/video.py", "open"),  # of PyAV, which needs a path
    ("cli/check_plugins.py", "open"),  # in a folder for this process
    ("cli/ending.py", "open"),  # the null device
    ("cli/unforeseen.py", "fdopen"),  # a new file of the system's folder for such
}
CALLEES = {"write_text", "write_bytes", "savez", "savez_compressed", "savefig", "save", "fdopen", "rename"}


def test_no_writer_opens_a_path_on_its_own(repository):
    """Writing goes through vertebra_eval.files; a new writer that does not is named here, with the reason."""
    found = set()
    for root in (*core_packages(repository), *sorted((repository / "plugins").glob("*/vertebra_*"))):
        for path in root.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and (name := _writes(node)):
                    found.add((path.relative_to(root).as_posix(), name))
    assert found == OWN_WRITES


def _writes(call: ast.Call) -> str | None:
    """The name of a call that makes, fills or renames the file of a path."""
    function = call.func
    first, second = (ast.unparse(argument) for argument in (*call.args, ast.Name("''"), ast.Name("''"))[:2])
    if isinstance(function, ast.Name):
        return "open" if function.id == "open" and second[1:2] in ("w", "a", "x") else None
    if not isinstance(function, ast.Attribute):
        return None
    if function.attr == "open":
        return "open" if first in ("'w'", "'wb'", "'a'", "'ab'", "'x'") or second in ("'w'", "'wb'") else None
    if function.attr == "replace":  # of a path: of a text or a dataclass it has other arguments
        return (
            "replace" if ast.unparse(function) == "os.replace" or (len(call.args) == 1 and not call.keywords) else None
        )
    if function.attr in CALLEES and call.args and not {first, second} & {"file", "buffer", "self", "trainer"}:
        return function.attr
    return None


def test_the_walk_sees_each_way_to_write():
    for text in (
        "p.write_text('a')",
        "p.open('w')",
        "p.open('ab')",
        "open(p, 'x')",
        "os.replace(a, b)",
        "a.replace(b)",
    ):
        assert _writes(ast.parse(text, mode="eval").body), text
    for text in ("a.rename(b)", "image.save(path, format='PNG')", "np.savez_compressed(path, a=1)", "f.savefig(path)"):
        assert _writes(ast.parse(text, mode="eval").body), text
    for text in ("p.open()", "p.open('rb')", "open(p)", "text.replace('a', 'b')", "replace(a, b=1)", "i.save(file)"):
        assert not _writes(ast.parse(text, mode="eval").body), text
