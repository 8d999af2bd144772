"""The report in a browser: opened from the disk, without network, clicked."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html import escape, unescape

import pytest
from PIL import Image

pytestmark = pytest.mark.e2e

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
NARROWEST = 500  # pixels; no window of Chromium is narrower
HOOK = """
window.seen = [];
addEventListener("error", (event) => seen.push(`${event.message || "not loaded: " + event.target.tagName}`), true);
addEventListener("unhandledrejection", (event) => seen.push(`${event.reason}`));
addEventListener("securitypolicyviolation", (event) => seen.push(`forbidden: ${event.blockedURI}`));
console.error = (...words) => seen.push(words.join(" "));
"""
TELL = """
addEventListener("load", () => {
  const told = {};
  try { DRIVE } catch (error) { seen.push(`${error}`); }
  told.seen = seen;
  const place = document.createElement("pre");
  place.id = "told";
  place.textContent = JSON.stringify(told);
  document.body.append(place);
});
"""


@pytest.fixture
def browse(tmp_path):
    """Open a copy of a report in a browser, run `drive` when it is loaded, give back what it has put into `told`."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser here (looked for {', '.join(BROWSERS)}); tools/install_browser.sh installs one")

    def run(report, drive="", width=1200):
        copy = tmp_path / "copy.html"
        page = with_scripts(report.read_text(encoding="utf-8"), drive)
        copy.write_text(page if width >= NARROWEST else in_frame(page, width), encoding="utf-8")
        window = f"--window-size={max(width, NARROWEST)},900"
        command = [browser, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", window]
        done = subprocess.run([*command, "--dump-dom", copy.as_uri()], capture_output=True, text=True, timeout=120)
        found = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, re.DOTALL)
        assert found, f"the page did not get to its end:\n{done.stderr[-2000:]}"
        return json.loads(unescape(found[1]))

    return run


def with_scripts(page, drive):
    """The page with a first script that gathers errors and a last one that drives it; its policy allows them too."""
    first, last = HOOK, TELL.replace("DRIVE", drive)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in (first, last)]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    page, count = re.subn(r"(<meta http-equiv=[^>]*script-src )", lambda match: match[1] + allowed + " ", page)
    assert count == 1
    page = page.replace('<meta name="viewport"', f'<script>{first}</script><meta name="viewport"', 1)
    return page.replace("</body>", f"<script>{last}</script></body>")


def in_frame(page, width):
    """A page that shows another one in a frame so wide, and has its findings when that is loaded."""
    tell = "document.body.append(frames[0].document.getElementById('told'))"
    return f'''<body onload="{tell}"><iframe width={width} height=900 frameborder=0 srcdoc="{escape(page)}"></iframe>'''


CLICKS = """
const table = document.querySelector("table.sorts");
const names = () => Array.from(table.tBodies[0].rows, (row) => row.cells[0].textContent);
const click = (column) => {
  table.tHead.rows[0].cells[column].querySelector("button").click();
  return [names(), table.tHead.rows[0].cells[column].getAttribute("aria-sort")];
};
told.before = names();
told.first = click(1);
told.again = click(1);
told.byName = click(0);
told.marked = table.querySelectorAll("[aria-sort]").length;
"""


def test_a_clicked_heading_sorts_its_table(browse, generated_report):
    told = browse(generated_report.path, CLICKS)
    assert told["seen"] == []
    per_class = {key.partition("AP-")[2]: value for key, value in generated_report.metrics.items() if "bbox/AP-" in key}
    best_first = sorted(per_class, key=lambda name: -per_class[name])
    assert set(told["before"]) == set(per_class)
    assert told["first"] == [best_first, "descending"]
    assert told["again"] == [best_first[::-1], "ascending"]
    assert told["byName"] == [sorted(per_class), "ascending"]
    assert told["marked"] == 1


UNDEFINED = """
const table = document.querySelector("table.sorts");
const order = () => Array.from(table.tBodies[0].rows, (row) => row.cells[0].textContent).join("");
told.orders = [0, 1].map(() => { table.tHead.rows[0].cells[2].click(); return order(); });
"""


def test_undefined_numbers_stay_last_and_thousands_are_read(browse, tmp_path):
    from vertebra.evaluation.report import Section, Table, write_report

    rows = [["a", 0.5, 900], ["b", None, None], ["c", 0.25, 12_000], ["d", 0.0, 7]]
    section = Section("Sorted", [Table(["name", "share", "count"], rows, bar_columns=(1,))])
    path = write_report(tmp_path / "r.html", title="t", subtitle="s", metrics={}, reasons={}, sections=[section])
    told = browse(path, UNDEFINED)
    assert told == {"orders": ["cadb", "dacb"], "seen": []}


def test_nothing_is_loaded_and_everything_is_shown(browse, generated_report):
    drive = """
    told.requests = performance.getEntriesByType("resource").filter((one) => !one.name.startsWith("data:")).length;
    told.broken = Array.from(document.images).filter((image) => !image.naturalWidth).length;
    told.images = document.images.length;
    """
    told = browse(generated_report.path, drive)
    assert told["seen"] == [] and told["requests"] == 0 and told["broken"] == 0
    assert told["images"] >= 10  # plots, crops, pictures


PLOTS = """
const place = (image) => {
  const box = image.getBoundingClientRect();
  return [box.left, box.top, box.width, box.height, image.naturalWidth / image.naturalHeight];
};
const images = (row) => Array.from(row.querySelectorAll("img"), place);
told.rows = Array.from(document.querySelectorAll(".plots .row"), images);
"""


def test_two_plots_of_a_row_have_one_height_and_none_is_distorted(browse, generated_report, tmp_path):
    from vertebra.evaluation.report import Figure, Section, write_report

    sizes = {"wide": (900, 300), "high": (500, 800), "square": (400, 400)}  # as a foreign evaluator may draw them
    for name, size in sizes.items():
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    figures = [Figure(tmp_path / f"{name}.png", f"{name}: its caption") for name in sizes]
    section = Section("Plots", figures)
    foreign = write_report(tmp_path / "r.html", title="t", subtitle="s", metrics={}, reasons={}, sections=[section])
    for path, lengths in ((generated_report.path, [2, 1, 2, 1, 1]), (foreign, [2, 1])):
        rows = browse(path, PLOTS)["rows"]
        assert [len(row) for row in rows] == lengths
        for row in rows:
            (x0, y0, w0, h0, _), (x1, y1, _, h1, _) = row[0], row[-1]
            assert abs(h0 - h1) < 1 and y0 == y1 and (len(row) == 1 or x1 > x0 + w0)
            assert all(abs(width / height - aspect) < 0.02 * aspect for _, _, width, height, aspect in row)
        narrow = browse(path, PLOTS, width=420)["rows"]
        assert all(len({left for left, *_ in row}) == 1 and row[0][1] <= row[-1][1] for row in narrow)
    assert rows[1][0][2:4] == [400, 400]  # alone, and not larger than it is


@pytest.mark.parametrize("width", [420, 1200])
def test_the_page_never_scrolls_sideways(browse, generated_report, width):
    drive = "told.inner = innerWidth; told.page = document.documentElement.scrollWidth;"
    told = browse(generated_report.path, drive, width=width)
    assert told["inner"] == width and told["page"] <= width


def test_folded_parts_are_open_while_printing(browse, generated_report):
    drive = """
    const open = () => Array.from(document.querySelectorAll("details"), (one) => one.open);
    told.open = [open()];
    for (const name of ["beforeprint", "afterprint"]) { dispatchEvent(new Event(name)); told.open.push(open()); }
    """
    before, during, after = browse(generated_report.path, drive)["open"]
    assert before and not any(before) and all(during) and after == before


def test_a_script_that_slips_in_does_not_run(browse, generated_report, tmp_path):
    page = generated_report.path.read_text(encoding="utf-8")
    path = tmp_path / "tampered.html"
    path.write_text(page.replace("<main>", "<main><script>window.slipped = true</script>", 1), encoding="utf-8")
    told = browse(path, "told.slipped = Boolean(window.slipped);")
    assert told["slipped"] is False and told["seen"] == ["forbidden: inline"]
