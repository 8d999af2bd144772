"""predict_files: from places to folders of results; what `vertebra predict` does."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vertebra.config import Recipe
from vertebra.errors import DataError, RecipeError
from vertebra.predictor.arrays import ArrayWriter
from vertebra.predictor.panoptic import PanopticWriter
from vertebra.predictor.pictures import PictureWriter
from vertebra.predictor.prediction_records import count_detections
from vertebra.predictor.predictor import Prediction, Predictor
from vertebra.predictor.settings import class_numbers, look_from_score
from vertebra.predictor.sources import Camera, Place, list_places
from vertebra.predictor.timing import StageTimes
from vertebra.predictor.writers import CocoWriter, CsvWriter, LabelWriter, Writer, YoloWriter
from vertebra.runtime.folders import check_can_be_written
from vertebra_eval.nearest import nearest

__all__ = ["SAVED", "WrittenPredictions", "predict_files"]

logger = logging.getLogger(__name__)

_MOST_TOLD = 10
_WRITERS: dict[str, Callable[[Path, Any], Writer]] = {  # from the folder and the predictor's metadata
    "coco": CocoWriter,
    "yolo": YoloWriter,
    "csv": CsvWriter,
    "labels": LabelWriter,
    "panoptic": PanopticWriter,
    "arrays": ArrayWriter,
}
SAVED = ("pictures", *_WRITERS)
_IN_FILES = {"instances": ("coco", "yolo", "csv"), "sem_seg": ("labels",), "panoptic_seg": ("panoptic",)}
"""Which files hold an output of this key, the default first. Pictures show these too; arrays hold every output."""


@dataclass(frozen=True)
class WrittenPredictions:
    """What `predict_files` wrote.

    Args:
        files: pictures and videos, then files and folders of the other formats.
        num_detections: None of a model that does not detect.
        times: how long each stage took.
    """

    output: Path
    files: list[Path]
    num_images: int
    num_detections: int | None
    times: StageTimes = field(repr=False)


def predict_files(
    recipe: Predictor | Recipe | str,
    source: Place | Iterable[Place],
    *,
    output: Path | str,
    weights: str | None = None,
    score: float = 0.5,
    classes: Sequence[str | int] | None = None,
    save: Sequence[str] | None = None,
    batch_size: int = 1,
    max_images: int | None = None,
    on_written: Callable[[Path], None] | None = None,
    inputs: Mapping[str, Any] | None = None,
    **settings: Any,
) -> WrittenPredictions:
    """Predicts on files, folders, patterns, videos, cameras; writes results into `output`, overwriting nothing.

    Args:
        recipe: or a Predictor, whose own settings then hold.
        source, classes, batch_size: see `Predictor.stream`.
        score: detections from this score on.
        save: of `pictures`, `coco` (predictions.json), `yolo` (labels/*.txt), `csv` (predictions.csv), `labels`
            (label_maps/*.png), `panoptic` (panoptic_predictions.json and its folder of PNG files), `arrays`
            (arrays/*.npz); None: pictures, and coco, labels or panoptic, whichever the model's outputs fill, and arrays
            where it has others.
        max_images: stop after this many images or frames.
        on_written: called with each picture when it is written, and with each video when it is begun.
        inputs: what the model takes beside images, the same for all; of a model of several images where the others
            lie, see `Predictor.stream`.
        settings: of the Predictor: `device`, `transforms`, `nms_threshold`, `class_agnostic_nms`, `max_detections`.

    Raises:
        RecipeError: `output` or a folder above it is not a folder, or cannot be written.
        DataError: nothing to read, or `output` holds predictions already; or images that cannot be read, after all
            others have been written.
    """
    output = check_can_be_written(output)
    given = [source] if isinstance(source, (str, Path, int, Camera)) else source
    predictor = recipe if isinstance(recipe, Predictor) else _predictor(recipe, weights, score, settings)
    places = list_places(given, reader=predictor.reader)
    if classes is not None:
        class_numbers(classes, predictor.class_names)  # a wrong name is reported before anything is written
    predictor.check_inputs(inputs or {}, of_stream=True)
    saved = _checked(save, predictor)
    unreadable: list[str] = []
    times = StageTimes(predictor.device)
    stream = predictor.stream(
        places,
        batch_size=batch_size,
        classes=classes,
        score=score,
        labels_only=True,
        unreadable=unreadable,
        times=times,
        inputs=inputs,
    )
    writers: list[Writer] = []
    endless = any(isinstance(place, Camera) for place in places)
    with _closing(writers, times, endless):
        detections = 0
        for number, prediction in enumerate(stream, start=1):
            with times.stage("write"):
                if number == 1:  # so that a source of which nothing can be read leaves nothing behind
                    if save is None and _further(prediction):
                        saved.append("arrays")
                    _open_writers(writers, saved, output, predictor)
                _write(prediction, writers, on_written)
                if number == 1:
                    _warn_unsaved(prediction, saved, writers)
            detections += count_detections(prediction)
            if number == max_images:
                break
    files = [path for writer in writers for path in writer.written]
    _tell_unreadable(unreadable, times.images, output)
    return WrittenPredictions(output, files, times.images, detections if _detects(predictor) else None, times)


def _predictor(recipe: Recipe | str, weights: str | None, score: float, settings: dict[str, Any]) -> Predictor:
    predictor = Predictor(recipe, weights, **settings)
    look_from_score(predictor.model, score)
    return predictor


def _outputs(predictor: Predictor) -> set[str]:
    return predictor.model.output_keys


def _detects(predictor: Predictor) -> bool:
    """Whether the model gives `instances`; where its heads do not say what they give, it may."""
    return "instances" in _outputs(predictor) or not _outputs(predictor)


def _checked(save: Sequence[str] | None, predictor: Predictor) -> list[str]:
    outputs = _outputs(predictor)
    filled = outputs | ({"instances"} if _detects(predictor) else set())
    holds = [files for key, files in _IN_FILES.items() if key in filled]
    fit = {"pictures", "arrays"}.union(*holds)
    if save is None:
        return ["pictures", *(files[0] for files in holds)]
    for name in save:
        if name not in SAVED:
            near = ", ".join(nearest(name, SAVED)) or ", ".join(SAVED)
            raise RecipeError(f"no format is named {name!r}.\n  Nearest: {near}")
    unfit = [name for name in save if name not in fit]
    if unfit:
        raise RecipeError(
            f"this model's outputs ({', '.join(sorted(outputs))}) cannot be saved as {', '.join(unfit)}: "
            "coco, yolo and csv hold detections, labels a class for each pixel, panoptic a segment for each pixel"
        )
    return list(dict.fromkeys(save))


def _open_writers(writers: list[Writer], saved: Sequence[str], output: Path, predictor: Predictor) -> None:
    for name in saved:
        if name == "pictures":
            writers.append(PictureWriter(output, predictor.metadata, predictor.model))
        else:
            writers.append(_WRITERS[name](output, predictor.metadata))


def _further(prediction: Prediction) -> list[str]:
    """Outputs of other kinds than those that pictures and files hold as they are."""
    return [key for key in prediction.outputs if key.rpartition("/")[2] not in (*_IN_FILES, "class_names")]


def _warn_unsaved(prediction: Prediction, saved: Sequence[str], writers: Sequence[Writer]) -> None:
    """Names the outputs that neither a file nor a picture holds."""
    drawn = {key for writer in writers if isinstance(writer, PictureWriter) for key in writer.drawn_by_tasks}
    keys = [key for key in _further(prediction) if key not in drawn]
    if saved and "arrays" not in saved and keys:
        logger.warning(
            "not written: the output %s. Files that hold it: --save %s,arrays", ", ".join(keys), ",".join(saved)
        )


def _write(prediction: Prediction, writers: Sequence[Writer], on_written: Callable[[Path], None] | None) -> None:
    for writer in writers:
        before = len(writer.written) if isinstance(writer, PictureWriter) else 0
        writer.add(prediction)
        if on_written is not None and isinstance(writer, PictureWriter):
            for path in writer.written[before:]:
                on_written(path)


@contextlib.contextmanager
def _closing(writers: Sequence[Writer], times: StageTimes, endless: bool) -> Iterator[None]:
    """What has been written by the end is complete, whatever ends it.

    Args:
        endless: of a camera, which Ctrl-C ends as it should.
    """
    try:
        yield
    except KeyboardInterrupt:
        if not endless:
            raise
    finally:
        with times.stage("write"):
            for writer in writers:
                writer.close()


def _tell_unreadable(unreadable: Sequence[str], read: int, output: Path) -> None:
    if not unreadable:
        return
    if read == 0 and len(unreadable) == 1:
        raise DataError(unreadable[0])
    told = "\n  ".join(unreadable[:_MOST_TOLD]) + ("\n  ..." if len(unreadable) > _MOST_TOLD else "")
    raise DataError(
        f"{len(unreadable)} of {read + len(unreadable)} images cannot be read; the others are in {output}\n  {told}"
    )
