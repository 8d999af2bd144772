"""Weights from files and URLs: what loads, what is refused without being run, and the messages."""

import functools
import http.server
import os
import pickle
import threading
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vertebra.errors import CheckpointError
from vertebra.models import load_weights, read_checkpoint, read_weights
from vertebra.models.backbones.resnet import ResNet
from vertebra.models.torch_files import read_torch_file
from vertebra.models.weights import fetch, read_contents

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A local HTTP server of a folder, with a cache of its own: (address, folder, requested paths)."""
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "www"
    folder.mkdir()
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{served.server_address[1]}", folder, asked
    served.shutdown()
    served.server_close()
    thread.join()


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_each_format_gives_the_same_tensors(tmp_path):
    torch.save(STATE, tmp_path / "plain.pth")
    torch.save({"model": STATE, "step": 7, "recipe": "model: ..."}, tmp_path / "run.pth")
    torch.save({"state_dict": {f"module.{name}": value for name, value in STATE.items()}}, tmp_path / "ddp.pt")
    save_file(STATE, tmp_path / "plain.safetensors")
    (tmp_path / "detectron2.pkl").write_bytes(pickle.dumps({"model": {k: v.numpy() for k, v in STATE.items()}}))
    for path in tmp_path.iterdir():
        assert same(read_weights(path), STATE), path
    assert read_checkpoint(str(tmp_path / "run.pth"))["step"] == 7


def test_a_url_is_downloaded_once_and_kept(server):
    address, folder, asked = server
    (folder / "zoo").mkdir()
    torch.save(STATE, folder / "zoo" / "net.pth")
    for _ in range(2):
        assert same(read_weights(f"{address}/zoo/net.pth"), STATE)
    assert asked == ["/zoo/net.pth"]


def test_what_cannot_be_downloaded_is_said(server):
    address, _, _ = server
    with pytest.raises(CheckpointError, match=r"missing.pth: cannot be fetched \(.*404"):
        read_weights(f"{address}/missing.pth")
    with pytest.raises(CheckpointError, match=r"must not contain '\.\.'"):
        read_weights(f"{address}/a/../../net.pth")


def test_torchvisions_names_lead_to_its_addresses(server, monkeypatch):
    address, folder, asked = server
    from torchvision.models import ResNet18_Weights, resnet18

    donor = resnet18()
    torch.save(donor.state_dict(), folder / "resnet18-0000.pth")
    weights = ResNet18_Weights.IMAGENET1K_V1
    moved = type(weights.value)(url=f"{address}/resnet18-0000.pth", transforms=weights.transforms, meta=weights.meta)
    monkeypatch.setattr(weights, "_value_", moved)
    backbone = ResNet(18, weights="torchvision:ResNet18_Weights.IMAGENET1K_V1")
    assert torch.equal(backbone.res5[1].conv2.weight, donor.layer4[1].conv2.weight)
    assert asked == ["/resnet18-0000.pth"]


def test_a_mistyped_torchvision_name_gets_near_ones():
    with pytest.raises(CheckpointError, match=r"no weights of that name. Nearest: .*ResNet50_Weights.IMAGENET1K_V1"):
        fetch("torchvision:ResNet50_Weights.IMAGENET1K")


def test_a_missing_file_is_named_with_its_neighbors(tmp_path):
    torch.save(STATE, tmp_path / "final.pth")
    with pytest.raises(CheckpointError, match=r"finale.pth: no such file. In .*: final.pth"):
        read_weights(tmp_path / "finale.pth")
    with pytest.raises(CheckpointError, match="is a folder, not a file"):
        read_weights(tmp_path)
    with pytest.raises(CheckpointError, match="nor the folder"):
        read_weights(tmp_path / "runs" / "final.pth")


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (os.system, (f"touch {self.marker}",))


@pytest.mark.parametrize("name", ["evil.pth", "evil.pkl", "evil.safetensors", "zip.pth"])
def test_code_in_a_file_is_never_run(tmp_path, name):
    marker, path = tmp_path / "marker", tmp_path / name
    content = pickle.dumps({"model": Evil(marker)}, protocol=2)
    if name.startswith("zip"):
        with zipfile.ZipFile(path, "w") as archive:  # laid out as torch.save does
            archive.writestr("archive/data.pkl", content)
            archive.writestr("archive/version", "3\n")
            archive.writestr("archive/byteorder", "little")
    else:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        read_weights(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("evil_raw_pickle.pth", "Nothing in it was executed"),
        ("evil_torch_zip.pth", "Nothing in it was executed"),
        ("not_a_checkpoint.pth", "Nothing in it was executed|damaged"),
        ("zero_byte.pth", "0 bytes"),
        ("truncated_zip.pth", "cut off"),
        ("empty_dict.pth", "contains no weights"),
    ],
)
def test_bad_files_are_refused_by_name(shared, tmp_path, monkeypatch, name, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=rf"(?s){name}: .*({says})"):
        read_weights(shared("data/bad/checkpoints") / name)
    assert list(tmp_path.iterdir()) == []


def test_contents_without_tensors_are_refused(tmp_path):
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="holds a list, expected a dict"):
        read_weights(tmp_path / "list.pth")
    torch.save({"epoch": 3, "name": "x"}, tmp_path / "numbers.pth")
    with pytest.raises(CheckpointError, match="contains no weights; its entries: 'epoch', 'name'"):
        read_weights(tmp_path / "numbers.pth")
    np.savez(tmp_path / "arrays.pth", a=np.ones(3))
    with pytest.raises(CheckpointError, match="damaged, or not a checkpoint"):
        read_weights(tmp_path / "arrays.pth.npz")


@pytest.mark.parametrize("reader", [read_weights, read_checkpoint, read_contents, read_torch_file])
def test_every_reader_notices_a_flipped_bit(tmp_path, reader):
    path = tmp_path / "weights.pth"
    torch.save({"model": {"a.weight": torch.full((64,), 5.0)}}, path)
    reader(path)
    data = bytearray(path.read_bytes())
    data[data.find(torch.full((4,), 5.0).numpy().tobytes())] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match=r"weights\.pth: damaged.*the checksum of its record .* is wrong"):
        reader(path)


def test_weights_that_hold_nan_are_refused():
    module = net()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    state["1.running_var"][0] = float("nan")
    before = {name: value.clone() for name, value in module.state_dict().items()}
    for strict in (True, False):
        with pytest.raises(CheckpointError, match=r"x\.pth: 1 of .* tensors hold NaN: 1\.running_var"):
            load_weights(module, state, strict, source="x.pth")
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def net():
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def test_weights_that_fit_are_copied_and_reported():
    donor, module = net(), net()
    report = load_weights(module, donor.state_dict())
    assert report.complete and len(report.loaded) == 7
    assert torch.equal(module[0].weight, donor[0].weight) and module[0].weight.requires_grad


def test_counters_of_batches_may_be_missing_or_superfluous():
    state = net().state_dict()
    del state["1.num_batches_tracked"]
    state["0.num_batches_tracked"] = torch.tensor(3)
    assert load_weights(net(), state).complete


def test_what_does_not_fit_is_listed_and_nothing_is_changed():
    module, state = net(), {name: value.clone() + 1 for name, value in net().state_dict().items()}
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state["0.weight"] = torch.zeros(5, 3)
    state["1.wieght"] = state.pop("1.weight")
    with pytest.raises(CheckpointError) as error:
        load_weights(module, state, source="run/final.pth")
    text = str(error.value)
    assert "run/final.pth: the weights do not fit the Sequential" in text
    assert "0.weight: model (2, 3), weights (5, 3)" in text
    assert "1.weight   (near: 1.wieght)" in text
    assert same(module.state_dict(), before)


def test_not_strict_loads_what_fits_and_tells_the_rest():
    donor, module = net(), net()
    state = donor.state_dict() | {"head.weight": torch.ones(1), "0.weight": torch.zeros(9)}
    report = load_weights(module, state, strict=False)
    assert report.mismatched == {"0.weight": ((2, 3), (9,))} and report.unexpected == ["head.weight"]
    assert not report.complete and report.missing == []
    assert torch.equal(module[0].bias, donor[0].bias)


def test_weights_of_which_nothing_fits_are_an_error_even_if_not_strict():
    with pytest.raises(CheckpointError, match="do not fit"):
        load_weights(net(), {"x": torch.ones(1)}, strict=False)


def test_long_lists_are_cut():
    with pytest.raises(CheckpointError, match=r"and 112 more"):
        load_weights(ResNet(18), {f"x{i}": torch.ones(1) for i in range(120)})
