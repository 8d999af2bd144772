"""read_pickle_arrays: numpy's own pickles come out equal, and no pickle gets anything run."""

import io
import os
import pickle
import struct
import tracemalloc
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vertebra.errors import CheckpointError
from vertebra.models.pickles import read_pickle_arrays

ARRAYS = {
    "plain": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big_endian": np.arange(3, dtype=">i8"),
    "half": np.array([0.5, -2.0], dtype=np.float16),
    "bool": np.array([True, False]),
    "empty": np.zeros((0, 3), dtype=np.float32),
    "no_axes": np.array(2.5),
    "scalar": np.float32(7),
}


def write(path, content: bytes):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("wrap", [dict, OrderedDict, lambda d: {"model": d, "__author__": "x"}, lambda d: {"blobs": d}])
def test_arrays_of_any_protocol_and_wrapping_come_out_equal(tmp_path, protocol, wrap):
    read = read_pickle_arrays(write(tmp_path / "w.pkl", pickle.dumps(wrap(ARRAYS), protocol)))
    assert read.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype.newbyteorder("=")
        assert read[name].flags.writeable and read[name].flags.owndata


def test_entries_that_are_no_arrays_are_left_out(tmp_path):
    content = {"model": {"a": np.ones(2), "iteration": 5, "note": "x"}, "__author__": "y", "matching_heuristics": True}
    assert list(read_pickle_arrays(write(tmp_path / "w.pkl", pickle.dumps(content)))) == ["a"]


def test_a_pickle_of_python_2_is_read(tmp_path):
    # {'w': array([1., 2.], dtype=float32)} as Python 2 wrote it: byte strings, numpy.core, protocol 2
    data = struct.pack("<2f", 1.0, 2.0)
    written = (
        b"\x80\x02}U\x01wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x08" + data + b"tbs."
    )
    np.testing.assert_array_equal(read_pickle_arrays(write(tmp_path / "w.pkl", written))["w"], np.float32([1, 2]))


class Calls:
    """Pickles to a call of `function(*args)`."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("function", "args", "named"),
    [
        (os.system, ("touch ran",), "system"),
        (exec, ("open('ran', 'w')",), "exec"),
        (eval, ("open('ran', 'w')",), "eval"),
        (getattr, (np, "load"), "getattr"),
        (np.load, ("/etc/passwd",), "load"),
        (io.open, ("ran", "w"), "open"),
    ],
)
def test_a_function_named_in_the_pickle_is_not_called(tmp_path, monkeypatch, protocol, function, args, named):
    monkeypatch.chdir(tmp_path)
    args = args if function is not getattr else ("x", "upper")
    path = write(tmp_path / "evil.pkl", pickle.dumps({"a": np.ones(2), "b": Calls(function, *args)}, protocol))
    with pytest.raises(CheckpointError, match=rf"evil\.pkl: refused, nothing was run: it names \S*{named}"):
        read_pickle_arrays(path)
    assert not (tmp_path / "ran").exists()


def test_the_hostile_checkpoints_run_nothing(tmp_path, monkeypatch, shared):
    monkeypatch.chdir(tmp_path)
    for path in sorted(shared("data/bad/checkpoints").iterdir()):
        with pytest.raises(CheckpointError, match=path.name):
            read_pickle_arrays(path)
    assert list(tmp_path.iterdir()) == []


def test_an_array_of_objects_is_refused(tmp_path):
    path = write(tmp_path / "o.pkl", pickle.dumps({"a": np.array([{}, []], dtype=object)}))
    with pytest.raises(CheckpointError, match="type 'O8', which is not a type of number"):
        read_pickle_arrays(path)


def test_an_array_of_records_is_refused(tmp_path):
    path = write(tmp_path / "r.pkl", pickle.dumps({"a": np.zeros(2, dtype=[("x", "f4")])}))
    with pytest.raises(CheckpointError, match="not a type of number"):
        read_pickle_arrays(path)


def test_a_forged_size_is_refused(tmp_path):
    written = pickle.dumps({"a": np.arange(4, dtype=np.int64)}, protocol=2)
    shape = b"K\x04\x85"  # the tuple (4,)
    assert written.count(shape) == 1
    path = write(tmp_path / "f.pkl", written.replace(shape, b"K\x64\x85"))
    with pytest.raises(CheckpointError, match=r"shape \(100,\) and type int64 in 32 bytes"):
        read_pickle_arrays(path)


@pytest.mark.parametrize(
    "written",
    [
        b"\x80\x02}r\xff\xff\xff\xff.",  # LONG_BINPUT: remember the dictionary as number 4294967295
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"ab.",  # BYTEARRAY8: a terabyte
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"ab.",  # BINBYTES8: a terabyte
    ],
)
def test_a_small_file_cannot_ask_for_much_memory(tmp_path, written):
    path = write(tmp_path / "m.pkl", written)
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=r"m\.pkl"):
        read_pickle_arrays(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_the_stand_ins_cannot_be_changed_by_a_pickle(tmp_path):
    # numpy.dtype, then BUILD with a dict: would set attributes on whatever stands for numpy.dtype
    path = write(tmp_path / "b.pkl", b"\x80\x02cnumpy\ndtype\n}X\x01\x00\x00\x00xK\x01sb.")
    with pytest.raises(CheckpointError, match="tries to change a function"):
        read_pickle_arrays(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([np.ones(2)], "expected a dictionary of arrays, found a list"),
        (np.ones(2), "found a single array"),
        ({"a": 1}, "holds no arrays; its entries: 'a'"),
        ({}, "holds no arrays; its entries: none"),
    ],
)
def test_a_pickle_of_something_else_says_what_it_found(tmp_path, content, words):
    with pytest.raises(CheckpointError, match=words):
        read_pickle_arrays(write(tmp_path / "x.pkl", pickle.dumps(content)))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere\.pkl: cannot be read: No such file"):
        read_pickle_arrays(tmp_path / "nowhere.pkl")


def test_a_file_of_torch_save_is_told_from_a_broken_pickle(tmp_path):
    with pytest.raises(CheckpointError, match=r"a zip archive as torch\.save writes it; name it \.pth"):
        read_pickle_arrays(write(tmp_path / "x.pkl", b"PK\x03\x04" + bytes(40)))


WHOLE = pickle.dumps({"a": np.arange(5, dtype=np.float32), "b": np.ones((2, 2))}, protocol=2)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_cut_or_altered_file_gives_arrays_or_a_clear_error(tmp_path_factory, data):
    cut = data.draw(st.integers(0, len(WHOLE)))
    place, byte = data.draw(st.integers(0, len(WHOLE) - 1)), data.draw(st.integers(0, 255))
    written = bytearray(WHOLE)
    written[place] = byte
    path = write(tmp_path_factory.mktemp("p") / "x.pkl", bytes(written[:cut]))
    try:
        arrays = read_pickle_arrays(path)
    except CheckpointError as err:
        assert "x.pkl" in str(err)
    else:
        assert all(isinstance(array, np.ndarray) for array in arrays.values())
