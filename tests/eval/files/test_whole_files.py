"""Files are there whole or not at all: whatever ends the writing, the old content or the new stands under the name."""

import os
import stat
import subprocess
import sys

import pytest

from vertebra_eval.errors import DataError
from vertebra_eval.files import (
    WholeFile,
    free_path,
    numbered_name,
    open_whole,
    read_json,
    whole_folder,
    write_bytes,
    write_json,
    write_text,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_content_is_there_at_the_end_and_not_before(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with open_whole(path, text=True) as file:
        file.write("new\r\nü")
        assert path.read_text() == "old" and len(names(tmp_path)) == 2
    assert path.read_bytes() == "new\r\nü".encode() and names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("durable", [False, True])
def test_text_bytes_and_json_are_written_and_replaced(tmp_path, durable):
    path = tmp_path / "a"
    write_text(path, "ü\n", durable=durable)
    assert path.read_bytes() == b"\xc3\xbc\n"
    write_bytes(path, b"\0", durable=durable)
    assert path.read_bytes() == b"\0"
    write_json(path, {"a": [1, 0.1, None]})
    assert path.read_text().endswith("}\n") and read_json(path) == {"a": [1, 0.1, None]}
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_an_error_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(error), open_whole(path) as file:
        file.write(b"half")
        raise error
    assert path.read_text() == "old" and names(tmp_path) == ["a"]


def test_json_that_cannot_be_written_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert path.read_text() == "old" and names(tmp_path) == ["a.json"]


def test_a_killed_process_leaves_what_was_there(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    code = (
        "import os, sys; from vertebra_eval.files import open_whole\n"
        "with open_whole(sys.argv[1]) as file:\n"
        "    file.write(b'x' * 100_000); file.flush(); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -9
    assert path.read_text() == "old"


def test_a_growing_file_is_finished_once(tmp_path):
    whole = WholeFile(tmp_path / "a", text=True)
    whole.file.write("1")
    assert not (tmp_path / "a").exists()
    whole.finish()
    whole.finish()
    assert (tmp_path / "a").read_text() == "1" and names(tmp_path) == ["a"]


def test_a_growing_file_that_is_discarded_leaves_nothing(tmp_path):
    whole = WholeFile(tmp_path / "a", text=True)
    whole.file.write("1")
    whole.discard()
    whole.finish()
    assert names(tmp_path) == []


def test_what_a_killed_writer_left_under_a_fixed_name_is_written_over(tmp_path):
    (tmp_path / "a.part").write_text("of an earlier one, and longer")
    with open_whole(tmp_path / "a", draft=tmp_path / "a.part") as file:
        file.write(b"x")
    assert (tmp_path / "a").read_text() == "x" and names(tmp_path) == ["a"]


@pytest.mark.skipif(os.name != "posix", reason="links and permissions of POSIX")
def test_a_link_stays_a_link_and_permissions_stay(tmp_path):
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "target"
    target.write_text("old")
    target.chmod(0o640)
    (tmp_path / "link").symlink_to(target)
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640 and names(target.parent) == ["target"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_new_file_and_folder_have_the_usual_permissions(tmp_path):
    (tmp_path / "plain").touch()
    (tmp_path / "plain_folder").mkdir()
    write_text(tmp_path / "a", "")
    with whole_folder(tmp_path / "folder"):
        pass
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "folder").stat().st_mode == (tmp_path / "plain_folder").stat().st_mode


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="no /dev/null")
def test_a_device_is_written_to_and_not_replaced():
    write_text("/dev/null", "x")
    with pytest.raises(ValueError), open_whole("/dev/null"):
        raise ValueError
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_errors_name_the_file_and_not_its_draft(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_text(tmp_path / "missing" / "a", "")
    assert caught.value.filename == str(tmp_path / "missing" / "a")
    with pytest.raises(OSError):
        write_text(tmp_path, "")
    assert names(tmp_path) == []


def test_a_folder_is_there_with_all_of_its_files_or_not_at_all(tmp_path):
    target = tmp_path / "deep" / "folder"
    with pytest.raises(ValueError), whole_folder(target) as draft:
        (draft / "a").touch()
        raise ValueError
    assert names(target.parent) == []
    target.mkdir()
    with whole_folder(target) as draft:
        (draft / "a").touch()
        assert names(target) == []
    assert names(target) == ["a"] and names(target.parent) == ["folder"]
    with pytest.raises(OSError), whole_folder(target) as draft:
        (draft / "b").touch()
    assert names(target) == ["a"] and names(target.parent) == ["folder"]


def test_free_names_count_from_two(tmp_path):
    assert [numbered_name("a.b", number, ".png") for number in (1, 2, 3)] == ["a.b.png", "a.b-2.png", "a.b-3.png"]
    assert free_path(tmp_path, "a.b", ".png") == tmp_path / "a.b.png"
    (tmp_path / "a.b.png").touch()
    (tmp_path / "a.b-2.png").symlink_to(tmp_path / "nowhere")  # a broken link is taken too
    assert free_path(tmp_path, "a.b", ".png") == tmp_path / "a.b-3.png"


def test_a_file_of_a_yaml_is_a_json_error(tmp_path):
    write_text(tmp_path / "a.json", "a: 1")
    with pytest.raises(DataError, match="line 1, column 1"):
        read_json(tmp_path / "a.json")
