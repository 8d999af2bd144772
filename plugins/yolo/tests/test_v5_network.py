"""The network of YOLOv5: sizes, and weights by YOLOv5's own names through a forward pass written from those names."""

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from vertebra import Predictor, build_model, load_recipe
from vertebra.errors import CheckpointError
from vertebra.models import load_weights, read_weights
from vertebra_yolo import import_yolov5
from vertebra_yolo.v5_head import COCO_ANCHORS

PUBLISHED = {"n": 1_872_157, "s": 7_235_389, "m": 21_190_557, "l": 46_563_709, "x": 86_749_405}  # at 80 classes
FOLDED = {"n": 1_867_405, "s": 7_225_885, "m": 21_172_173, "l": 46_533_693, "x": 86_705_005}  # published as "fused"
STRIDES = (8, 16, 32)


@pytest.mark.parametrize("size", PUBLISHED)
def test_every_size_has_the_published_number_of_parameters(size):
    with torch.device("meta"):
        model = build_model(load_recipe(f"yolo:yolov5{size}"), 80)
    assert sum(p.numel() for p in model.parameters()) == PUBLISHED[size]
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert PUBLISHED[size] - sum(norm.num_features for norm in norms) == FOLDED[size]  # two numbers become a bias


class Names:
    """A state dict of YOLOv5n with random weights, made by walking through the published layout."""

    def __init__(self, num_classes):
        self.state = {}
        generator = torch.Generator().manual_seed(0)
        self.randn = lambda *shape: torch.randn(*shape, generator=generator)
        widths = [16, 32, 64, 128, 256]
        self.conv("model.0", 3, 16, 6)
        for i, blocks in enumerate((1, 2, 3, 1)):
            self.conv(f"model.{2 * i + 1}", widths[i], widths[i + 1], 3)
            self.c3(f"model.{2 * i + 2}", widths[i + 1], widths[i + 1], blocks)
        self.conv("model.9.cv1", 256, 128, 1)
        self.conv("model.9.cv2", 512, 256, 1)
        self.conv("model.10", 256, 128, 1)
        self.c3("model.13", 256, 128, 1)
        self.conv("model.14", 128, 64, 1)
        self.c3("model.17", 128, 64, 1)
        self.conv("model.18", 64, 64, 3)
        self.c3("model.20", 128, 128, 1)
        self.conv("model.21", 128, 128, 3)
        self.c3("model.23", 256, 256, 1)
        for i, width in enumerate((64, 128, 256)):
            rows = 3 * (5 + num_classes)
            self.state[f"model.24.m.{i}.weight"] = self.randn(rows, width, 1, 1) * width**-0.5
            self.state[f"model.24.m.{i}.bias"] = self.randn(rows)
        self.state["model.24.anchors"] = torch.tensor(COCO_ANCHORS) / torch.tensor(STRIDES).view(-1, 1, 1)

    def conv(self, name, fan_in, fan_out, kernel):
        self.state[f"{name}.conv.weight"] = self.randn(fan_out, fan_in, kernel, kernel) * (fan_in * kernel**2) ** -0.5
        self.state[f"{name}.bn.weight"] = self.randn(fan_out).abs() + 0.5
        self.state[f"{name}.bn.bias"] = self.randn(fan_out) * 0.1
        self.state[f"{name}.bn.running_mean"] = self.randn(fan_out) * 0.1
        self.state[f"{name}.bn.running_var"] = self.randn(fan_out).abs() + 0.5
        self.state[f"{name}.bn.num_batches_tracked"] = torch.tensor(5)

    def c3(self, name, fan_in, fan_out, blocks):
        half = fan_out // 2
        self.conv(f"{name}.cv1", fan_in, half, 1)
        self.conv(f"{name}.cv2", fan_in, half, 1)
        self.conv(f"{name}.cv3", 2 * half, fan_out, 1)
        for i in range(blocks):
            self.conv(f"{name}.m.{i}.cv1", half, half, 1)
            self.conv(f"{name}.m.{i}.cv2", half, half, 3)


class ByNames:
    """The published forward pass, told in YOLOv5's names and module numbers."""

    def __init__(self, state):
        self.state = state

    def conv(self, name, x, stride=1, padding=None):
        get = lambda key: self.state[f"{name}.{key}"]  # noqa: E731
        kernel = get("conv.weight").shape[-1]
        x = F.conv2d(x, get("conv.weight"), None, stride, kernel // 2 if padding is None else padding)
        statistics = get("bn.running_mean"), get("bn.running_var"), get("bn.weight"), get("bn.bias")
        return F.silu(F.batch_norm(x, *statistics, eps=1e-3))

    def c3(self, name, x, shortcut):
        y, i = self.conv(f"{name}.cv1", x), 0
        while f"{name}.m.{i}.cv1.conv.weight" in self.state:
            z = self.conv(f"{name}.m.{i}.cv2", self.conv(f"{name}.m.{i}.cv1", y))
            y, i = (y + z if shortcut else z), i + 1
        return self.conv(f"{name}.cv3", torch.cat((y, self.conv(f"{name}.cv2", x)), 1))

    def __call__(self, x):
        out = {0: self.conv("model.0", x, 2, 2)}
        for i in (1, 3, 5, 7):
            out[i + 1] = self.c3(f"model.{i + 1}", self.conv(f"model.{i}", out[i - 1], 2), True)
        pooled = [self.conv("model.9.cv1", out[8])]
        for _ in range(3):
            pooled.append(F.max_pool2d(pooled[-1], 5, 1, 2))
        x10 = self.conv("model.10", self.conv("model.9.cv2", torch.cat(pooled, 1)))
        x13 = self.c3("model.13", torch.cat((F.interpolate(x10, scale_factor=2), out[6]), 1), False)
        x14 = self.conv("model.14", x13)
        x17 = self.c3("model.17", torch.cat((F.interpolate(x14, scale_factor=2), out[4]), 1), False)
        x20 = self.c3("model.20", torch.cat((self.conv("model.18", x17, 2), x14), 1), False)
        x23 = self.c3("model.23", torch.cat((self.conv("model.21", x20, 2), x10), 1), False)
        heads = [(self.state[f"model.24.m.{i}.weight"], self.state[f"model.24.m.{i}.bias"]) for i in range(3)]
        return [F.conv2d(x, *head) for x, head in zip((x17, x20, x23), heads, strict=True)]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_imported_weights_compute_what_yolov5_computes(tmp_path, suffix):
    state = Names(num_classes=4).state
    file = tmp_path / f"yolov5n{suffix}"
    torch.save(state, file) if suffix == ".pth" else save_file(state, file)
    report = import_yolov5(file, "yolo:yolov5n", tmp_path / "ours.pth")
    assert report.num_classes == 4 and not report.unused and not report.kept
    model = build_model(load_recipe("yolo:yolov5n"), 4).eval()
    load_weights(model, read_weights(tmp_path / "ours.pth"), source="ours")
    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        ours, theirs = model.compute(images)["boxes"], ByNames(state)(images)
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-4)


def test_a_predictor_folds_the_norms_and_finds_the_same(tmp_path):
    torch.save(Names(num_classes=4).state, tmp_path / "yolov5n.pth")
    import_yolov5(tmp_path / "yolov5n.pth", "yolo:yolov5n", tmp_path / "ours.pth")
    predictor = Predictor(load_recipe("yolo:yolov5n", ["evaluate.amp=off"]), tmp_path / "ours.pth", device="cpu")
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in predictor.model.modules())
    model = build_model(load_recipe("yolo:yolov5n"), 4).eval()
    load_weights(model, read_weights(tmp_path / "ours.pth"), source="ours")
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        folded, plain = predictor.model.compute(images)["boxes"], model.compute(images)["boxes"]
    for mine, reference in zip(folded, plain, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-3, atol=1e-3)


def test_weights_with_other_anchors_say_which(tmp_path):
    state = Names(num_classes=4).state
    state["model.24.anchors"] = state["model.24.anchors"] * 2
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"anchors: \[\[\[20.0, 26.0\]"):
        import_yolov5(tmp_path / "other.pth", "yolo:yolov5n", tmp_path / "ours.pth")


def test_weights_of_something_else_are_told_whatever_the_dataset(tmp_path):
    torch.save({"backbone.stem.conv.weight": torch.zeros(16, 3, 6, 6)}, tmp_path / "mine.pth")
    with pytest.raises(CheckpointError, match=r"mine\.pth: is not a state dict of YOLOv5.*like backbone\.stem\.conv"):
        import_yolov5(tmp_path / "mine.pth", "yolo:yolov5n", tmp_path / "ours.pth")


def test_weights_of_another_size_are_refused(tmp_path):
    torch.save(Names(num_classes=4).state, tmp_path / "n.pth")
    with pytest.raises(CheckpointError, match="shape of the recipe's model"):
        import_yolov5(tmp_path / "n.pth", "yolo:yolov5s", tmp_path / "ours.pth", num_classes=4)


def test_a_segmentation_model_is_refused_by_its_name(tmp_path, command_line):
    """Its last layer has 32 mask coefficients an anchor, which must not be read as classes."""
    names = Names(num_classes=4 + 32)
    names.conv("model.24.proto.cv1", 64, 64, 3)
    names.conv("model.24.proto.cv2", 64, 64, 3)
    names.conv("model.24.proto.cv3", 64, 32, 1)
    torch.save(names.state, tmp_path / "n-seg.pth")
    output = tmp_path / "ours.pth"
    command = ("yolo", "import-yolov5", "--weights", tmp_path / "n-seg.pth", "--output", output, "--recipe")
    for recipe in ("yolo:yolov5n", "yolo:yolov5n_masks_shapes_quick"):
        for option in ((), ("--partial",)):
            refused = command_line(*command, recipe, *option, code=2)
            assert "n-seg.pth: is a segmentation model of YOLOv5" in refused.stderr
    assert not output.exists()


def test_entries_without_a_place_are_refused_unless_partial(tmp_path, command_line):
    names = Names(num_classes=4)
    names.conv("model.2.m.1.cv1", 16, 16, 1)  # a second block, as in a deeper network of the same width
    torch.save(names.state, tmp_path / "deep.pth")
    files = ("--weights", tmp_path / "deep.pth", "--recipe", "yolo:yolov5n", "--output", tmp_path / "ours.pth")
    refused = command_line("yolo", "import-yolov5", *files, code=2)
    assert "deep.pth: 5 entries have no place" in refused.stderr and "--partial" in refused.stderr
    assert "unused here (5)" in command_line("yolo", "import-yolov5", *files, "--partial").stdout


@pytest.mark.parametrize("missing", ["model.24.anchors", "model.3.bn.running_var"])
def test_what_the_weights_do_not_have_is_told(missing, tmp_path):
    state = Names(num_classes=4).state
    del state[missing]
    torch.save(state, tmp_path / "n.pth")
    with pytest.raises(CheckpointError, match=r"n\.pth: .*missing"):
        import_yolov5(tmp_path / "n.pth", "yolo:yolov5n", tmp_path / "ours.pth")
    import_yolov5(tmp_path / "n.pth", "yolo:yolov5n", tmp_path / "ours.pth", partial=True)
