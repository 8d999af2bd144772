"""One self-contained HTML file about an evaluation: no network, images inside, below 5 MB; works without its script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache, partial
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from vertebra_eval.files import write_text
from vertebra_eval.printable import printable
from vertebra_eval.report.blocks import Facts, Figure, Gallery, Section, Table, Text
from vertebra_eval.report.embed import jpeg_uris, png_uri
from vertebra_eval.report.metric_tables import class_tables, headline, summary_rows

__all__ = ["write_report"]

MAX_BYTES = 4_800_000
_MANY_CLASSES = 20  # from here on their table comes behind the plots and pictures
_TASK_TITLES = {
    "bbox": "Boxes",
    "segm": "Masks",
    "boundary": "Boundaries of masks",
    "keypoints": "Keypoints",
    "sem_seg": "Semantic segmentation",
    "panoptic": "Panoptic segmentation",
}


def write_report(
    path: Path,
    *,
    title: str,
    subtitle: str,
    metrics: Mapping[str, float | None],
    reasons: Mapping[str, str],
    notes: Sequence[str] = (),
    intervals: Mapping[str, tuple[float, float]] | None = None,
    sections: Sequence[Section] = (),
    facts: Mapping[str, Mapping[str, str]] | None = None,
    recipe_yaml: str = "",
) -> Path:
    """Write the report. Control characters and direction marks in its texts are shown escaped.

    Args:
        title, subtitle: above everything; the subtitle says which data and model.
        metrics, reasons: as an evaluator gives them: `<task>/<name>` -> fraction or None; reason of each None.
        notes: what a reader should know before trusting the numbers.
        intervals: metric -> (low, high), 95 % over images.
        sections: the evaluators' plots, pictures and tables; plots and pictures are files that exist.
        facts: further tables of name and value by title (run, versions).
        recipe_yaml: the resolved recipe.
    """
    classes = class_tables(metrics)
    beside = [section for section in sections if _is_facts(section)]
    shown = [section for section in sections if not _is_facts(section)]
    blocks = [block for section in shown for block in section.blocks]
    pictures = [picture.path for block in blocks if isinstance(block, Gallery) for picture in block.pictures]
    whole_reasons, class_reasons = _by_reason(reasons)
    render = partial(
        _template().render,
        title=title,
        subtitle=subtitle,
        cards=headline(metrics),
        notes=notes,
        tasks=summary_rows(metrics),
        task_titles=_TASK_TITLES,
        intervals=intervals or {},
        reasons=reasons,
        whole_reasons=whole_reasons,
        class_reasons=class_reasons,
        classes=classes,
        classes_last=any(len(table.rows) + len(without) > _MANY_CLASSES for table, without in classes.values()),
        sections=shown,
        plots={block.path: png_uri(block.path) for block in blocks if isinstance(block, Figure)},
        facts=beside + [Section(name, [Facts(rows)]) for name, rows in (facts or {}).items()],
        recipe_yaml=recipe_yaml,
    )
    around = render(photographs=dict.fromkeys(pictures, ""))
    photographs = jpeg_uris(pictures, MAX_BYTES - len(around.encode()))
    write_text(path, render(photographs=dict(zip(pictures, photographs, strict=False))))
    return path


@cache
def _template() -> Template:
    """The page, which escapes all values but its own style and script."""
    environment = Environment(
        loader=PackageLoader("vertebra_eval.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for kind in (Facts, Figure, Gallery, Table, Text):
        environment.tests[kind.__name__] = lambda block, kind=kind: isinstance(block, kind)
    css, script = (_resource(name) for name in ("report.css", "report.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return environment.get_template("page.html", globals={"css": css, "script": script, "digest": digest})


def _resource(name: str) -> str:
    """Line ends as a browser reads them, so that the hash fits on every system."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _shown(value: object) -> str:
    """A value as text that cannot turn the text around it; what the templates made is done."""
    return value if isinstance(value, Markup) else printable(str(value))


def _is_facts(section: Section) -> bool:
    return all(isinstance(block, Facts) for block in section.blocks)


def _by_reason(reasons: Mapping[str, str]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The metrics of each reason: those over all classes, and those of single classes."""
    whole: dict[str, list[str]] = {}
    single: dict[str, list[str]] = {}
    for key, reason in reasons.items():
        kind = single if "-" in key.partition("/")[2] else whole
        kind.setdefault(reason, []).append(key)
    return whole, single
