"""What the tests of several heads need."""

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from vertebra.models import Batch

_WAITING_OPERATORS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique", "unique_dim", "equal")
_WAITING_METHODS = ("tolist", "cpu", "numpy")  # they read memory without an operator on a CPU


class _Operators(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.waits = []
        self.calls = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.calls += 1
        name = function.__name__.split(".")[0]
        masks = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in arguments[1]
        )
        if name in _WAITING_OPERATORS or masks:
            self.waits.append(name)
        return function(*arguments, **(options or {}))


class _Methods(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.waits = []

    def __torch_function__(self, function, types, arguments=(), options=None):
        name = getattr(function, "__name__", "")
        if name in _WAITING_METHODS:
            self.waits.append(name)
        return function(*arguments, **(options or {}))


@pytest.fixture
def waits_in():
    """Returns a function that runs another and gives the names of all calls in it, the backward pass of its losses
    included, for which a GPU's results would have to be waited for."""

    def run(function):
        with _Methods() as methods, _Operators() as operators:
            sum(function().values()).backward()
        return methods.waits + operators.waits

    return run


@pytest.fixture
def operators_in():
    """Returns a function that runs another and gives how many operators it calls: no more for more images or boxes,
    where there is no loop over them."""

    def run(function):
        with _Operators() as operators:
            function()
        return operators.calls

    return run


@pytest.fixture
def top_values_of_any_size(monkeypatch):
    """Returns a function that makes a module's `top_values` do what it does in a graph for any size of images: there it
    always gives as many values as are requested, minus infinity beyond those that exist, at the last place."""

    def filled(values, count):
        best, index = torch.nn.functional.pad(values, (0, count), value=-torch.inf).topk(count, dim=1)
        return best, index.clamp(max=values.shape[1] - 1)

    return lambda module: monkeypatch.setattr(module, "top_values", filled)


@pytest.fixture
def truth_batch():
    """Returns a function from each image's boxes (lists of xyxy) and classes to what a head's `losses` takes."""

    def make(boxes, classes=None, size=(64, 96), originals=None):
        count, most = len(boxes), max([1, *map(len, boxes)])
        gt_boxes, gt_classes = torch.zeros(count, most, 4), torch.zeros(count, most, dtype=torch.int64)
        gt_valid = torch.zeros(count, most, dtype=torch.bool)
        for i, some in enumerate(boxes):
            if len(some):
                gt_boxes[i, : len(some)] = torch.as_tensor(some, dtype=torch.float32)
                gt_valid[i, : len(some)] = True
                if classes is not None:
                    gt_classes[i, : len(some)] = torch.as_tensor(classes[i])
        return Batch(
            images=torch.zeros(count, 3, *size),
            image_sizes=[size] * count,
            original_sizes=originals or [size] * count,
            inputs=[{}] * count,
            gt_boxes=gt_boxes,
            gt_classes=gt_classes,
            gt_valid=gt_valid,
        )

    return make


@pytest.fixture
def random_boxes():
    """Returns a function that gives `count` boxes xyxy in an image (height, width)."""

    def make(count, size=(64, 96), seed=0, smallest=2.0):
        generator = torch.Generator().manual_seed(seed)
        limits = torch.tensor([size[1], size[0]], dtype=torch.float32)
        low = torch.rand(count, 2, generator=generator) * (limits - smallest)
        high = low + smallest + torch.rand(count, 2, generator=generator) * (limits - low - smallest)
        return torch.cat((low, high), dim=1)

    return make


ANCHORS = {
    "yolov3": "10,13,  16,30,  33,23,  30,61,  62,45,  59,119,  116,90,  156,198,  373,326",
    "yolov3-tiny": "10,14, 23,27, 37,58, 81,82, 135,169, 344,319",
    "yolov2": "0.57273, 0.677385, 1.87446, 2.06253, 3.33843, 5.47434, 7.88282, 3.52778, 9.77052, 9.16828",
}
MAX_POOL = "[maxpool]\nsize=2\nstride=2\n"


@pytest.fixture
def darknet_cfg():
    """Returns a function that writes a Darknet cfg of one of the networks in `ANCHORS`, layer by layer, line by line.

    YOLOv3-tiny has only the necessary options, the others those of Darknet's own files.
    """
    return lambda name="yolov3-tiny", classes=2, width=416: {
        "yolov3": _yolov3_cfg,
        "yolov3-tiny": _tiny_cfg,
        "yolov2": _yolov2_cfg,
    }[name](classes, width)


def _conv(filters, size, *, norm=1, stride=1, activation="leaky"):
    lines = [f"batch_normalize={norm}"] if norm else []
    lines += [f"filters={filters}", f"size={size}", f"stride={stride}", "pad=1", f"activation={activation}"]
    return "[convolutional]\n" + "\n".join(lines) + "\n"


def _net(width):
    return (
        f"[net]\nbatch=64\nsubdivisions=16\nwidth={width}\nheight=320\nchannels=3\nmomentum=0.9\ndecay=0.0005\nangle=0\n"
        "saturation = 1.5\nexposure = 1.5\nhue=.1\nlearning_rate=0.001\nburn_in=1000\nmax_batches = 500200\n"
        "policy=steps\nsteps=400000,450000\nscales=.1,.1\n"
    )


def _tiny_cfg(classes, width):
    end = _conv(3 * (5 + classes), 1, norm=0, activation="linear")
    yolo = (
        "[yolo]\nmask = {}\nanchors = " + ANCHORS["yolov3-tiny"] + f"\nclasses={classes}\nnum=6\nignore_thresh = .7\n"
    )
    body = "".join(_conv(filters, 3) + MAX_POOL for filters in (16, 32, 64, 128, 256))
    body += _conv(512, 3) + "[maxpool]\nsize=2\nstride=1\n" + _conv(1024, 3) + _conv(256, 1) + _conv(512, 3)
    body += end + yolo.format("3,4,5") + "[route]\nlayers = -4\n" + _conv(128, 1) + "[upsample]\nstride=2\n"
    body += "[route]\nlayers = -1, 8\n" + _conv(256, 3) + end + yolo.format("0,1,2")
    return f"# a comment\n[net]\nwidth={width}\nheight=320\n; another\n\n{body}"


def _yolov3_cfg(classes, width):
    body = _conv(32, 3)
    for channels, blocks in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        block = _conv(channels // 2, 1) + _conv(channels, 3) + "[shortcut]\nfrom=-3\nactivation=linear\n"
        body += _conv(channels, 3, stride=2) + blocks * block
    for channels, mask, finer in ((1024, "6,7,8", None), (512, "3,4,5", 61), (256, "0,1,2", 36)):
        if finer:
            body += "[route]\nlayers = -4\n" + _conv(channels // 2, 1) + "[upsample]\nstride=2\n"
            body += f"[route]\nlayers = -1, {finer}\n"
        body += 3 * (_conv(channels // 2, 1) + _conv(channels, 3))
        body += _conv(3 * (5 + classes), 1, norm=0, activation="linear")
        body += f"[yolo]\nmask = {mask}\nanchors = {ANCHORS['yolov3']}\nclasses={classes}\nnum=9\njitter=.3\n"
        body += "ignore_thresh = .5\ntruth_thresh = 1\nrandom=1\n"
    return _net(width) + body


def _yolov2_cfg(classes, width):
    body = _conv(32, 3) + MAX_POOL + _conv(64, 3)
    for channels, blocks in ((128, 1), (256, 1), (512, 2), (1024, 2)):
        body += MAX_POOL + _conv(channels, 3) + blocks * (_conv(channels // 2, 1) + _conv(channels, 3))
    body += 2 * _conv(1024, 3) + "[route]\nlayers=-9\n" + _conv(64, 1) + "[reorg]\nstride=2\n"
    body += "[route]\nlayers=-1,-4\n" + _conv(1024, 3) + _conv(5 * (5 + classes), 1, norm=0, activation="linear")
    body += f"[region]\nanchors = {ANCHORS['yolov2']}\nbias_match=1\nclasses={classes}\ncoords=4\nnum=5\nsoftmax=1\n"
    body += "jitter=.3\nrescore=1\nobject_scale=5\nnoobject_scale=1\nclass_scale=1\ncoord_scale=1\nabsolute=1\n"
    return _net(width) + body + "thresh = .6\nrandom=1\n"
