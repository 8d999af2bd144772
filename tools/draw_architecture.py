"""Draws docs/images/architecture.svg: the packages of the core on their floors, with arrows for what imports what.

    python tools/draw_architecture.py            write the picture
    python tools/draw_architecture.py --check    write nothing; exit with code 1 if the picture differs from the imports

Every arrow is an import in the source, also one inside a function or for type annotations. An import that a chain of
other arrows already implies is not drawn. Floors with single modules are one box. The order of the floors, `LAYERS`, is
the one that tests/whole/test_layers.py holds the imports to.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterable, Iterator
from html import escape
from itertools import pairwise
from pathlib import Path

__all__ = ["LAYERS", "PICTURE", "imported_modules", "main", "picture", "top_levels"]

ROOT = Path(__file__).resolve().parents[1]
PICTURE = Path("docs/images/architecture.svg")
LAYERS = {
    "foundation": {"errors", "files", "printable", "traces", "_deprecation"},
    "names, recipes": {"registry", "plugins", "config", "_torch"},
    "machine, objects": {"runtime", "structures"},
    "detection parts": {"detection"},
    "data, models": {"data", "models"},
    "pictures": {"visualize"},
    "evaluation": {"evaluation"},
    "training": {"engine"},
    "applications": {"export", "predictor", "testing", "scaffold"},
    "command line": {"cli", "__main__"},
}
"""Floors from the bottom to the top, each with its packages and modules; imports go down or stay on the floor."""

WIDTH, LEFT, RIGHT = 950, 146, 720  # of the picture; of the floors' inside, where boxes stand
BOX, ROW, GAP, SPACE = 34, 62, 14, 26  # heights of a box, a row of boxes, the gap of two floors; space between boxes
LINE, LETTER = 18, 7.6  # height of a line of text and width of a letter, at 13 pixels
EVAL = "vertebra_eval"
STYLE = """
text { font: 13px Verdana, "DejaVu Sans", sans-serif; fill: #1c2733; }
.name { font-weight: bold; text-anchor: middle; }
.floor { font-size: 11px; fill: #5b6b7b; }
.note { font-size: 11px; fill: #44525f; text-anchor: middle; }
.band { fill: #f1f4f8; stroke: #d5dde6; }
.box { fill: #ffffff; stroke: #2f6fab; stroke-width: 1.5; }
.eval { fill: #e5f3ea; stroke: #2d8a57; stroke-width: 1.5; }
.plugins { fill: #fdf1df; stroke: #c9822b; stroke-width: 1.5; }
.arrow { fill: none; stroke: #51677d; stroke-width: 1.4; marker-end: url(#head); }
.plugin-arrow { stroke: #c9822b; }
"""


def imported_modules(path: Path) -> set[str]:
    """Every module that a file imports, inside functions too; `from a import b` counts as a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def top_levels(core: Path) -> set[str]:
    """The names of a package's own packages and modules, without `__init__`."""
    return {path.relative_to(core).parts[0].removesuffix(".py") for path in core.rglob("*.py")} - {"__init__"}


def _box_of(root: Path) -> dict[str, str]:
    """Top-level package or module -> its box: itself, or the names of its floor if single modules are on it."""
    core, found = root / "core" / "vertebra", {}
    for names in LAYERS.values():
        single = any((core / f"{name}.py").exists() for name in names)
        ordered = sorted(names, key=lambda name: (not (core / name).is_dir(), name.startswith("_"), name))
        found |= {name: ", ".join(ordered) if single else name for name in names}
    return found


def _imports(folders: Iterable[Path], box_of: dict[str, str]) -> Iterator[tuple[Path, str]]:
    """Files below the folders, each with a box that it imports from."""
    for path in sorted(path for folder in folders for path in folder.rglob("*.py")):
        for module in sorted(imported_modules(path)):
            top, _, rest = module.partition(".")
            name = rest.split(".")[0]
            if top == EVAL:
                yield path, EVAL
            elif top == "vertebra" and name in box_of:
                yield path, box_of[name]


def _core_arrows(root: Path, box_of: dict[str, str]) -> set[tuple[str, str]]:
    """(importer, imported) boxes, without the arrows that a chain of others implies."""
    core, arrows = root / "core" / "vertebra", set()
    for path, target in _imports([core], box_of):
        own = box_of.get(path.relative_to(core).parts[0].removesuffix(".py"))
        if own not in (None, target):
            arrows.add((own, target))

    def reached(start: str) -> set[str]:
        following = {target for own, target in arrows if own == start}
        return following.union(*map(reached, following))

    return {
        (own, target)
        for own, target in arrows
        if not any(target in reached(between) for other, between in arrows if other == own and between != target)
    }


def _rows(box_of: dict[str, str], arrows: set[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Rows of boxes from the top, each with its floor's label; what is imported on its own floor stands a row lower."""
    rows: list[tuple[str, list[str]]] = []
    for label, names in reversed(LAYERS.items()):
        left = {box_of[name] for name in names}
        while left:
            row = sorted(box for box in left if not any((other, box) in arrows for other in left))
            assert row, f"circular imports between {sorted(left)}"
            rows.append((label, row))
            left -= set(row)
    return [*rows, (EVAL, [EVAL])]


def _columns(rows: list[list[str]], arrows: set[tuple[str, str]]) -> dict[tuple[str, int], float]:
    """x of each box's center, and of each arrow where it crosses a row (`own>target`), by name and row.

    Crossing arrows take a place in the row like a box. Places are ordered by the mean of what they connect to.
    """
    row_of = {box: number for number, row in enumerate(rows) for box in row}
    places = [list(row) for row in rows]
    links: list[tuple[tuple[str, int], tuple[str, int]]] = []
    for own, target in sorted(arrows):
        last = (own, row_of[own])
        for number in range(row_of[own] + 1, row_of[target]):
            places[number].append(f"{own}>{target}")
            links.append((last, (f"{own}>{target}", number)))
            last = (f"{own}>{target}", number)
        links.append((last, (target, row_of[target])))
    x = {(name, number): LEFT + 9.0 * at for number, row in enumerate(places) for at, name in enumerate(row)}
    for sweep in range(60):
        down = sweep % 2 == 0
        for number in range(len(places)) if down else range(len(places) - 1, -1, -1):
            wanted = {}
            for name in places[number]:
                above = [x[a] for a, b in links if b == (name, number)]
                below = [x[b] for a, b in links if a == (name, number)]
                ends = (above if down else below) or above or below
                ends = above + below if sweep >= 24 else ends  # by then the order is good, and lines are straightened
                wanted[name] = round(sum(ends) / len(ends), 3)
            if sweep < 24:
                row = sorted(wanted, key=lambda name: (wanted[name], name))
                step = (RIGHT - LEFT) / len(row)
                places[number], wanted = row, {name: LEFT + step * (at + 0.5) for at, name in enumerate(row)}
            _place(places[number], number, wanted, x)
    return x


def _place(row: list[str], number: int, wanted: dict[str, float], x: dict[tuple[str, int], float]) -> None:
    """Gives a row's boxes and crossing arrows their x: near the wanted ones, in order and apart."""
    halves = {name: (SPACE if ">" in name else _size(name)[0] + SPACE) / 2 for name in row}
    right = _apart(row, halves, wanted)
    mirrored = _apart(row[::-1], halves, {name: LEFT + RIGHT - wanted[name] for name in row})
    mean = {name: (right[name] + LEFT + RIGHT - mirrored[name]) / 2 for name in row}
    back = _apart(row[::-1], halves, {name: LEFT + RIGHT - at for name, at in _apart(row, halves, mean).items()})
    x.update({(name, number): LEFT + RIGHT - back[name] for name in row})


def _apart(row: list[str], halves: dict[str, float], wanted: dict[str, float]) -> dict[str, float]:
    """The wanted places, pushed to the right as far as they need to be apart."""
    found, edge = {}, float(LEFT)
    for name in row:
        found[name] = max(wanted[name], edge + halves[name])
        edge = found[name] + halves[name]
    return found


def _lines(box: str) -> list[str]:
    """The text of a box: a package's name, or several names in lines of at most about 50 letters."""
    lines = [""]
    for name in box.split(", "):
        if len(lines[-1]) + len(name) > 50:
            lines.append("")
        lines[-1] += f"{', ' if lines[-1] else ''}{name}"
    return lines


def _size(box: str) -> tuple[float, float]:
    lines = _lines(box)
    width = 460 if box == EVAL else max(96, max(map(len, lines)) * LETTER * 1.15 + 20)
    return width, BOX + LINE * (1 if box == EVAL else len(lines) - 1)


def picture(root: Path) -> str:
    """The picture as SVG."""
    box_of = _box_of(root)
    arrows = _core_arrows(root, box_of)
    rows = _rows(box_of, arrows)
    x = _columns([row for _, row in rows], arrows)
    plugin_files = _imports(sorted(root.glob("plugins/*/vertebra_*")), box_of)
    plugin_targets = {target for _, target in plugin_files}
    tops, bands, at = [], [], 16.0
    for number, (label, row) in enumerate(rows):
        height = max(_size(box)[1] for box in row) + ROW - BOX
        if number and rows[number - 1][0] == label:
            bands[-1][2] += height
            bands[-1][3] |= set(row)
        else:
            at += GAP if number else 0
            bands.append([label, at, height, set(row)])
        tops.append(at + (ROW - BOX) / 2)
        at += height
    body = []
    for label, top, height, boxes in bands:
        body.append(_rect("band", LEFT - 134, top, RIGHT - LEFT + 150, height, 6))
        body.append(_text("floor", LEFT - 122, top + height / 2 + 4, "" if label == EVAL else label))
        if boxes & plugin_targets:
            middle = top + height / 2
            body.append(f'<path class="arrow plugin-arrow" d="M{WIDTH - 172} {middle:.0f}H{RIGHT + 19}"/>')
    row_of = {box: number for number, (_, row) in enumerate(rows) for box in row}
    for own, target in sorted(arrows):
        body.append(_arrow(own, target, row_of, tops, x))
    for box, number in row_of.items():
        body += _box(box, x[box, number], tops[number])
    body += _plugins(bands[0][1], bands[-2][1] + bands[-2][2])
    head = '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    size = f'viewBox="0 0 {WIDTH} {at + 16:.0f}" width="{WIDTH}" height="{at + 16:.0f}"'
    top = f"""<svg xmlns="http://www.w3.org/2000/svg" {size}>
<title>The packages of Vertebra, and what each imports</title>
<style>{STYLE}</style>
<defs>{head}<path d="M0 0L8 4L0 8z" fill="#51677d"/></marker></defs>
<rect width="100%" height="100%" fill="#ffffff"/>
"""
    return top + "\n".join(body) + "\n</svg>\n"


def _arrow(own: str, target: str, row_of: dict[str, int], tops: list[float], x: dict[tuple[str, int], float]) -> str:
    """A line from the bottom of one box to the top of another, through its places in the rows between."""
    start, end = row_of[own], row_of[target]
    name = f"{own}>{target}"
    crossings = [(x[name, number], tops[number]) for number in range(start + 1, end)]
    ends = [(x[own, start], tops[start]), *crossings, (x[target, end], tops[end])]
    points = [(_port(own, x[own, start], ends[1][0]), tops[start] + _size(own)[1])]
    for across, top in crossings:
        points += [(across, top - 4), (across, top + BOX + 4)]
    points.append((_port(target, x[target, end], ends[-2][0]), tops[end] - 1))
    path = f"M{points[0][0]:.0f} {points[0][1]:.0f}"
    for (x0, y0), (x1, y1) in pairwise(points):
        middle = (y0 + y1) / 2
        path += f"C{x0:.0f} {middle:.0f} {x1:.0f} {middle:.0f} {x1:.0f} {y1:.0f}"
    return f'<path class="arrow" d="{path}"/>'


def _port(box: str, center: float, toward: float) -> float:
    """Where on a box's edge an arrow starts or ends: as near to its other end as the box is wide."""
    reach = _size(box)[0] / 2 - 14
    return center + max(-reach, min(reach, (toward - center) * 0.6))


def _box(box: str, center: float, top: float) -> list[str]:
    width, height = _size(box)
    found = [_rect("eval" if box == EVAL else "box", center - width / 2, top, width, height, 5)]
    found += [_text("name", center, top + 22 + LINE * n, line) for n, line in enumerate(_lines(box))]
    if box == EVAL:
        found.append(
            _text("note", center, top + 22 + LINE, "every floor may import it; it imports neither torch nor vertebra")
        )
    return found


def _plugins(top: float, bottom: float) -> list[str]:
    left, width = WIDTH - 172, 156
    notes = (
        "one distribution each,",
        "found by entry points;",
        "they import public",
        "names of the core",
        "and no other plugin",
    )
    middle = (top + bottom) / 2
    found = [
        _rect("plugins", left, top, width, bottom - top, 5),
        _text("name", left + width / 2, middle - 60, "plugins"),
    ]
    return found + [_text("note", left + width / 2, middle - 36 + 16 * n, note) for n, note in enumerate(notes)]


def _rect(kind: str, x: float, y: float, width: float, height: float, radius: float) -> str:
    return f'<rect class="{kind}" x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" rx="{radius}"/>'


def _text(kind: str, x: float, y: float, text: str) -> str:
    return f'<text class="{kind}" x="{x:.0f}" y="{y:.0f}">{escape(text)}</text>'


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Draw the packages of the core and what imports what.")
    parser.add_argument("--check", action="store_true", help="Write nothing; exit with code 1 if the picture is old.")
    check = parser.parse_args(arguments).check
    wanted, path = picture(ROOT), ROOT / PICTURE
    if check and (not path.exists() or path.read_text(encoding="utf-8") != wanted):
        print(f"{PICTURE} differs from the imports; run `python tools/draw_architecture.py` and commit it")
        return 1
    if not check:
        path.write_text(wanted, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
