"""The command `vertebra-eval`: every kind of evaluation, its options, and one message for what a user can fix."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from vertebra_eval import coco_evaluate, lvis_evaluate, voc_evaluate
from vertebra_eval.command.main import main
from vertebra_eval.label_maps import semantic_evaluate


@pytest.fixture
def files(coco, tmp_path):
    """Ground truth and results of a generated set, written to files."""
    gt, dt = coco.make_set(3, "segm", images=6, categories=3, first_id=1)
    for name, content in (("gt", gt), ("dt", dt)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path / "gt.json", tmp_path / "dt.json"


def run(capsys, *words):
    code = main([str(word) for word in words])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_coco_prints_and_writes_the_numbers(files, capsys, tmp_path):
    options = ["--task", "segm", "--resamples", "0", "--json", tmp_path / "out.json"]
    code, out, _ = run(capsys, "coco", *files, *options)
    expected = coco_evaluate(*map(str, files), "segm")
    written = json.loads((tmp_path / "out.json").read_text())
    assert code == 0 and {name: written[name] for name in expected} == dict(expected)
    assert f"{expected['segm/AP']:.4f}" in out and "segm/AP-" not in out
    names = [category["name"] for category in json.loads(files[0].read_text())["categories"]]
    assert not any(f"  {name}  AP " in out for name in names)
    out = run(capsys, "coco", *files, "--per-class", "--resamples", "0")[1]
    assert all(re.search(rf"^  {name} +AP ", out, re.MULTILINE) for name in names)


def test_options_of_coco_reach_the_evaluation(files, capsys, tmp_path):
    words = ["--max-dets", 1, 7, 300, "--iou", 0.75, 0.5, "--areas", "tiny:0:400", "big:400:1e9", "--pooled"]
    words += ["--confidence", "best", "--resamples", 0, "--json", tmp_path / "out.json"]
    assert run(capsys, "coco", *files, *words)[0] == 0
    expected = coco_evaluate(
        *map(str, files),
        max_dets=(1, 7, 300),
        iou_thresholds=[0.5, 0.75],
        area_ranges={"all": (0, 1e10), "tiny": (0, 400), "big": (400, 1e9)},
        use_categories=False,
        confidence="best",
    )
    written = json.loads((tmp_path / "out.json").read_text())
    assert {name: written[name] for name in expected} == dict(expected)
    assert {"bbox/AR7", "bbox/AP_tiny", "bbox/AR_big", "bbox/F1"} < set(written)


def test_the_report_has_the_plots_and_is_never_written_over_a_file(files, capsys, tmp_path):
    code, out, _ = run(capsys, "coco", *files, "--report", tmp_path / "r.html", "--resamples", 0)
    assert code == 0 and f"written: {tmp_path / 'r.html'}" in out
    page = (tmp_path / "r.html").read_text()
    assert "data:image/png" in page and "dt.json" in page
    assert (tmp_path / "r_plots" / "bbox_pr_curves.png").is_file()
    code, _, err = run(capsys, "coco", *files, "--report", tmp_path / "r.html")
    assert code == 2 and "r.html exists; choose another name" in err


def test_lvis_and_voc(files, capsys, tmp_path):
    gt, dt = files
    for command, function in (("lvis", lvis_evaluate), ("voc", voc_evaluate)):
        code, _, _ = run(capsys, command, gt, dt, "--json", tmp_path / f"{command}.json")
        written = json.loads((tmp_path / f"{command}.json").read_text())
        expected = dict(function(str(gt), str(dt)))
        assert code == 0 and {name: written[name] for name in expected} == expected


@pytest.fixture
def maps(tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("gt", "pred"):
        (tmp_path / folder).mkdir()
    truth = [rng.integers(0, 3, (8, 9)).astype(np.uint8) for _ in range(3)]
    found = [np.where(rng.random((8, 9)) < 0.8, one, rng.integers(0, 4, (8, 9))).astype(np.uint8) for one in truth]
    truth[0][0] = 255
    for number in range(3):
        Image.fromarray(truth[number]).save(tmp_path / "gt" / f"{number}.png")
        Image.fromarray(found[number]).save(tmp_path / "pred" / f"{number}.png")
    return tmp_path, np.stack(truth), np.stack(found)


def test_semantic_counts_pixels(maps, capsys):
    folder, truth, found = maps
    (folder / "names.txt").write_text("road\nsky\ntree\n")
    words = ["semantic", folder / "gt", folder / "pred", "--classes", folder / "names.txt", "--json", folder / "o.json"]
    assert run(capsys, *words)[0] == 0
    written, use = json.loads((folder / "o.json").read_text()), truth != 255
    for number, name in enumerate(("road", "sky", "tree")):
        both = ((truth == number) & (found == number) & use).sum()
        either = (((truth == number) | (found == number)) & use).sum()
        assert written[f"sem_seg/IoU-{name}"] == pytest.approx(both / either)
    assert written["sem_seg/pixel_accuracy"] == pytest.approx((truth == found)[use].mean())


def test_label_images_that_do_not_fit_are_named(maps):
    folder, _, _ = maps
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "pred" / "0.png")
    Image.fromarray(np.full((8, 9), 7, np.uint8)).save(folder / "gt" / "1.png")
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(folder / "pred" / "2.png")
    with pytest.raises(Exception, match=r"(?s)3 faults.*8x8 pixels .* 9x8.*label 7 is not one of the 3 cla.*mode RGB"):
        semantic_evaluate(folder / "gt", folder / "pred", 3)
    (folder / "pred" / "0.png").unlink()
    with pytest.raises(Exception, match=r"0\.png: has no prediction"):
        semantic_evaluate(folder / "gt", folder / "pred", 3)


def test_compare_says_whether_it_is_noise(files, capsys, tmp_path):
    gt, dt = files
    words = ["compare", dt, dt, "--annotations", gt, "--task", "segm", "--resamples", 100]
    code, out, _ = run(capsys, *words, "--json", tmp_path / "c.json")
    assert code == 0 and "there is no difference" in out
    assert json.loads((tmp_path / "c.json").read_text())["segm/AP"]["difference"] == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["coco", "missing.json", "dt.json"], r"missing\.json: no such annotation file"),
        (["coco", "gt.json", "gt.json"], "record 0 .*: has no score"),
        (["semantic", "gt", "pred", "--classes", "none.txt"], "expected a number, or a text file with a name per line"),
        (["compare", "dt.json", "dt.json"], "set it with --annotations"),
        (["coco", "gt.json", "dt.json", "--json", "gt.json"], "does not hold evaluation results"),
    ],
)
def test_what_a_user_can_fix_is_one_message(files, capsys, monkeypatch, words, says):
    monkeypatch.chdir(files[0].parent)
    code, out, err = run(capsys, *words)
    assert code == 2 and not out and err.startswith("vertebra-eval: ") and re.search(says, err)


def test_it_runs_without_torch(files):
    code = "import sys; sys.modules['torch'] = sys.modules['vertebra'] = None\n"
    code += "from vertebra_eval.command.main import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, "coco", *map(str, files), "--resamples", "0"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and done.stdout.startswith("bbox")


@pytest.mark.parametrize("twice", [["a:0:10", "a:10:1000"], ["all:0:10"]])
def test_a_name_of_two_area_ranges_is_refused(files, capsys, twice):
    code, _, err = run(capsys, "coco", *files, "--areas", *twice)
    assert code == 2 and "give each a name of its own" in err
