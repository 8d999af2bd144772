"""`vertebra-eval compare` of segmentation and of several runs, from files of what each image adds."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from vertebra_eval.command.main import main


def run(capsys, *words):
    code = main([str(word) for word in words])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.fixture
def maps(tmp_path):
    """Label images of 12 pictures, and predictions of which a growing part is wrong: folder by name."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, (12, 16, 16)).astype(np.uint8)
    for name, wrong in {"gt": 0, "old0": 0.5, "old1": 0.52, "new0": 0.1, "new1": 0.12}.items():
        (tmp_path / name).mkdir()
        for number, labels in enumerate(truth):
            other = np.where(rng.random(labels.shape) < wrong, rng.integers(0, 3, labels.shape), labels)
            Image.fromarray(other.astype(np.uint8)).save(tmp_path / name / f"{number}.png")
    return tmp_path


def test_semantic_results_are_compared_by_their_sums(maps, capsys):
    for name in ("old0", "old1", "new0", "new1"):
        words = ["semantic", maps / "gt", maps / name, "--classes", 3, "--image-sums", maps / f"{name}.npz"]
        code, out, _ = run(capsys, *words)
        assert code == 0 and f"written: {maps / name}.npz" in out and "95 % interval of sem_seg/mIoU:" in out
    code, out, _ = run(capsys, "compare", maps / "old0.npz", maps / "new0.npz", "--json", maps / "c.json")
    assert code == 0 and "more than noise" in out and "The test covers the choice of images only" in out
    found = json.loads((maps / "c.json").read_text())
    assert found["sem_seg/mIoU"]["noise"] is False and found["info"]["a"] == [str(maps / "old0.npz")]
    sides = ["compare", maps / "old0.npz", maps / "old1.npz", "against", maps / "new0.npz", maps / "new1.npz"]
    code, out, _ = run(capsys, *sides)
    assert code == 0 and "and 2 and 2 runs" in out and "images only" not in out
    assert re.search(r"^pixel_accuracy +0\.\d{4}   0\.\d{4}   \+0", out, re.MULTILINE), "the longest name has room"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a.npz"], r"compare: expected two runs, or two sides with the word against between them, got a.npz"),
        (["a.npz", "b.npz", "c.npz"], r"got a.npz b.npz c.npz\n  compare A B\n  compare A1 A2 A3 against B1"),
        (["a.npz", "against", "b.npz", "against", "c.npz"], r"compare: expected two runs"),
        (["a.npz", "copy.npz", "against", "b.npz"], r"copy.npz has the results of a.npz; several runs of a side"),
        (["a.npz", "b.npz", "--task", "bbox"], r"a.npz: task bbox was not evaluated, only sem_seg"),
        (["a.npz", "b.npz", "--annotations", "gt.json"], r"--annotations: not for sem_seg, whose image sums contain"),
        (["dt.json", "dt.json", "--annotations", "no.json"], r"no.json: no such file; set a COCO ground-truth file"),
        (["a.npz", "c.npz"], r"different ground truth: true pixels of each image and class of them differ"),
        (["a.npz", "dt.json"], r"no task in common: a.npz for sem_seg; dt.json for boxes, masks or keypoints"),
    ],
)
def test_what_cannot_be_compared_is_one_message(maps, capsys, words, said, monkeypatch):
    monkeypatch.chdir(maps)
    for truth, name, to in (("gt", "old0", "a"), ("gt", "new0", "b"), ("new0", "old0", "c")):
        assert run(capsys, "semantic", truth, name, "--classes", 3, "--image-sums", f"{to}.npz")[0] == 0
    (maps / "dt.json").write_text("[]")
    shutil.copy("a.npz", "copy.npz")
    code, _, err = run(capsys, "compare", *words)
    assert code == 2 and err.startswith("vertebra-eval: ")
    assert re.search(said, err), err


@pytest.mark.parametrize(
    ("name", "said"), [("a.txt", "ends in .npz"), ("no/a.npz", "no such folder"), ("gt.npz", "exists")]
)
def test_the_file_of_sums_is_checked_before_anything_is_counted(maps, capsys, name, said, monkeypatch):
    monkeypatch.chdir(maps)
    (maps / "gt.npz").write_text("mine")
    code, _, err = run(capsys, "semantic", "gt", "nowhere", "--classes", 3, "--image-sums", name)
    assert code == 2 and said in err and (maps / "gt.npz").read_text() == "mine"


def test_two_outputs_of_one_name_are_refused(maps, capsys, monkeypatch):
    monkeypatch.chdir(maps)
    words = ["--image-sums", "out.npz", "--json", "./out.npz"]
    code, _, err = run(capsys, "semantic", "gt", "old0", "--classes", 3, *words)
    assert code == 2 and "--image-sums out.npz: --json names the same file" in err and not (maps / "out.npz").exists()


@pytest.mark.parametrize(
    "options", [["--resamples", "-1"], ["--resamples", "1"], ["--resamples", "1e9"], ["--seed", "-1"]]
)
@pytest.mark.parametrize("command", ["semantic", "compare"])
def test_sampling_that_says_nothing_is_refused(maps, capsys, command, options):
    words = [maps / "gt", maps / "old0", "--classes", 3] if command == "semantic" else ["a.npz", "b.npz"]
    with pytest.raises(SystemExit) as end:
        main([command, *map(str, words), *options])
    said = capsys.readouterr().err
    assert end.value.code == 2 and re.search(r"expected (0 for no|a|whole) .*|is not a whole number", said)


def test_json_replaces_its_own_file_alone(maps, capsys, monkeypatch):
    monkeypatch.chdir(maps)
    coco = {"info": {"description": "mine"}, "images": [], "annotations": [], "categories": []}
    (maps / "mine.json").write_text(json.dumps(coco))
    words = ["semantic", "gt", "old0", "--classes", 3, "--json"]
    code, _, err = run(capsys, *words, "mine.json")
    assert code == 2 and "does not hold evaluation results" in err
    assert json.loads((maps / "mine.json").read_text()) == coco
    assert [run(capsys, *words, "own.json")[0] for _ in range(2)] == [0, 0]
