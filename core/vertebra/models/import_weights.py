"""Another library's trained weights into a recipe's model.

Every part says what that library calls its parameters (`detectron2_names`, `torchvision_names`); here those words are
applied and shapes are checked. What is left over on either side is an error, unless it is known to change nothing or
the caller asks for a partial import.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import vertebra
from vertebra.config import Recipe, load_recipe
from vertebra.errors import CheckpointError
from vertebra.models.base_model import BaseModel
from vertebra.models.build import build_model
from vertebra.models.weights import read_weights
from vertebra.runtime.folders import check_can_be_written
from vertebra_eval.files import open_whole
from vertebra_eval.nearest import listed

__all__ = ["ImportReport", "Layout", "import_weights", "translate_names"]

_STATISTICS = (".running_mean", ".running_var")
_HINT = "Is the recipe the one of these weights? To import only what fits, and list the rest: --partial"


@dataclass(frozen=True)
class Layout:
    """How a library names the weights of its models.

    Args:
        library: its name, for messages.
        attribute: of a part: (regular expression, replacement) pairs from the library's names to the part's own.
        prefixes: put before a name of the weights, until one fits: backbones often come without what they sit in.
        constants: names of entries that are not weights and need no place.
        extra: names of entries of heads that no other output depends on; they are dropped and listed in the report.
        folds_norms: some of its files have no running mean and variance at all, as these are folded into the scale.
        prepare: changes the names of a whole file first.
        differing: constants of the file that the model computes with other values of; each is an unplaced entry.
    """

    library: str
    attribute: str
    prefixes: tuple[str, ...] = ("",)
    constants: str = r"(.*\.)?num_batches_tracked"
    extra: str = r"(?!)"
    folds_norms: bool = False
    prepare: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict
    differing: Callable[[Mapping[str, Tensor], BaseModel], list[str]] = lambda given, model: []

    def unplaced(self, unused: Iterable[str]) -> list[str]:
        """Those of the names without a place in the model that are not known to be harmless."""
        return [name for name in unused if not re.fullmatch(self.extra, name)]


@dataclass(frozen=True)
class ImportReport:
    """What an import did.

    Args:
        output: the file written.
        num_loaded: entries of the model taken from the weights.
        num_classes: that the model was built for; None if its shapes do not depend on it.
        kept: entries of the model that the weights do not have, left as they are when the model is new.
        unused: entries of the weights that no part of the model knows, constants that differ from the model's included.
    """

    output: Path
    num_loaded: int
    num_classes: int | None
    kept: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        classes = "" if self.num_classes is None else f", {self.num_classes} classes"
        lines = [f"{self.output}: {self.num_loaded} entries translated{classes}"]
        if self.kept:
            lines.append(f"not in the weights, left as new ({len(self.kept)}): {listed(self.kept, 8)}")
        if self.unused:
            lines.append(f"in the weights, unused here ({len(self.unused)}): {listed(self.unused, 8)}")
        return "\n".join(lines)


def import_weights(
    layout: Layout,
    weights: str | Path,
    recipe: Recipe | str | Path,
    output: str | Path,
    *,
    num_classes: int | None = None,
    force: bool = False,
    partial: bool = False,
) -> ImportReport:
    """Writes `output`, a `.pth` with the model of `recipe` filled with a library's `weights`.

    Args:
        layout: the library's.
        weights: path or URL; nothing in it is executed.
        recipe: of the same model; where its heads leave `num_classes` out, it is worked out from the shapes.
        output: left alone if it exists, unless `force`.
        partial: parameters that the weights do not have stay as new, and entries without a place in the model are
            dropped (to start a training from a backbone alone); otherwise either is an error.

    Raises:
        CheckpointError: the weights cannot be read, do not fit the recipe's model, or `output` exists.
    """
    output = Path(output)
    if output.suffix != ".pth":
        name = output.with_suffix(".pth") if output.name else "weights.pth"
        raise CheckpointError(f"{output}: the weights are written as a .pth file; name it {name}")
    if output.exists() and not force:
        raise CheckpointError(f"{output} already exists; choose another file, or overwrite it with --force")
    check_can_be_written(output.parent)
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(str(recipe))

    given = layout.prepare(read_weights(str(weights)))
    if num_classes is None:
        num_classes = _num_classes_of(given, recipe, weights, layout)
    model = build_model(recipe, num_classes=num_classes, pretrained=False)
    state = model.state_dict()
    renamed, unused = translate_names(given, model, layout)
    _check_shapes(renamed, given, state, weights)
    unused += layout.differing(given, model)
    kept = _check_complete(renamed, unused, model, weights, partial, layout)

    state.update({own: given[name].to(state[own].dtype) for own, name in renamed.items()})
    content = {
        "model": state,
        "recipe": recipe.to_yaml(),
        "num_classes": num_classes,
        "source": Path(str(weights)).name,
        "vertebra": vertebra.__version__,
        "format": 1,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    with open_whole(output, durable=True) as file:
        torch.save(content, file)
    return ImportReport(output, len(renamed), num_classes, tuple(kept), tuple(unused))


def translate_names(names: Iterable[str], model: BaseModel, layout: Layout) -> tuple[dict[str, str], list[str]]:
    """The library's parameter names to the model's.

    Returns:
        {the model's name: the library's}, and the names that no part of the model knows, without constants.

    Raises:
        CheckpointError: two names mean the same entry.
    """
    rules = _rules(model, layout.attribute)
    constants = re.compile(layout.constants)
    own_names = set(model.state_dict())
    renamed: dict[str, str] = {}
    unused: list[str] = []
    for name in names:
        candidates = (own for prefix in layout.prefixes for own in _apply(rules, prefix + name))
        own = next((own for own in candidates if own in own_names), None)
        if own is None:
            if not constants.fullmatch(name):
                unused.append(name)
        elif own in renamed:
            raise CheckpointError(f"the weights contain {own} twice: as {renamed[own]} and as {name}")
        else:
            renamed[own] = name
    return renamed, unused


def _rules(model: BaseModel, attribute: str) -> list[tuple[re.Pattern[str], str, str]]:
    """(pattern, replacement, prefix in the model) of every part's words for this library."""
    return [
        (re.compile(pattern), replacement, f"{place}." if place else "")
        for place, part in {**model.parts(), "": model}.items()
        for pattern, replacement in getattr(part, attribute, ())
    ]


def _apply(rules: list[tuple[re.Pattern[str], str, str]], name: str) -> Iterable[str]:
    for pattern, replacement, place in rules:
        match = pattern.fullmatch(name)
        if match:
            yield place + match.expand(replacement)


def _num_classes_of(given: Mapping[str, Tensor], recipe: Recipe, weights: str | Path, layout: Layout) -> int | None:
    """The number of classes at which the model's shapes become those of the weights.

    Sizes grow linearly with the classes, so two trial models tell how; None if none of the sizes does.
    """
    heads = [spec for spec in recipe.model.parts.values() if spec.kind == "head"] or [recipe.model.whole]
    written = [count for head in heads if (count := head.arguments.get("num_classes")) is not None]
    if len(written) == len(heads):
        return max(written)
    two, three = (build_model(recipe, num_classes=count, pretrained=False) for count in (2, 3))
    renamed, _ = translate_names(given, two, layout)
    at_two, at_three = two.state_dict(), three.state_dict()
    found: dict[int, str] = {}
    for own, name in renamed.items():
        sizes = zip(at_two[own].shape, at_three[own].shape, given[name].shape, strict=False)
        for two_classes, three_classes, size in sizes:
            if two_classes != three_classes:
                count, rest = divmod(size - two_classes, three_classes - two_classes)
                if rest == 0 and count + 2 >= 1:
                    found.setdefault(count + 2, name)
    if len(found) > 1:
        readings = ", ".join(f"{count} by {name}" for count, name in found.items())
        raise CheckpointError(
            f"{weights}: the number of classes cannot be determined from the shapes ({readings}); "
            "write num_classes at the heads in the recipe"
        )
    return next(iter(found), None)


def _check_shapes(
    renamed: dict[str, str], given: dict[str, Tensor], state: dict[str, Tensor], weights: str | Path
) -> None:
    wrong = [
        f"{name} is {_shape(given[name])}, the recipe's {own} {_shape(state[own])}"
        for own, name in renamed.items()
        if given[name].shape != state[own].shape
    ]
    if wrong:
        raise CheckpointError(
            f"{weights}: {len(wrong)} of {len(renamed)} entries do not have the shape of the recipe's model:\n  "
            + "\n  ".join(wrong[:10])
            + "\n  Is the recipe the one of these weights (num_classes, depth, anchors)?"
        )


def _check_complete(
    renamed: dict[str, str], unused: list[str], model: BaseModel, weights: str | Path, partial: bool, layout: Layout
) -> list[str]:
    """The model's entries that the weights do not have. Only counters may be missing, and nothing may be without a
    place, unless `partial`.

    Caffe2 folds a normalization's mean and variance into its scale, so they are 0 and 1, as in a new model.
    """
    kept = [own for own in model.state_dict() if own not in renamed]
    if not renamed:
        raise CheckpointError(
            f"{weights}: none of its names is one of {layout.library}'s for this recipe's model: {listed(unused, 8)}"
        )
    parameters = {name for name, _ in model.named_parameters()}
    folded = layout.folds_norms and not any(own.endswith(_STATISTICS) for own in renamed)
    needed = (".weight", ".bias") if folded else (".weight", ".bias", *_STATISTICS)
    missing = [own for own in kept if own in parameters or own.endswith(needed)]
    if missing and not partial:
        lines = []
        for own in missing[:10]:
            near = difflib.get_close_matches(own, unused, n=1, cutoff=0.3)
            lines.append(own + (f" (nearest unused name: {near[0]})" if near else ""))
        raise CheckpointError(
            f"{weights}: {len(missing)} entries of the recipe's model are missing:\n  "
            + "\n  ".join(lines)
            + (f"\n  Unused names in it ({len(unused)}): {listed(unused, 8)}" if unused else "")
            + f"\n  {_HINT}"
        )
    unplaced = layout.unplaced(unused)
    if unplaced and not partial:
        raise CheckpointError(
            f"{weights}: {len(unplaced)} entries have no place in the recipe's model or other values there, so that "
            "it would not compute the same:\n  " + "\n  ".join(unplaced[:10]) + f"\n  {_HINT}"
        )
    return kept


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"
