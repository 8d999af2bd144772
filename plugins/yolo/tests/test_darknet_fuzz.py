"""Darknet's cfg and weights files with random faults: imported, or refused with a documented error."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzing import bounded, changed_bytes, changed_text
from vertebra.errors import CheckpointError, VertebraError
from vertebra_yolo.darknet_file import read_darknet
from vertebra_yolo.import_darknet import build_darknet, read_network

CFG = """\
[net]
width=416
height=416
channels=3

[convolutional]
batch_normalize=1
filters=16
size=3
stride=1
pad=1
activation=leaky

[maxpool]
size=2
stride=2

[convolutional]
filters=21
size=1
stride=1
pad=1
activation=linear

[yolo]
mask = 0,1,2
anchors = 10,14, 23,27, 37,58
classes=2
num=3
jitter=.3
ignore_thresh = .7
"""
WORDS = st.sampled_from(["-1", "0", "99999999999999999999", "1e5", "nan", "", "a", "0,1,2,3,4", "1" * 5000, "\0", "é"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("darknet")


def read(path):
    for reader in (read_network, build_darknet):
        try:
            reader(path)
        except VertebraError as err:
            assert path.name in str(err)


@bounded
@given(content=changed_text(CFG))
def test_bytes_of_a_cfg(folder, content):
    (folder / "bytes.cfg").write_bytes(content)
    read(folder / "bytes.cfg")


@bounded
@given(line=st.integers(0, CFG.count("\n")), word=WORDS)
def test_values_of_a_cfg(folder, line, word):
    lines = CFG.splitlines()
    if line < len(lines) and "=" in lines[line]:
        lines[line] = f"{lines[line].partition('=')[0]}={word}"
    (folder / "values.cfg").write_text("\n".join(lines))
    read(folder / "values.cfg")


@bounded
@given(content=changed_bytes(struct.pack("<iiiq20f", 0, 2, 0, 1000, *range(20))), needed=st.none() | st.integers(0, 30))
def test_weights(folder, content, needed):
    (folder / "net.weights").write_bytes(content)
    try:
        read_darknet(folder / "net.weights", needed)
    except CheckpointError as err:
        assert "net.weights" in str(err)
