"""One self-contained HTML file about an evaluation: no network, images inside, below 5 MB; works without its script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path

from vertebra_eval.report.blocks import Facts, Figure, Gallery, Section, Table, Text
from vertebra_eval.report.embed import jpeg_uris, png_uri
from vertebra_eval.report.metric_tables import class_table, headline, summary_rows
from vertebra_eval.report.page import page
from vertebra_eval.report.tables import cell, facts_table, number, table

__all__ = ["write_report"]

MAX_BYTES = 4_800_000
_CAPTION_BYTES = 1000  # at most, of what stands around a photograph
_MANY_CLASSES = 20  # from here on their table comes behind the plots and pictures
_TASK_TITLES = {
    "bbox": "Boxes",
    "segm": "Masks",
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
    """Write the report.

    Args:
        title, subtitle: above everything; the subtitle says which data and model.
        metrics, reasons: as an evaluator gives them: `<task>/<name>` -> fraction or None; reason of each None.
        notes: what a reader should know before trusting the numbers.
        intervals: metric -> (low, high), 95 % over images.
        sections: the evaluators' plots, pictures and tables.
        facts: further tables of name and value by title (run, versions).
        recipe_yaml: the resolved recipe.
    """
    body = [_header(title, subtitle, metrics), _notes(notes), _summary(metrics, reasons, intervals or {})]
    by_task = {task: class_table(metrics, task) for task in dict.fromkeys(key.split("/")[0] for key in metrics)}
    classes = [_classes(task, rows) for task, rows in by_task.items() if rows is not None]
    long = any(rows is not None and len(rows.rows) > _MANY_CLASSES for rows in by_task.values())
    body += [] if long else classes
    known = [Section(name, [Facts(rows)]) for name, rows in (facts or {}).items()]
    beside = [section for section in sections if _is_facts(section)] + known
    inside = "".join(_section(section, {}) for section in beside)
    tail = [*(classes if long else []), _reasons(reasons), f'<div class="facts">{inside}</div>' if beside else ""]
    if recipe_yaml:
        tail.append(
            f"<section><h2>Recipe</h2><details><summary>the whole recipe, resolved</summary>"
            f"<pre>{escape(recipe_yaml)}</pre></details></section>"
        )
    figures = {
        block.path: png_uri(block.path) for section in sections for block in section.blocks if isinstance(block, Figure)
    }
    shown = [section for section in sections if not _is_facts(section)]
    used = [page(title, body + tail), *(_section(section, figures) for section in shown)]  # all but photographs
    galleries = [block for section in shown for block in section.blocks if isinstance(block, Gallery)]
    pictures = [picture.path for gallery in galleries for picture in gallery.pictures]
    budget = MAX_BYTES - sum(len(part.encode()) for part in used) - _CAPTION_BYTES * len(pictures)
    photographs = dict(zip(pictures, jpeg_uris(pictures, budget), strict=False))  # those that fit
    body += [_section(section, figures | photographs) for section in shown]
    path.write_text(page(title, body + tail), encoding="utf-8")
    return path


def _header(title: str, subtitle: str, metrics: Mapping[str, float | None]) -> str:
    cards = "".join(
        f'<div class="card"><div class="value">{number(value)}</div><div class="label">{escape(label)}</div></div>'
        for label, value in headline(metrics)
    )
    heading = f'<h1>{escape(title)}</h1><p class="subtitle">{escape(subtitle)}</p>'
    return f'<header>{heading}<div class="cards">{cards}</div></header>'


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    return f'<section class="notes"><h2>Please note</h2><ul>{_items(notes)}</ul></section>'


def _summary(
    metrics: Mapping[str, float | None], reasons: Mapping[str, str], intervals: Mapping[str, tuple[float, float]]
) -> str:
    tasks = summary_rows(metrics)
    if not tasks:
        return "<section><h2>Summary</h2><p>No evaluator gave a number.</p></section>"
    parts = []
    for task, rows in tasks.items():
        body = "".join(
            f"<tr><th>{escape(name)}</th>{cell(value, bar=True)}<td class='meaning'>{_interval(intervals, task, name)}"
            f"{escape(meaning if value is not None else reasons.get(f'{task}/{name}', meaning))}</td></tr>"
            for name, value, meaning in rows
        )
        heading = f"<h3>{escape(_TASK_TITLES.get(task, task))}</h3>"
        parts.append(f'<div class="task">{heading}<table class="summary">{body}</table></div>')
    explained = (
        '<p class="without">Intervals are bootstrap intervals over images, nominally 95 %. With few '
        "images a class they hold the number that all images would give less often than that: in simulations 92 % of "
        "the time with 3 classes on 80 images, 78 % with 20 classes on 100, 13 % with 80 classes on 100.</p>"
        if intervals
        else ""
    )
    return f'<section><h2>Summary</h2><div class="columns">{"".join(parts)}</div>{explained}</section>'


def _interval(intervals: Mapping[str, tuple[float, float]], task: str, name: str) -> str:
    ends = intervals.get(f"{task}/{name}")
    return "" if ends is None else f'<span class="interval">{ends[0]:.3f} to {ends[1]:.3f}</span> '


def _classes(task: str, content: Table) -> str:
    """The classes that have a number as a table, the names of the others as a sentence."""
    defined = [row for row in content.rows if any(value is not None for value in row[1:])]
    without = [str(row[0]) for row in content.rows if all(value is None for value in row[1:])]
    shown = table(replace(content, rows=defined)) if defined else ""
    names = f"<p class='without'>Without a number: {escape(', '.join(without))}.</p>" if without else ""
    return f"<section><h2>Classes: {escape(_TASK_TITLES.get(task, task).lower())}</h2>{shown}{names}</section>"


def _reasons(reasons: Mapping[str, str]) -> str:
    """Reasons of the numbers over all classes, and folded away those of single classes."""
    if not reasons:
        return ""
    whole = {key: reason for key, reason in reasons.items() if "-" not in key.partition("/")[2]}
    single = {key: reason for key, reason in reasons.items() if key not in whole}
    shown = _reason_list(whole) if whole else ""
    if single:
        summary = f"{len(single)} numbers of single classes"
        shown += f"<details><summary>{summary}</summary>{_reason_list(single)}</details>"
    return f"<section><h2>Why some numbers do not exist</h2>{shown}</section>"


def _reason_list(reasons: Mapping[str, str]) -> str:
    by_reason: dict[str, list[str]] = {}
    for key, reason in reasons.items():
        by_reason.setdefault(reason, []).append(key)
    items = []
    for reason, keys in by_reason.items():
        more = f" and {len(keys) - 4} more" if len(keys) > 4 else ""
        items.append(f"<li><code>{escape(', '.join(keys[:4]))}{more}</code> {escape(reason)}</li>")
    return f"<ul class='reasons'>{''.join(items)}</ul>"


def _is_facts(section: Section) -> bool:
    return all(isinstance(block, Facts) for block in section.blocks)


def _section(section: Section, uris: Mapping[Path, str]) -> str:
    """Plots stand side by side where the first one is, and facts beside them."""
    blocks = []
    plots = [block for block in section.blocks if isinstance(block, Figure)]
    beside = [block for block in section.blocks if isinstance(block, (Figure, Facts))] if plots else []
    for block in section.blocks:
        if isinstance(block, Text):
            blocks.append(f"<p>{escape(block.text)}</p>")
        elif isinstance(block, Table):
            blocks.append(table(block))
        elif isinstance(block, Gallery):
            blocks.append(_gallery(block, uris))
        elif plots and block is plots[0]:
            inside = "".join(
                facts_table(one) if isinstance(one, Facts) else _figure(uris[one.path], one.caption) for one in beside
            )
            blocks.append(f'<div class="plots">{inside}</div>')
        elif isinstance(block, Facts) and not plots:
            blocks.append(facts_table(block))
    return f"<section><h2>{escape(section.title)}</h2>{''.join(blocks)}</section>"


def _gallery(gallery: Gallery, uris: Mapping[Path, str]) -> str:
    shown = [picture for picture in gallery.pictures if picture.path in uris]
    inside = "".join(_zooming(uris[picture.path], picture.caption) for picture in shown)
    left_out = len(gallery.pictures) - len(shown)
    more = (
        f"<p>{left_out} more pictures are in the folder beside this file; they would make it too large.</p>"
        if left_out
        else ""
    )
    return f'<p>{escape(gallery.explanation)}</p><div class="gallery">{inside}</div>{more}'


def _figure(uri: str, caption: str) -> str:
    return f'<figure><img src="{uri}" alt="{escape(caption)}"><figcaption>{escape(caption)}</figcaption></figure>'


def _zooming(uri: str, caption: str) -> str:
    """A picture that fills the window when it is clicked, and shrinks again; a checkbox does it, no script."""
    text = escape(caption)
    image = f'<label><input type="checkbox" aria-label="enlarge {text}"><img src="{uri}" alt="{text}"></label>'
    return f"<figure>{image}<figcaption>{text}</figcaption></figure>"


def _items(texts: Sequence[str]) -> str:
    return "".join(f"<li>{escape(text)}</li>" for text in texts)
