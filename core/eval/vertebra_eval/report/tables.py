"""Tables of a report as HTML: numbers right, undefined ones as a dash, bars behind fractions, headings that sort."""

from __future__ import annotations

from html import escape

from vertebra_eval.report.blocks import Facts, Table

__all__ = ["cell", "facts_table", "number", "table"]

_FEWEST_SORTED = 3  # fewer rows are in view at once
_MOST_IN_VIEW = 40  # a longer table scrolls in its own box


def table(content: Table) -> str:
    """A table block. With headings and some rows it has the class `sorts`, for which the page's script looks."""
    head = ""
    if any(content.columns):
        cells = "".join(_heading(content, column, name) for column, name in enumerate(content.columns))
        head = f"<thead><tr>{cells}</tr></thead>"
    rows = []
    for row in content.rows:
        first, *rest = row
        cells = "".join(cell(value, bar=column in content.bar_columns) for column, value in enumerate(rest, start=1))
        rows.append(f"<tr><th>{escape(str(first))}</th>{cells}</tr>")
    sorts = ' class="sorts"' if head and len(rows) >= _FEWEST_SORTED else ""
    long = " long" if head and len(rows) > _MOST_IN_VIEW else ""
    return f'<div class="scroll{long}"><table{sorts}>{head}<tbody>{"".join(rows)}</tbody></table></div>'


def facts_table(facts: Facts) -> str:
    """Names and values, without headings."""
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts.rows.items())
    return f'<table class="pairs">{rows}</table>'


def cell(value: object, bar: bool = False) -> str:
    """One cell; a fraction may have a bar as long as it is large."""
    if isinstance(value, str):
        return f"<td>{escape(value)}</td>"
    if value is None or isinstance(value, int) or not bar:
        return f'<td class="number">{number(value)}</td>'
    width = 100 * min(max(value, 0.0), 1.0)
    return f'<td class="number"><span class="bar" style="--w:{width:.1f}%">{number(value)}</span></td>'


def number(value: object) -> str:
    """Counts as they are, others with three decimals, None as a dash."""
    if value is None:
        return '<span class="none" title="undefined">&ndash;</span>'
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3f}"


def _heading(content: Table, column: int, name: str) -> str:
    """Above texts a heading stands left, above numbers right."""
    texts = column > 0 and content.rows and all(isinstance(row[column], str) for row in content.rows)
    return f'<th scope="col"{" class=text" if texts else ""}>{escape(name)}</th>'
