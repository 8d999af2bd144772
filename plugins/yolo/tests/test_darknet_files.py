"""Darknet's `.cfg` and `.weights`: the binary layout, written and read; networks recognized and imported."""

import struct

import numpy as np
import pytest
import torch
from torch import nn

from vertebra import Predictor
from vertebra.config import load_recipe
from vertebra.errors import CheckpointError, DataError, RecipeError
from vertebra.models import build_model
from vertebra.models.weights import load_weights, read_weights
from vertebra_yolo import Darknet19, Darknet53, TinyDarknet
from vertebra_yolo.darknet import DarknetConv, darknet_convs
from vertebra_yolo.darknet_cfg import read_cfg
from vertebra_yolo.darknet_file import Header, load_convs, read_darknet
from vertebra_yolo.import_darknet import build_darknet, import_darknet, model_convs, read_network


def filled(layers, seed=0):
    """The layers with random numbers everywhere, statistics too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in layers:
            for tensor in [*layer.parameters(), *(b for b in layer.buffers() if b.is_floating_point())]:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return layers


def save_convs(convs, path, header=None):
    """Darknet's layout: a header; then shift, scale, mean, variance and kernel of each layer, or bias and kernel."""
    header = header or Header()
    counter = "<q" if (header.major, header.minor) >= (0, 2) else "<i"
    content = struct.pack("<iii", *header[:3]) + struct.pack(counter, header.images_seen)
    for conv in convs:
        norm = getattr(conv, "norm", None)
        before = [norm.bias, norm.weight, norm.running_mean, norm.running_var] if norm else [conv.bias]
        content += b"".join(tensor.detach().numpy().astype("<f4").tobytes() for tensor in [*before, conv.weight])
    path.write_bytes(content)


def test_the_layout_number_by_number(tmp_path):
    """Header of 20 bytes (three int32, one int64); shift, scale, mean, variance, kernel; then bias, kernel."""
    path = tmp_path / "two.weights"
    numbers = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, *range(10, 16), 20.0, 21.0, 22.0]
    path.write_bytes(struct.pack("<iiiq", 0, 2, 5, 32013312) + struct.pack(f"<{len(numbers)}f", *numbers))
    first, second = DarknetConv(3, 2, 1).conv, nn.Conv2d(2, 1, 1)
    header = load_convs([first, second], path)
    assert header == Header(0, 2, 5, 32013312)
    assert first.norm.bias.tolist() == [1, 2]
    assert first.norm.weight.tolist() == [3, 4]
    assert first.norm.running_mean.tolist() == [5, 6]
    assert first.norm.running_var.tolist() == [7, 8]
    assert first.weight.flatten().tolist() == [10, 11, 12, 13, 14, 15]
    assert second.bias.tolist() == [20]
    assert second.weight.flatten().tolist() == [21, 22]
    save_convs([first, second], tmp_path / "again.weights", header)
    assert (tmp_path / "again.weights").read_bytes() == path.read_bytes()


def test_files_of_before_version_02_count_images_in_32_bits(tmp_path):
    path = tmp_path / "old.weights"
    path.write_bytes(struct.pack("<iiii", 0, 1, 0, 77) + np.arange(3, dtype="<f4").tobytes())
    header, numbers = read_darknet(path)
    assert header.images_seen == 77
    assert numbers.tolist() == [0, 1, 2]
    second = nn.Conv2d(2, 1, 1)
    assert load_convs([second], path) == header
    save_convs([second], tmp_path / "again.weights", header)
    assert (tmp_path / "again.weights").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    "header",
    [
        struct.pack("<5i", 0, 0, 0, 1000, 0),  # five integers and version 0.0, as programs in PyTorch write it
        struct.pack("<5i", 0, 1, 0, 1000, 0),
        struct.pack("<4i", 0, 1, 0, 1000),
        struct.pack("<4i", 0, 2, 5, 1000),  # version 0.2 with a 32-bit count
        struct.pack("<iiiq", 0, 2, 5, 1000),
        struct.pack("<iiiq", 1, 0, 0, 1000),
    ],
)
def test_headers_of_four_and_five_integers_are_told_apart(header, whole, tmp_path):
    path = tmp_path / "x.weights"
    path.write_bytes(header + np.array([-0.5, 2, 3], "<f4").tobytes())
    layer = nn.Conv2d(2, 1, 1)
    assert load_convs([layer], path, whole=whole).images_seen == 1000
    assert [*layer.bias.tolist(), *layer.weight.flatten().tolist()] == [-0.5, 2, 3]


def test_a_header_that_may_be_either_is_refused(tmp_path):
    path = tmp_path / "x.weights"
    path.write_bytes(struct.pack("<5i", 0, 0, 0, 1000, 0) + np.arange(1, 9, dtype="<f4").tobytes())
    for whole in (True, False):
        with pytest.raises(CheckpointError, match=r"version 0\.0 .* four integers, but the fifth is 0.* 3 .* 9 or 8"):
            load_convs([nn.Conv2d(2, 1, 1)], path, whole=whole)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"abc", "too few for the header"),
        (struct.pack("<iiiq", 0, 2, 0, 0) + b"12345", "is cut off"),
        (b"PK\x03\x04 not a weights file, but a zip", "which is not a Darknet version"),
        (struct.pack("<iiiq", 0, 2, 0, 0) + bytes(4 * 2), "holds 2 numbers.*convolutions of this network 3"),
        (struct.pack("<iiiq", 0, 2, 0, 0) + bytes(4 * 9), "holds 9 numbers"),
    ],
)
def test_files_that_do_not_fit_are_refused(content, message, tmp_path):
    path = tmp_path / "x.weights"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_convs([nn.Conv2d(2, 1, 1)], path)


@pytest.mark.parametrize("cls", [Darknet53, Darknet19, TinyDarknet])
def test_a_backbone_starts_from_a_file_that_goes_on_behind_it(cls, tmp_path):
    source = cls(width=4)
    behind = DarknetConv(128, 3, 1)
    filled([source, behind])
    save_convs([*darknet_convs(source), behind.conv], tmp_path / "all.weights")
    found = cls(width=4, weights=str(tmp_path / "all.weights"))
    for (name, a), b in zip(source.state_dict().items(), found.state_dict().values(), strict=True):
        assert name.endswith("num_batches_tracked") or torch.equal(a, b), name


def test_a_cfg_is_read_with_its_lines(tmp_path, darknet_cfg):
    path = tmp_path / "tiny.cfg"
    path.write_text(darknet_cfg())
    sections = read_cfg(path)
    assert sections[0].name == "net"
    assert sections[0].options == {"width": "416", "height": "320"}
    assert sections[1].where == f"{path}:7"
    network = read_network(path)
    assert len(network.sections) == 25
    assert network.anchors == [[[10, 14], [23, 27], [37, 58]], [[81, 82], [135, 169], [344, 319]]]
    assert (network.size, network.num_classes) == ((320, 416), 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no .section."),
        ("width=4\n", "1: 'width=4' is neither"),
        ("[net]\nnonsense\n", "2: 'nonsense' is neither"),
        ("[net]\n[convolutional]\nfilters=3\n", "has no layers"),
        ("[net]\n[yolo]\nclasses=many\n", r"3: \[yolo\] needs classes=NUMBER"),
        ("[net]\n[yolo]\nclasses=1\nmask=7\nanchors=1,2\n", "mask .7. points beyond"),
    ],
)
def test_a_cfg_that_is_none_is_refused(text, message, tmp_path):
    path = tmp_path / "bad.cfg"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        read_network(path)


def test_another_network_is_refused_where_it_first_differs(tmp_path, darknet_cfg):
    path = tmp_path / "other.cfg"
    path.write_text(darknet_cfg().replace("filters=64", "filters=60"))
    with pytest.raises(RecipeError, match=r"agrees with yolov3-tiny in 4 layers; .*:29: filters is 60, not 64"):
        build_darknet(path)


def test_a_network_is_imported_with_its_recipe(command_line, tmp_path, darknet_cfg):
    """The whole way: a file with random numbers, and the network that comes out answers as the one that went in."""
    cfg, weights, output = (tmp_path / name for name in ("tiny.cfg", "tiny.weights", "tiny.pth"))
    cfg.write_text(darknet_cfg())
    model, _, _ = build_darknet(cfg)
    save_convs(model_convs(filled([model])[0]), weights, Header(images_seen=500))
    command = ("yolo", "import-darknet", "--cfg", cfg, "--weights", weights, "--output", output)
    command_line(*command)
    recipe = load_recipe(tmp_path / "tiny.yaml")
    again = build_model(recipe, pretrained=False)
    load_weights(again, read_weights(output), strict=True, source=str(output))
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected, answer = (one.eval().compute(images)["boxes"] for one in (model, again))
    for a, b in zip(expected, answer, strict=True):
        torch.testing.assert_close(a, b)
    refused = command_line(*command, code=2)
    assert isinstance(refused.error, RecipeError) and "already exists" in refused.stderr


def test_names_of_classes_come_along(command_line, tmp_path, darknet_cfg):
    cfg, weights, names = (tmp_path / name for name in ("tiny.cfg", "tiny.weights", "two.names"))
    cfg.write_text(darknet_cfg())
    save_convs(model_convs(build_darknet(cfg)[0]), weights)
    names.write_text("ear\n\n nose \n")
    files = ("--cfg", cfg, "--weights", weights, "--names", names, "--output", tmp_path / "tiny.pth")
    command_line("yolo", "import-darknet", *files)
    assert Predictor(tmp_path / "tiny.yaml", tmp_path / "tiny.pth", device="cpu").class_names == ["ear", "nose"]
    names.write_text("ear\n")
    with pytest.raises(DataError, match=r"two\.names: has 1 names, one a line, but the cfg has classes=2"):
        import_darknet(cfg, weights, tmp_path / "other.pth", names)
    with pytest.raises(DataError, match=r"none\.names: cannot be read"):
        import_darknet(cfg, weights, tmp_path / "other.pth", tmp_path / "none.names")
    with pytest.raises(CheckpointError, match=r"written as a \.pth file; name it .*other\.pth"):
        import_darknet(cfg, weights, tmp_path / "other.safetensors")
    assert not list(tmp_path.glob("other*"))


def test_weights_in_the_place_of_a_cfg_are_told_in_a_line(tmp_path):
    path = tmp_path / "mixed.up"
    layer = nn.Conv2d(8, 64, 3)
    nn.init.ones_(layer.weight)  # no byte that looks like the end of a line
    nn.init.ones_(layer.bias)
    save_convs([layer], path)
    with pytest.raises(RecipeError, match="a Darknet cfg") as caught:
        read_cfg(path)
    assert len(str(caught.value)) < 600


def test_the_whole_file_of_yolov3_has_as_many_numbers_as_darknets():
    """yolov3.weights has 248,007,048 bytes: 20 of the header and 62,001,757 numbers."""
    with torch.device("meta"):
        model = build_model(load_recipe("yolo:yolov3_coco"), 80, pretrained=False)
    layers = model_convs(model)
    assert len(layers) == 75
    numbers = sum(
        sum(p.numel() for p in layer.parameters())
        + (2 * layer.norm.num_features if getattr(layer, "norm", None) is not None else 0)
        for layer in layers
    )
    assert 20 + 4 * numbers == 248_007_048
