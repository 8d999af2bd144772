"""Sections about errors in the report: what is drawn, and the text where nothing can be."""

from PIL import Image

from vertebra.evaluation.report import Figure, Table, Text, write_report
from vertebra_eval.coco import coco_evaluate
from vertebra_eval.report.analysis_section import analysis_sections


def sections(truth, results, folder):
    return analysis_sections("boxes", coco_evaluate(truth, results, "bbox").result, folder)


def blocks_of(found, kind):
    return [block for section in found for block in section.blocks if isinstance(block, kind)]


def test_errors_confusion_calibration_and_sizes_are_shown(hand, tmp_path):
    found = sections(*hand.many(30, seed=0), tmp_path)
    assert [section.title for section in found] == ["Errors: boxes", "Sizes: boxes"]
    assert [figure.path.name for figure in blocks_of(found, Figure)] == [
        *("bbox_errors.png", "bbox_calibration.png", "bbox_confusion.png")
    ]
    errors, *_, sizes = blocks_of(found, Table)
    assert [row[0] for row in errors.rows] == ["class", "localization", "both", "duplicate", "background", "missed"]
    assert [row[0].partition(",")[0] for row in sizes.rows] == ["all", "small", "medium", "large"]


def test_many_classes_stay_readable_and_the_report_small(hand, tmp_path):
    classes = [f"class {number}" for number in range(60)]
    found = sections(*hand.many(200, seed=0, classes=classes), tmp_path / "plots")
    with Image.open(tmp_path / "plots" / "bbox_confusion.png") as image:
        assert max(image.size) < 1800
    intervals = {"bbox/AP": (0.25, 0.5)}
    path = write_report(
        tmp_path / "report.html", title="t", subtitle="s", metrics={"bbox/AP": 0.4}, reasons={}, sections=found,
        intervals=intervals,
    )  # fmt: skip
    page = path.read_text(encoding="utf-8")
    assert len(page) < 1_000_000 and "0.250 to 0.500" in page


def test_without_detections_the_reasons_stand_in_place_of_plots(hand, tmp_path):
    found = sections(hand.truth([(1, 1, (0, 0, 20, 20))]), [], tmp_path)
    told = " ".join(text.text for text in blocks_of(found, Text))
    assert "No confusion matrix: there are no detections at all" in told and "No calibration" in told
    errors = blocks_of(found, Table)[0]
    assert errors.rows[-1][:3] == ["missed", 1, 1.0]  # without the object nothing is wrong


def test_without_objects_there_is_no_section(hand, tmp_path):
    assert sections(hand.truth([], images=[1]), [], tmp_path) == []
