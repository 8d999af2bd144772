"""Darknet's YOLOv2, YOLOv3 and YOLOv3-tiny, `.cfg` and `.weights`, as a recipe and weights of ours.

Networks are recognized by their layers: the cfg's must agree, one by one and key by key, with those of a recipe of this
plugin (`darknet_layers`).
"""

from dataclasses import dataclass
from pathlib import Path

import yaml
from torch import nn

from vertebra import load_recipe
from vertebra.errors import CheckpointError, DataError, RecipeError
from vertebra.files import read_text, write_text
from vertebra.models import Model, build_model
from vertebra_yolo.darknet import darknet_convs
from vertebra_yolo.darknet_cfg import Section, read_cfg
from vertebra_yolo.darknet_file import load_convs
from vertebra_yolo.darknet_layers import first_difference, network_layers
from vertebra_yolo.v2_head import YOLOv2Head
from vertebra_yolo.v2_neck import YOLOv2Neck
from vertebra_yolo.v3_head import YOLOv3Head
from vertebra_yolo.v3_neck import YOLOv3Neck, YOLOv3TinyNeck

__all__ = ["DarknetNetwork", "build_darknet", "import_darknet", "model_convs", "read_network"]

_RECIPES = {"yolov3": "yolo:yolov3_coco", "yolov3-tiny": "yolo:yolov3_tiny_coco", "yolov2": "yolo:yolov2_coco"}
_LEVELS = {"yolov3": 3, "yolov3-tiny": 2, "yolov2": 1}  # layers [yolo] or [region]
_STRIDE = 32  # pixels a cell of the coarsest level; Darknet gives YOLOv2's anchors in cells


@dataclass(frozen=True)
class DarknetNetwork:
    """What a cfg says.

    Args:
        sections: all of them, `[net]` first.
        num_classes: of its layers `[yolo]` or `[region]`.
        anchors: per level, finest first: width and height in input pixels.
        size: (height, width) of the input in pixels.
        kind: `yolo` or `region`, the layers at its ends.
    """

    sections: list[Section]
    num_classes: int
    anchors: list[list[list[float]]]
    size: tuple[int, int]
    kind: str


def read_network(cfg: str | Path) -> DarknetNetwork:
    """Reads a cfg.

    Raises:
        RecipeError: it has no layer [yolo] or [region], its layers contradict each other, or its size is not one of
            whole cells.
    """
    sections = read_cfg(cfg)
    ends = [section for section in sections if section.name in ("yolo", "region")]
    kinds = {section.name for section in ends}
    if len(kinds) != 1:
        raise RecipeError(
            f"{cfg}: has {' and '.join(sorted(kinds)) or 'no'} layers; expected [yolo] ones or one [region]"
        )
    classes = {section.number("classes", 20) for section in ends}
    if len(classes) != 1:
        raise RecipeError(f"{cfg}: its [yolo] layers have different numbers of classes: {sorted(classes)}")
    net = sections[0]
    return DarknetNetwork(
        sections=sections,
        num_classes=classes.pop(),
        anchors=[_anchors_of(section) for section in reversed(ends)],  # a cfg begins with the coarsest
        size=(_side(net, "height"), _side(net, "width")),
        kind=kinds.pop(),
    )


def build_darknet(cfg: str | Path) -> tuple[Model, str, dict]:
    """The model that a cfg describes, with random weights, its recipe's name, and what to lay over that recipe.

    Raises:
        RecipeError: it is not one of the networks known here; says where it first differs from the nearest.
    """
    network = read_network(cfg)
    differences = {}
    for name, base in _RECIPES.items():
        changes = _changes(network, name)
        if changes is None:
            continue
        model = build_model(load_recipe(base, changes), network.num_classes, pretrained=False)
        assert isinstance(model, Model)  # by the recipes above
        found = first_difference(network.sections, network_layers(name, model_convs(model)))
        if found is None:
            return model, base, changes
        differences[name] = found
    if not differences:
        raise RecipeError(
            f"{cfg}: has {len(network.anchors)} layers [{network.kind}]; known are YOLOv3 (3 layers [yolo]), "
            "YOLOv3-tiny (2) and YOLOv2 (1 layer [region])"
        )
    (nearest, (agree, where)) = max(differences.items(), key=lambda item: item[1][0])
    raise RecipeError(
        f"{cfg}: is not one of {', '.join(_RECIPES)}. It agrees with {nearest} in {agree} layers; then {where}"
    )


def import_darknet(cfg: str | Path, weights: str | Path, output: str | Path, names: str | Path | None = None) -> Path:
    """Writes the weights as OUTPUT (.pth) and beside it, ending in .yaml, the recipe that they belong to.

    Args:
        names: a file with the name of each class, one a line (Darknet's `coco.names`), which the weights then remember.

    Returns:
        The recipe's path.
    Raises:
        RecipeError: an unknown network. CheckpointError: the weights do not fit it. DataError: too few or many names.
    """
    from vertebra.engine import write_checkpoint

    output = Path(output)
    if output.suffix != ".pth":
        raise CheckpointError(f"{output}: the weights are written as a .pth file; name it {output.with_suffix('.pth')}")
    recipe = output.with_suffix(".yaml")
    for path in (output, recipe):
        if path.exists():
            raise RecipeError(f"{path}: already exists and is not overwritten; choose another file with --output")
    model, base, changes = build_darknet(cfg)
    num_classes = changes["model.heads.boxes.num_classes"]
    remembered = {"num_classes": num_classes} if names is None else {"classes": _read_names(names, num_classes)}
    header = load_convs(model_convs(model), weights)
    text = f"# From Darknet's {Path(cfg).name} and {Path(weights).name} ({header.images_seen} images seen).\n"
    text += yaml.safe_dump({"_base_": base, **_nested(changes)}, sort_keys=False, default_flow_style=None)
    write_checkpoint(output, {"model": model.state_dict(), **remembered})
    write_text(recipe, text)
    return recipe


def _read_names(path: str | Path, num_classes: int) -> list[str]:
    """The lines of a file; as many as there are classes."""
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise DataError(f"{path}: cannot be read as text: {err}") from err
    found = [line.strip() for line in lines if line.strip()]
    if len(found) != num_classes:
        raise DataError(f"{path}: has {len(found)} names, one a line, but the cfg has classes={num_classes}")
    return found


def model_convs(model: Model) -> list[nn.Conv2d]:
    """The model's convolutions in the order of a Darknet file: backbone, then level by level, coarsest first."""
    (head,), neck = model.heads.values(), model.neck
    if not isinstance(head, (YOLOv2Head, YOLOv3Head)) or not isinstance(neck, (YOLOv2Neck, YOLOv3Neck, YOLOv3TinyNeck)):
        raise RecipeError(
            f"Darknet's files hold YOLOv2, YOLOv3 and YOLOv3-tiny, but this model has the neck {type(neck).__name__} "
            f"and the head {type(head).__name__}"
        )
    convs = darknet_convs(model.backbone)
    for layers, predictor in zip(neck.darknet_order(), head.darknet_order(), strict=True):
        convs += [*(layer.conv for layer in layers), predictor]
    return convs


def _anchors_of(section: Section) -> list[list[float]]:
    """Width and height in input pixels of the anchors that a layer uses."""
    numbers, count = section.numbers("anchors"), section.number("num", 1)
    if len(numbers) != 2 * count:
        raise RecipeError(
            f"{section.place('anchors')}: [{section.name}] has {len(numbers)} numbers in anchors, but num={count} "
            f"needs {2 * count}, a width and a height each"
        )
    pairs = [list(pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)]
    if section.name == "region":
        return [[w * _STRIDE, h * _STRIDE] for w, h in pairs]
    mask = section.whole_numbers("mask") or list(range(count))
    if any(not 0 <= index < count for index in mask):
        raise RecipeError(f"{section.place('mask')}: mask {mask} points beyond the {count} anchors")
    return [pairs[index] for index in mask]


def _side(net: Section, key: str) -> int:
    """Height or width of the input in pixels."""
    side = net.number(key)
    if side < _STRIDE or side % _STRIDE:
        raise RecipeError(f"{net.place(key)}: {key} is {side}, not a multiple of {_STRIDE}")
    return side


def _changes(network: DarknetNetwork, name: str) -> dict | None:
    """What a cfg changes in the recipe of this network; None where its ends are of another kind."""
    if network.kind != ("region" if name == "yolov2" else "yolo") or len(network.anchors) != _LEVELS[name]:
        return None
    size = list(network.size)
    changes = {
        "model.heads.boxes.num_classes": network.num_classes,
        "model.heads.boxes.anchors": network.anchors[0] if name == "yolov2" else network.anchors,
        "data.eval_transforms": [{"name": "ResizeLetterbox", "size": size, "pad": False}],
    }
    return changes | ({"model.neck.reorg": "darknet"} if name == "yolov2" else {})


def _nested(changes: dict) -> dict:
    """Dotted keys as blocks in blocks."""
    result: dict = {}
    for key, value in changes.items():
        *outer, last = key.split(".")
        block = result
        for name in outer:
            block = block.setdefault(name, {})
        block[last] = value
    return result
