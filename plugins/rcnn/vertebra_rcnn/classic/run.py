"""What `vertebra rcnn` does: a classic R-CNN from a recipe's backbone and data, and proposals of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vertebra import load_recipe
from vertebra.data import load_split, match_classes, read_image
from vertebra.engine import seed_everything
from vertebra.errors import DataError, RecipeError
from vertebra.models import Model, build_model, load_weights, read_weights
from vertebra_rcnn.classic.detector import ClassicRCNN
from vertebra_rcnn.classic.selective_search import selective_search
from vertebra_rcnn.classic.warped import WarpedFeatures
from vertebra_rcnn.proposal_files import write_proposals

__all__ = ["run_classic", "write_selective_search"]


def run_classic(
    recipe: str,
    overrides: Sequence[str] = (),
    output: Path = Path("runs/rcnn_classic"),
    *,
    weights: str | None = None,
    max_proposals: int = 300,
    size: int = 96,
) -> dict[str, float | None]:
    """Trains on `data.train`, evaluates on `data.val`, and writes `classic.npz` and an evaluation to `output`.

    Returns:
        The metrics.
    Raises:
        RecipeError: `output` is not empty.
        DataError: scikit-image or scikit-learn is missing.
    """
    from vertebra.evaluation import evaluate, print_evaluation

    _need_libraries()
    if output.exists() and any(output.iterdir()):
        raise RecipeError(f"{output} is not empty; name a new folder with --output")
    loaded = load_recipe(recipe, overrides)
    dataset = load_split(loaded, "train")
    match_classes(load_split(loaded, "val"), dataset.metadata)  # a mistake is reported now, not after the training
    seed_everything(loaded.seed)  # without weights the backbone is random, but the same each time
    model = build_model(loaded, metadata=dataset.metadata, pretrained=weights is None)
    if not isinstance(model, Model):
        raise RecipeError(
            f"{loaded.source}: model.name is {loaded.model.whole.name}; R-CNN needs a model with a backbone"
        )
    if weights is not None:
        load_weights(model, read_weights(weights), source=weights)
    features = WarpedFeatures(model.backbone, model.get_buffer("pixel_mean"), model.get_buffer("pixel_std"), size=size)
    detector = ClassicRCNN(
        features,
        len(dataset.metadata.thing_classes),
        max_proposals=max_proposals,
        reverse_channels=loaded.model.pixel_order == "bgr",
        seed=loaded.seed,
        metadata=dataset.metadata,
    ).eval()
    counts = detector.fit(dataset, loaded)
    print("learned from " + ", ".join(f"{value} {name}" for name, value in counts.items()))
    output.mkdir(parents=True, exist_ok=True)
    detector.save(output / "classic.npz")
    loaded.save(output / "recipe.yaml")
    result = evaluate(detector, loaded, split="val", output_dir=output / "evaluation")
    print_evaluation(output / "evaluation")
    return result.metrics


def write_selective_search(
    recipe: str,
    overrides: Sequence[str] = (),
    output: Path = Path("proposals.npz"),
    *,
    split: str = "train",
    most: int = 2000,
) -> None:
    """Proposals of every image of a split, in pixels of the files' images."""
    _need_libraries()
    if output.suffix != ".npz":
        raise RecipeError(f"{output}: proposals are written as .npz; name it {output.with_suffix('.npz')}")
    if output.exists():
        raise RecipeError(f"{output} exists; move it, or name another file with --output")
    loaded = load_recipe(recipe, overrides)
    rows, total = [], 0
    for record in load_split(loaded, split):
        boxes = selective_search(read_image(record["file_name"]), np.random.default_rng(loaded.seed))[:most]
        rows.append((record["image_id"], boxes, np.linspace(3, -3, len(boxes))))  # only their order means something
        total += len(boxes)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_proposals(output, rows)
    print(f"{output}: {total} proposals of {len(rows)} images")


def _need_libraries() -> None:
    try:
        import skimage  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError as err:
        raise DataError(
            f"`vertebra rcnn` needs scikit-image and scikit-learn ({err}): pip install 'vertebra-rcnn[classic]'"
        ) from err
