"""A sample of a dataset's images, opened: which cannot be read, and what is unusual about the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from vertebra.data.images.oddities import ODDITIES, collected_oddities
from vertebra.data.images.read import image_orientation
from vertebra.data.images.readers import RGB, ImageReader
from vertebra.errors import DataError

__all__ = ["ImageSurvey", "survey_images", "survey_notes"]

_MOST_OPENED = 100
_MOST_NAMED = 3  # unreadable images whose messages are shown


@dataclass
class ImageSurvey:
    """What a sample of images is like.

    Args:
        opened: number of images of the sample.
        images: number of images of the dataset.
        unreadable: messages.
        odd: paths by what a note tells about them.
    """

    opened: int
    images: int
    unreadable: list[str] = field(default_factory=list)
    odd: dict[str, list[str]] = field(default_factory=dict)


def survey_images(records: Sequence[dict], most: int = _MOST_OPENED, reader: ImageReader | None = None) -> ImageSurvey:
    """Opens up to `most` images, evenly spread over the records, with the dataset's reader (None: RGB)."""
    step = max(len(records) / most, 1)
    picked = [int(number * step) for number in range(min(most, len(records)))]
    survey = ImageSurvey(len(picked), len(records))
    for index in picked:
        _look_at(records[index], survey, reader or RGB())
    return survey


def _look_at(record: dict, survey: ImageSurvey, reader: ImageReader) -> None:
    path = record["file_name"]
    try:
        with collected_oddities() as found:
            height, width = reader.read(path).shape[:2]
        turned = image_orientation(path) if isinstance(reader, RGB) else 1
    except DataError as err:
        survey.unreadable.append(str(err))
        return
    for kind, _ in found:
        survey.odd.setdefault(ODDITIES[kind], []).append(path)
    told = (record.get("height", height), record.get("width", width))
    if told == (width, height) != (height, width):
        what = "has the sides that its record says only before its EXIF orientation is applied"
        survey.odd.setdefault(what, []).append(path)
    elif told != (height, width):
        survey.odd.setdefault("is not as high and wide as its record says", []).append(path)
    if turned != 1:
        survey.odd.setdefault("is turned upright by its EXIF orientation before use", []).append(path)


def survey_notes(survey: ImageSurvey) -> list[str]:
    """Lines for a terminal, none where all is usual."""
    lines = []
    if survey.unreadable:
        lines += ["", f"warning: {len(survey.unreadable)} of {survey.opened} images cannot be read:"]
        lines += [f"  {message}" for message in survey.unreadable[:_MOST_NAMED]]
    for what, paths in survey.odd.items():
        lines += ["", f"note: {len(paths)} of {survey.opened} images: {paths[0]} {what}"]
    return lines
