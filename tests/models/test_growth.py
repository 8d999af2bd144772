"""Small files that would fill the memory or run for ever are refused; ordinary ones are read as before."""

import io
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch

from vertebra.errors import CheckpointError
from vertebra.models import growth
from vertebra.models.growth import GrowthError, check_archive, check_pickle
from vertebra.models.pickles import read_pickle_content
from vertebra.models.torch_files import read_torch_file


def store(index):
    return b"q" + bytes([index])


def get(index):
    return b"h" + bytes([index])


BEGIN = b"\x80\x02"
LISTS = BEGIN + b"]" + b"".join(b"%b]%b" % (store(i), (get(i) + b"a") * 10) for i in range(14)) + b"."
"""Fourteen lists, each with the one before ten times."""
FILLED_LATER = (
    BEGIN
    + b"".join(b"]" + store(i) + b"0" for i in range(22))
    + b"".join(get(i) + b"(" + get(i + 1) * 10 + b"e0" for i in range(21))
    + get(0)
    + b"."
)
TUPLES = BEGIN + b"}(K\x01" + b"".join(store(i) + get(i) + b"\x86" for i in range(60)) + b"K\x01u."
"""A dict whose key is a tuple of tuples: its hash would take 2^60 steps."""
TEXTS = BEGIN + b"(X\x00\x00\x01\x00" + b"a" * 65536 + b"q\x000" + b"c_codecs\nencode\nh\x00\x85R" * 40000 + b"l."
ITSELF = BEGIN + b"]" + store(0) + get(0) + b"a."
BYTES = BEGIN + b"cbuiltins\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x10\x85R."
BYTES_BY_STACK = b"\x80\x04\x8c\x08builtins\x8c\x09bytearray\x93\x8a\x06\x00\x00\x00\x00\x00\x10\x85R."
GROWING = {
    "lists": LISTS,
    "filled later": FILLED_LATER,
    "tuples": TUPLES,
    "texts": TEXTS,
    "itself": ITSELF,
    "bytearray": BYTES,
    "bytearray by stack": BYTES_BY_STACK,
}


def test_the_example_is_small():
    assert len(LISTS) < 480


@pytest.mark.parametrize("name", GROWING)
@pytest.mark.timeout(60)
def test_a_pickle_that_grows_without_bound_is_refused(tmp_path, name):
    raw, archive = tmp_path / "weights.pkl", tmp_path / "weights.pth"
    raw.write_bytes(GROWING[name])
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", GROWING[name])
        file.writestr("archive/version", "3\n")
        file.writestr("archive/byteorder", "little")
    for read, path in ((read_pickle_content, raw), (read_torch_file, raw), (read_torch_file, archive)):
        with pytest.raises(CheckpointError, match=rf"(?s){path.name}: refused, nothing was run: .*source you trust"):
            read(path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_python_pickles_is_counted_and_passes(protocol):
    shared = ["shared", (1, 2.5, None)]
    content = {"a": [shared] * 100, "b": {"x": shared, 3: {4, 5}}, "c": b"bytes", "d": np.arange(5), "e": 10**30}
    file = io.BytesIO(pickle.dumps(content, protocol) + b"rest")
    check_pickle(file)
    assert file.read() == b"rest"


@pytest.mark.parametrize("instruction", [b"N", b"]", b"X\x01\x00\x00\x00a"])
def test_counting_itself_takes_little_room(monkeypatch, instruction):
    """Half a gigabyte of "push None" would be as many objects to count: 100 bytes at most for each that is allowed."""
    monkeypatch.setattr(growth, "_MOST_INSTRUCTIONS", 100_000)
    file = io.BytesIO(BEGIN + instruction * 200_000)
    tracemalloc.start()
    with pytest.raises(GrowthError, match="more than 100,000 instructions"):
        check_pickle(file)
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert used < 100 * 100_000


def test_a_compressed_pickle_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as file:
        file.writestr("archive/data.pkl", BEGIN + b"N" * 1000 + b".", zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="its pickle is compressed"):
        read_torch_file(tmp_path / "a.pth")


def test_the_count_is_that_of_each_occurrence(monkeypatch):
    """[a, a] with a = [1, 2, 3]: the list, and twice a list of three."""
    inner = [1, 2, 3]
    content = pickle.dumps([inner, inner])
    monkeypatch.setattr(growth, "_MOST_ITEMS", 9)
    check_pickle(io.BytesIO(content))
    monkeypatch.setattr(growth, "_MOST_ITEMS", 8)
    with pytest.raises(GrowthError, match="more than 8 items"):
        check_pickle(io.BytesIO(content))


@pytest.mark.parametrize("new", [True, False])
def test_checkpoints_of_both_of_torchs_formats_pass(tmp_path, new):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.rand(5, 3)).sum().backward()
    optimizer.step()
    saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state(), "a": [1]}
    torch.save(saved, tmp_path / "a.pth", _use_new_zipfile_serialization=new)
    read = read_torch_file(tmp_path / "a.pth")
    assert torch.equal(read["model"]["0.weight"], model[0].weight) and read["optimizer"]["param_groups"]


def test_a_tensor_that_repeats_one_number_without_end_is_refused(tmp_path):
    torch.save({"a": torch.zeros(1).expand(1 << 40), "b": torch.zeros(3).expand(2, 3)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"repeat their numbers come to 4,398,046,511,128 bytes"):
        read_torch_file(tmp_path / "a.pth")
    torch.save({"a": torch.zeros(1, 3).expand(1000, 3)}, tmp_path / "b.pth")
    assert read_torch_file(tmp_path / "b.pth")["a"].shape == (1000, 3)


def test_records_that_unpack_to_far_more_than_the_file_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "_ALWAYS", 1 << 20)
    torch.save({"a": torch.zeros(1 << 20)}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as old, zipfile.ZipFile(tmp_path / "packed.pth", "w") as new:
        for record in old.infolist():
            new.writestr(record.filename, old.read(record), zipfile.ZIP_DEFLATED)
    check_archive(tmp_path / "plain.pth")
    assert (tmp_path / "packed.pth").stat().st_size < 10_000
    with pytest.raises(CheckpointError, match=r"packed.pth: refused.*its records unpack to 4,19.,... bytes"):
        read_torch_file(tmp_path / "packed.pth")
