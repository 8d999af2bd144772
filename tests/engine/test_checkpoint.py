"""Checkpoints: whole or not there, read without running anything, the previous one where the newest is damaged."""

import os
import zipfile

import pytest
import torch

from vertebra.engine.checkpoint import CheckpointStore, read_checkpoint, write_checkpoint
from vertebra.errors import CheckpointError
from vertebra.models import read_weights
from vertebra.models.torch_files import read_torch_file


def content(step: int) -> dict:
    return {
        "model": {"weight": torch.full((1000,), float(step))},
        "optimizer": {},
        "step": step,
        "rng": [],
        "hooks": {},
        "format": 1,
    }


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path / "checkpoints", keep=2)


def test_keeps_the_newest_and_points_at_the_last(store):
    for step in (5, 10, 15):
        store.save(step, content(step))
    assert sorted(p.name for p in store.folder.iterdir()) == ["last", "step_0000010.pth", "step_0000015.pth"]
    assert (store.folder / "last").read_text() == "step_0000015.pth\n"
    assert store.newest().content["step"] == 15


def test_an_edited_pointer_is_followed_and_nothing_later_removed(store):
    for step in (5, 10):
        store.save(step, content(step))
    (store.folder / "last").write_text("step_0000005.pth\n")
    assert store.newest().content["step"] == 5
    store.save(7, content(7))
    assert store.newest().content["step"] == 7
    assert (store.folder / "step_0000010.pth").exists()


def test_a_pointer_that_leads_elsewhere_is_not_followed(store, tmp_path):
    store.save(5, content(5))
    torch.save(content(99), tmp_path / "step_0000099.pth")
    (store.folder / "last").write_text("../step_0000099.pth")
    found = store.newest()
    assert found.content["step"] == 5
    assert "which does not exist" in found.notes[0]


@pytest.mark.parametrize("cut", [0, 1, 100, 0.5, 0.99])
def test_a_damaged_newest_gives_way_to_the_one_before(store, cut):
    store.save(5, content(5))
    newest = store.save(10, content(10))
    data = newest.read_bytes()
    newest.write_bytes(data[: int(len(data) * cut) if cut < 1 else cut])
    found = store.newest()
    assert found.content["step"] == 5
    assert "step_0000010.pth: damaged" in found.notes[0] or "refused" in found.notes[0]


def test_a_flipped_bit_is_noticed(store):
    path = store.save(5, content(5))
    data = bytearray(path.read_bytes())
    at = data.find(torch.full((4,), 5.0).numpy().tobytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match="none of the 1 checkpoints can be read"):
        store.newest()


def test_an_empty_folder_has_nothing(store):
    assert store.newest() is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("evil_raw_pickle.pth", "refused|damaged"),
        ("evil_torch_zip.pth", "refused|damaged"),
        ("not_a_checkpoint.pth", "refused|damaged"),
        ("zero_byte.pth", r"damaged, or not a checkpoint \(0 bytes\)"),
        ("truncated_zip.pth", "damaged"),
        ("empty_dict.pth", "not a training checkpoint|damaged"),
    ],
)
def test_hostile_files_are_refused_and_not_executed(shared, tmp_path, monkeypatch, name, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=words) as caught:
        read_checkpoint(shared(f"data/bad/checkpoints/{name}"))
    assert "weights_only" not in str(caught.value)  # torch's message advises to run what is in the file
    assert list(tmp_path.iterdir()) == []


def test_a_folder_and_a_missing_file_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="is a folder, not a file"):
        read_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="no such file"):
        read_checkpoint(tmp_path / "absent.pth")


def test_a_newer_format_says_so(tmp_path):
    path = tmp_path / "new.pth"
    torch.save(content(1) | {"format": 2, "vertebra": "9.0"}, path)
    with pytest.raises(CheckpointError, match=r"written by vertebra 9\.0 in format 2"):
        read_checkpoint(path)


def test_a_full_disk_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "step.pth"
    write_checkpoint(path, content(1))

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        write_checkpoint(path, content(2))
    assert read_checkpoint(path)["step"] == 1
    assert os.listdir(tmp_path) == ["step.pth"]


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    with pytest.raises(CheckpointError, match=r"checkpoint\['hooks'\]\['Mine'\]\['seen'\] is a set"):
        write_checkpoint(tmp_path / "x.pth", content(1) | {"hooks": {"Mine": {"seen": {1, 2}}}})


def test_the_file_is_a_plain_torch_zip(tmp_path):
    write_checkpoint(tmp_path / "x.pth", content(1))
    assert zipfile.is_zipfile(tmp_path / "x.pth")


def obstacle(path, kind):
    """Something at `path` that is not a readable file."""
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(b"something")
        path.chmod(0)


KINDS = ["folder", pytest.param("pipe", marks=pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here"))]


@pytest.mark.parametrize("kind", [*KINDS, "unreadable"])
@pytest.mark.timeout(60)
def test_what_is_not_a_file_in_the_place_of_the_newest_checkpoint_is_passed_over(store, kind):
    store.save(10, content(10))
    obstacle(store.folder / "step_0000020.pth", kind)
    found = store.newest()
    assert found.content["step"] == 10
    if kind != "unreadable":
        assert any("step_0000020.pth is not a file, and is ignored" in note for note in found.notes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.timeout(60)
def test_it_does_not_end_a_run_either(store, kind, caplog):
    store.folder.mkdir()
    for name in ("step_0000010.pth", "step_0000005.pth", "last"):
        obstacle(store.folder / name, kind)
    assert store.newest() is None
    for step in (10, 20, 30, 40):
        store.save(step, content(step))
    assert store.newest().content["step"] == 40
    assert (store.folder / "step_0000010.pth.aside").exists() and (store.folder / "step_0000005.pth").exists()
    assert "is not a file; it is now" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.timeout(60)
def test_every_reader_refuses_what_is_not_a_file(tmp_path, kind):
    obstacle(tmp_path / "weights.pth", kind)
    for reader in (read_checkpoint, read_torch_file, read_weights):
        with pytest.raises(CheckpointError, match=r"weights\.pth: cannot be read: it is a (folder|pipe)"):
            reader(tmp_path / "weights.pth")
