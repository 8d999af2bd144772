"""Curves, plots, the choice of pictures, and the HTML made of them."""

import numpy as np
import pytest
from PIL import Image

from matching import matches_by_state
from vertebra.evaluation import COCOEvaluator
from vertebra.evaluation.report import Figure, Gallery, Picture, Section, Table, Text, write_report
from vertebra.evaluation.report.pictures import choose_images
from vertebra_eval.report.plot_files import write_plots
from vertebra_eval.report.plots import class_bars, pr_curves, score_histogram

SMALL, MEDIUM = (10, 10, 30, 30), (10, 10, 60, 60)


def test_best_threshold_is_where_f1_is_largest():
    assert matches_by_state([0.9, 0.8, 0.7, 0.2], [1, 1, 0, 0], num_truth=2).best_threshold(0) == 0.8
    assert matches_by_state([0.9, 0.8, 0.7], [1, 0, 1], num_truth=2).best_threshold(0) == 0.7
    assert (
        matches_by_state([0.9, 0.5, 0.5], [1, 1, 0], num_truth=2).best_threshold(0) == 0.5
    )  # cannot part the two at 0.5
    assert matches_by_state([0.9], [0], num_truth=1).best_threshold(0) is None
    assert matches_by_state([0.9, 0.3], [-1, 1], num_truth=1).best_threshold(0) == 0.3  # one on a crowd does not count


def test_errors_by_image_count_false_and_missed():
    table = matches_by_state([0.9, 0.8, 0.4], [1, 0, 1], num_truth=3, images=[0, 1, 0], num_images=2)
    false, missed = table.errors_by_image(0, score=0.5)
    assert false.tolist() == [0, 1] and missed.tolist() == [2, 0]  # the one at 0.4 is below the threshold


def test_mean_of_the_pr_curve_is_ap(by_hand):
    evaluator = COCOEvaluator(by_hand.dataset({1: [(SMALL, 0), (MEDIUM, 1)], 2: [(MEDIUM, 0)]}, ["a", "b", "none"]))
    metrics = by_hand.run(evaluator, {1: [(SMALL, 0.9, 0), (SMALL, 0.5, 1)], 2: [((10, 10, 60, 50), 0.8, 0)]})
    result = evaluator.arrays["bbox"]
    assert result.pr_curve().mean() == pytest.approx(metrics["bbox/AP"], abs=1e-12)
    assert result.pr_curve(0.75).mean() == pytest.approx(metrics["bbox/AP75"], abs=1e-12)
    assert result.pr_curve(0.33) is None


def test_chosen_images_are_the_worst_then_a_spread_without_repeats():
    errors = np.array([0, 3, 0, 0, 9, 0, 0, 1, 0, 0])
    chosen = choose_images(errors, 6)
    assert chosen[:3] == [4, 1, 7] and len(set(chosen)) == 6
    assert choose_images(errors, 6) == chosen
    assert sorted(choose_images(errors, 50)) == list(range(10))
    assert choose_images(np.zeros(0, np.int64), 4) == []
    assert choose_images(np.zeros(9, np.int64), 3) == [0, 4, 8]


def test_plots_of_nothing_are_left_out(by_hand, tmp_path):
    evaluator = COCOEvaluator(by_hand.dataset({1: []}, ["a"]))
    by_hand.run(evaluator, {1: []})
    result = evaluator.arrays["bbox"]
    nothing = (pr_curves(result), score_histogram(result, None), class_bars(["a"], [None], [None]))
    assert nothing == (None, None, None)
    assert write_plots([("plot", plot, "caption") for plot in nothing], tmp_path / "plots") == []
    assert not (tmp_path / "plots").exists()


def test_bars_of_many_classes_stay_readable(tmp_path):
    values = list(np.linspace(0, 1, 300))
    bars = class_bars([f"class {i}" for i in range(300)], values, values)
    (figure,) = write_plots([("many", bars, "caption")], tmp_path)
    with Image.open(figure.path) as image:
        assert image.height < 2500


def test_names_that_no_font_can_draw_are_escaped_in_plots(tmp_path):
    bars = class_bars(["a\udcffb", "a\x1bb", "a\u202eb"], [0.3, 0.2, 0.1], [None] * 3)
    assert [label.get_text() for label in bars.axes[0].get_yticklabels()] == [r"a\udcffb", r"a\x1bb", r"a\u202eb"]
    (figure,) = write_plots([("names", bars, "caption")], tmp_path)
    assert figure.path.is_file()


def sizes_of(figures):
    """(width, height) of each plot in pixels."""
    sizes = []
    for figure in figures:
        with Image.open(figure.path) as image:
            sizes.append(image.size)
    return sizes


def test_two_plots_of_a_row_get_one_height_and_the_odd_one_the_whole_row(tmp_path):
    def plots(*counts):
        return [(f"{n}", class_bars([f"{i}" for i in range(n)], [0.5] * n, [0.5] * n), f"of {n}") for n in counts]

    figures = write_plots(plots(3, 12, 30, 2, 4), tmp_path)
    assert [(figure.path.name, figure.caption) for figure in figures[:2]] == [("3.png", "of 3"), ("12.png", "of 12")]
    (w0, h0), (w1, h1), (w2, h2), (w3, h3), (w4, h4) = sizes_of(figures)
    assert h0 == h1 and h2 == h3 and h4 < h0 < h2
    assert w0 == w1 == w2 == w3 and 2 * w0 < w4 < 2.1 * w0
    assert sizes_of(write_plots(plots(4), tmp_path, facts_beside=True)) == [(w0, h4)]


def report(path, **changes):
    arguments = {"title": "t", "subtitle": "s", "metrics": {"bbox/AP": 0.5}, "reasons": {}} | changes
    return write_report(path, **arguments).read_text(encoding="utf-8")


def test_what_users_write_is_escaped(tmp_path):
    evil = "<img src=x onerror=alert(1)>&"
    page = report(
        tmp_path / "r.html",
        title=evil,
        subtitle=evil,
        metrics={f"bbox/AP-{evil}": 0.5, "bbox/AP": None},
        reasons={"bbox/AP": evil},
        notes=[evil],
        sections=[Section(evil, [Text(evil), Table([evil], [[evil, evil]])])],
        facts={evil: {evil: evil}},
        recipe_yaml=evil,
    )
    assert "<img src=x" not in page and page.count("&lt;img src=x onerror=alert(1)&gt;&amp;") >= 10


def test_too_many_pictures_are_shrunk_and_then_left_out(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (600, 900, 3), dtype=np.uint8)  # does not compress
    Image.fromarray(noise).save(tmp_path / "noise.png")
    pictures = [Picture(tmp_path / "noise.png", f"number {i}") for i in range(3)]
    monkeypatch.setattr("vertebra_eval.report.html.MAX_BYTES", 260_000)
    page = report(tmp_path / "r.html", sections=[Section("Pictures", [Gallery([pictures[0]])])])
    assert len(page) < 260_000 and page.count("data:image/jpeg") == 1
    page = report(tmp_path / "r.html", sections=[Section("Pictures", [Gallery(distinct(tmp_path, noise))])])
    assert len(page) < 260_000 and "more pictures are in the folder beside this file" in page


def distinct(folder, noise):
    pictures = []
    for i in range(6):
        Image.fromarray(noise).save(folder / f"{i}.png")
        pictures.append(Picture(folder / f"{i}.png", f"number {i}"))
    return pictures


def test_plots_stand_where_the_first_is(tmp_path):
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    figures = [Figure(tmp_path / "a.png", "first"), Figure(tmp_path / "a.png", "second")]
    page = report(tmp_path / "r.html", sections=[Section("Plots", [Text("before"), *figures, Text("after")])])
    places = [page.index(f">{word}<") for word in ("before", "first", "second", "after")]
    assert places == sorted(places)


def test_undefined_numbers_are_dashes_with_their_reason(tmp_path):
    page = report(tmp_path / "r.html", metrics={"bbox/AP": None, "bbox/AP-cat": None}, reasons={"bbox/AP": "because"})
    assert "&ndash;" in page and "because" in page and "Without a number: cat." in page
