"""Darknet's layers: what a section of a cfg computes, and those that the networks of this plugin consist of.

Defaults are those of Darknet's parser. Every key of a section either takes part in what the layer computes, and is
compared, or is read in training alone, and is ignored. All other keys are refused, since they may change the result.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from torch import nn

from vertebra_yolo.darknet_cfg import Section

__all__ = ["NETWORKS", "first_difference", "network_layers"]

Meaning: TypeAlias = Mapping[str, int | float | str]
"""What a layer computes, by Darknet's keys."""

_RESIDUAL = "conv conv shortcut "
_LEVEL = 7 * "conv " + "yolo "
NETWORKS = {  # sections in their order; what follows a colon are their settings, counted like Darknet from layer 0 on
    "yolov3": "conv "
    + "".join("conv " + blocks * _RESIDUAL for blocks in (1, 2, 8, 8, 4))
    + _LEVEL
    + f"route:79 conv upsample route:85,61 {_LEVEL}"
    + f"route:91 conv upsample route:97,36 {_LEVEL}",
    "yolov3-tiny": 5 * "conv pool:2 "
    + "conv pool:1 conv conv conv conv yolo route:13 conv upsample route:19,8 conv conv yolo",
    "yolov2": 2 * "conv pool:2 "
    + 2 * "conv conv conv pool:2 "
    + 5 * "conv "
    + "pool:2 "
    + 7 * "conv "
    + "route:16 conv reorg route:27,24 conv conv region",
}

_READ = {  # by `read_network` or below under another name
    "net": {"width", "height"},
    "convolutional": {"pad"},
    "yolo": {"mask", "anchors", "classes", "num"},
    "region": {"anchors", "classes", "num"},
}
_TRAINING = {
    "net": """batch subdivisions momentum decay adam B1 B2 eps learning_rate learning_rate_min burn_in max_batches
        policy steps scales seq_scales step scale gamma power sgdr_cycle sgdr_mult angle saturation exposure hue aspect
        min_crop max_crop min_ratio max_ratio center flip random mosaic mosaic_bound mixup cutmix blur gaussian_noise
        loss_scale dynamic_minibatch optimized_memory workspace_size_limit_MB max_chart_loss ema_alpha
        num_sigmas_reject_badlabels badlabels_rejection_percentage""",
    "convolutional": "stopbackward learning_rate train_only_bn burnin_update",
    "route": "stopbackward",
    # beta_nms has an effect only with another nms_kind, which is refused
    "yolo": """jitter resize random max ignore_thresh truth_thresh iou_thresh iou_loss iou_normalizer cls_normalizer
        obj_normalizer delta_normalizer max_delta focal_loss label_smooth_eps objectness_smooth counters_per_class
        show_details beta_nms""",
    "region": """jitter random max bias_match rescore thresh absolute object_scale noobject_scale class_scale
        coord_scale mask_scale classfix""",
}


def network_layers(name: str, convs: Sequence[nn.Conv2d]) -> list[tuple[str, Meaning]]:
    """Section and meaning of each layer of one of `NETWORKS`, whose convolutions are `convs`, in their order."""
    remaining = iter(convs)
    layers = [_layer(word, remaining) for word in NETWORKS[name].split()]
    assert next(remaining, None) is None
    return layers


def first_difference(sections: Sequence[Section], layers: Sequence[tuple[str, Meaning]]) -> tuple[int, str] | None:
    """Number of layers in which a cfg agrees with a network, and the first difference with its place; None if all do.

    Args:
        sections: of the whole cfg, `[net]` first.
    """
    expected: list[tuple[str, Meaning]] = [("net", {"channels": 3, "letter_box": 1}), *layers]
    for index, (section, (name, ours)) in enumerate(zip(sections, expected, strict=False), start=-1):
        agree = max(index, 0)
        if section.name != name:
            return agree, f"{section.where}: the section is [{section.name}], not [{name}]"
        theirs = _meaning(section, index)
        known = theirs.keys() | _READ.get(name, set()) | set(_TRAINING.get(name, "").split())
        unknown = next((key for key in section.options if key not in known), None)
        if unknown is not None:
            return agree, f"{section.place(unknown)}: [{name}] has the unknown option {unknown}"
        for key, value in theirs.items():
            if value != ours[key]:
                given = key in section.options or (key == "padding" and "pad" in section.options)
                default = "" if given else " by default"
                return agree, f"{section.place(key)}: {key} is {value}{default}, not {ours[key]}"
    if len(sections) != len(expected):
        place = sections[min(len(sections), len(expected) + 1) - 1].where
        return min(len(sections), len(expected)) - 1, f"{place}: it has {len(sections) - 1} layers, not {len(layers)}"
    return None


def _layer(word: str, convs: Iterator[nn.Conv2d]) -> tuple[str, Meaning]:
    kind, _, setting = word.partition(":")
    if kind == "conv":
        conv = next(convs)
        normed = getattr(conv, "norm", None) is not None  # all but those that predict, which have no activation either
        return "convolutional", {
            "batch_normalize": int(normed),
            "filters": conv.out_channels,
            "size": conv.kernel_size[0],
            "stride": conv.stride[0],
            "padding": int(conv.padding[0]),
            "activation": "leaky" if normed else "linear",
            "groups": conv.groups,
            "dilation": conv.dilation[0],
        }
    if kind == "pool":
        return "maxpool", {"size": 2, "stride": int(setting), "padding": 1}
    meanings: dict[str, Meaning] = {
        "shortcut": {"from": -3, "activation": "linear"},
        "route": {"layers": setting.replace(",", ", "), "groups": 1, "group_id": 0},
        "upsample": {"stride": 2, "scale": 1.0},
        "reorg": {"stride": 2, "reverse": 0, "flatten": 0, "extra": 0},
        "yolo": {"scale_x_y": 1.0, "new_coords": 0, "nms_kind": "greedynms"},
        "region": {"coords": 4, "softmax": 1, "background": 0},
    }
    return kind, meanings[kind]


def _meaning(section: Section, index: int) -> Meaning:
    """What a section at this place computes.

    Raises:
        RecipeError: one of its options is not a number, but should be.
    """
    number, options = section.number, section.options
    if section.name == "net":
        return {"channels": number("channels", 3), "letter_box": number("letter_box", 1)}
    if section.name == "convolutional":
        size = number("size", 1)
        return {
            "batch_normalize": number("batch_normalize", 0),
            "filters": number("filters", 1),
            "size": size,
            "stride": number("stride", 1),
            "padding": size // 2 if number("pad", 0) else number("padding", 0),
            "activation": options.get("activation", "logistic"),
            "groups": number("groups", 1),
            "dilation": number("dilation", 1),
        }
    if section.name == "maxpool":
        stride = number("stride", 1)
        size = number("size", stride)
        return {"size": size, "stride": stride, "padding": number("padding", size - 1)}
    if section.name == "shortcut":
        source = number("from")
        return {"from": source if source < 0 else source - index, "activation": options.get("activation", "linear")}
    if section.name == "route":
        sources = (layer + index if layer < 0 else layer for layer in section.whole_numbers("layers"))
        return {
            "layers": ", ".join(map(str, sources)),
            "groups": number("groups", 1),
            "group_id": number("group_id", 0),
        }
    if section.name == "upsample":
        return {"stride": number("stride", 2), "scale": (section.numbers("scale") or [1.0])[0]}
    if section.name == "reorg":
        return {"stride": number("stride", 1)} | {key: number(key, 0) for key in ("reverse", "flatten", "extra")}
    if section.name == "yolo":
        nms = options.get("nms_kind", "default")
        return {
            "scale_x_y": (section.numbers("scale_x_y") or [1.0])[0],
            "new_coords": number("new_coords", 0),
            "nms_kind": "greedynms" if nms == "default" else nms,
        }
    assert section.name == "region"  # `first_difference` compares names first
    return {"coords": number("coords", 4), "softmax": number("softmax", 0), "background": number("background", 0)}
