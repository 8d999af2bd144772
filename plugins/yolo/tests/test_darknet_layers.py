"""Every key of a Darknet cfg is one that our network computes with, one of training, or refused with file and line."""

import pytest
import torch

from vertebra.errors import RecipeError
from vertebra_yolo.import_darknet import build_darknet


@pytest.mark.parametrize("name", ["yolov3", "yolov3-tiny", "yolov2"])
def test_darknets_own_networks_are_known_by_all_their_layers(name, darknet_cfg, tmp_path):
    (tmp_path / "own.cfg").write_text(darknet_cfg(name, classes=80))
    with torch.device("meta"):
        _, base, _ = build_darknet(tmp_path / "own.cfg")
    assert base == f"yolo:{name.replace('-', '_')}_coco"


def line_of(text, part):
    return text[: text.index(part)].count("\n") + 1


FIRST_SHORTCUT = (
    "activation=leaky\n[convolutional]\nbatch_normalize=1\nfilters=128\nsize=3\nstride=2"  # its last line and on
)
CHANGES = [  # name, what is replaced (the first one), what by, part in the line that is reported, message
    ("yolov3-tiny", "activation=leaky", "activation=mish", "activation=mish", "activation is mish, not leaky"),
    ("yolov3-tiny", "activation=leaky", "activation=relu", "activation=relu", "activation is relu, not leaky"),
    ("yolov3-tiny", "activation=linear", "activation=swish", "activation=swish", "activation is swish, not linear"),
    ("yolov3-tiny", "pad=1\nactivation=leaky\n", "pad=1\n", "[conv", "activation is logistic by default, not leaky"),
    ("yolov3-tiny", "pad=1", "pad=0", "[conv", "padding is 0, not 1"),
    ("yolov3-tiny", "pad=1", "padding=2", "padding=2", "padding is 2, not 1"),
    ("yolov3-tiny", "pad=1", "pad=1\ngroups=2", "groups", "groups is 2, not 1"),
    ("yolov3-tiny", "pad=1", "pad=1\ndilation=2", "dilation", "dilation is 2, not 1"),
    (
        "yolov3-tiny",
        "pad=1",
        "pad=1\nantialiasing=1",
        "antia",
        r"\[convolutional\] has the unknown option antialiasing",
    ),
    ("yolov3-tiny", "size=2\nstride=2", "size=3\nstride=2", "size=3\nstride=2", "size is 3, not 2"),
    (
        "yolov3-tiny",
        "size=2\nstride=1",
        "size=2\nstride=2",
        "stride=2\n[convolutional]\nbatch_normalize=1\nfilters=1024",
        "stride is 2, not 1",
    ),
    ("yolov3-tiny", "size=2\nstride=1", "size=2\nstride=1\npadding=0", "padding=0", "padding is 0, not 1"),
    (
        "yolov3-tiny",
        "size=2\nstride=1",
        "size=2\nstride=1\nmaxpool_depth=1",
        "maxpool_d",
        "unknown option maxpool_depth",
    ),
    ("yolov3-tiny", "layers = -1, 8", "layers = 8, -1", "layers = 8", "layers is 8, 19, not 19, 8"),
    ("yolov3-tiny", "layers = -1, 8", "layers = -1, 8\ngroups=2", "groups", "groups is 2, not 1"),
    ("yolov3-tiny", "[upsample]\nstride=2", "[upsample]\nstride=4", "stride=4", "stride is 4, not 2"),
    ("yolov3-tiny", "[upsample]\nstride=2", "[upsample]\nscale=.5", "scale", "scale is 0.5, not 1.0"),
    (
        "yolov3-tiny",
        "[upsample]\n",
        "[deconvolutional]\n",
        "[deconv",
        r"the section is \[deconvolutional\], not \[upsample",
    ),
    ("yolov3-tiny", "num=6", "num=6\nscale_x_y=1.05", "scale_x", "scale_x_y is 1.05, not 1.0"),
    ("yolov3-tiny", "num=6", "num=6\nnew_coords=1", "new_c", "new_coords is 1, not 0"),
    ("yolov3-tiny", "num=6", "num=6\nnms_kind=diounms", "nms", "nms_kind is diounms, not greedynms"),
    ("yolov3-tiny", "num=6", "num=6\nmap=coco.map", "map", r"\[yolo\] has the unknown option map"),
    ("yolov3-tiny", "width=", "channels=1\nwidth=", "channels", "channels is 1, not 3"),
    ("yolov3-tiny", "width=", "letter_box=0\nwidth=", "letter", "letter_box is 0, not 1"),
    ("yolov3-tiny", "width=", "inputs=9\nwidth=", "inputs", r"\[net\] has the unknown option inputs"),
    ("yolov3", "from=-3", "from=-2", "from=-2", "from is -2, not -3"),
    (
        "yolov3",
        "activation=linear",
        "activation=leaky",
        FIRST_SHORTCUT,
        "activation is leaky, not linear",
    ),
    ("yolov3", "from=-3", "from=-3\nweights_type=per_channel", "weights", "the unknown option weights_type"),
    ("yolov3", "layers = -1, 61", "layers = -1, 60", "layers = -1, 60", "layers is 85, 60, not 85, 61"),
    ("yolov2", "[reorg]", "[reorg_old]", "[reorg", r"the section is \[reorg_old\], not \[reorg\]"),
    ("yolov2", "[reorg]\n", "[reorg]\nreverse=1\n", "reverse", "reverse is 1, not 0"),
    ("yolov2", "softmax=1\n", "", "[region]", "softmax is 0 by default, not 1"),
    ("yolov2", "coords=4", "coords=4\nbackground=1", "backg", "background is 1, not 0"),
    ("yolov2", "coords=4", "coords=4\ntree=9k.tree", "tree", r"\[region\] has the unknown option tree"),
]


@pytest.mark.parametrize(("name", "old", "new", "part", "message"), CHANGES, ids=[f"{c[0]}-{c[4]}" for c in CHANGES])
def test_what_changes_the_computation_is_refused_with_its_line(name, old, new, part, message, darknet_cfg, tmp_path):
    text = darknet_cfg(name)
    assert old in text
    text = text.replace(old, new, 1)
    path = tmp_path / "x.cfg"
    path.write_text(text)
    line = line_of(text, part)
    with torch.device("meta"), pytest.raises(RecipeError, match=rf"x\.cfg:{line}: .*{message}"):
        build_darknet(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("num=6", "num=9", r":\d+: \[yolo\] has 12 numbers in anchors, but num=9 needs 18"),
        ("mask = 3,4,5", "mask = 3,4,5.5", r":\d+: \[yolo\] mask is '3,4,5.5', expected whole numbers"),
        ("width=416", "width=400", r":3: width is 400, not a multiple of 32"),
        ("width=416\n", "", r":2: \[net\] needs width=NUMBER"),
        ("width=416", "width=416\nwidth=608", r":4: width is '608', but '416' in line 3 of the same \[net\]"),
        ("[upsample]\nstride=2\n", "", r"the section is \[route\], not \[upsample\]"),
    ],
)
def test_contradictions_are_refused(old, new, message, darknet_cfg, tmp_path):
    (tmp_path / "x.cfg").write_text(darknet_cfg().replace(old, new))
    with torch.device("meta"), pytest.raises(RecipeError, match=message):
        build_darknet(tmp_path / "x.cfg")


def test_a_network_with_more_or_fewer_layers_is_refused(darknet_cfg, tmp_path):
    path, text = tmp_path / "x.cfg", darknet_cfg()
    path.write_text(f"{text}[dropout]\n")
    with torch.device("meta"), pytest.raises(RecipeError, match=r"x\.cfg:\d+: it has 25 layers, not 24"):
        build_darknet(path)
    path.write_text(text[: text.rindex("[route]")])
    with pytest.raises(RecipeError, match=r"x\.cfg: has 1 layers \[yolo\]; known are YOLOv3 \(3 layers"):
        build_darknet(path)
