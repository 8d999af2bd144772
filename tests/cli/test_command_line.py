"""The command line as a user meets it: what it prints, how it fails, what it leaves behind."""

import json
import subprocess
import sys

import pytest

from vertebra.evaluation.printed import format_metrics

TINY = """
model:
  backbone: {name: ResNet, depth: 18, norm: bn, out_features: [res3, res4, res5]}
  neck: {name: FPN, out_channels: 32}
  heads:
    boxes: {name: RetinaNetHead, num_convs: 1}
data:
  train: {format: shapes, images: 8, split: train, size: 64}
  val: {format: shapes, images: 8, split: val, size: 64}
  train_transforms: [RandomFlip]
  eval_transforms: []
  workers: 0
train: {steps: 3, batch_size: 2}
evaluate: {batch_size: 2, pictures: 2}
"""


@pytest.fixture(scope="module")
def run(command_line):
    """run("train", "tiny.yaml", cwd=folder, code=0): `vertebra train tiny.yaml` there; its (stdout, stderr)."""

    def run(*arguments, cwd, code=0, **settings):
        done = command_line(*arguments, cwd=cwd, code=code, VERTEBRA_CACHE=cwd / "cache", COLUMNS="120", **settings)
        return done.stdout, done.stderr

    return run


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory):
    """A folder with tiny.yaml and a finished run `run`; and what the training printed."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.yaml").write_text(TINY)
    out, _ = run("train", "tiny.yaml", "--output", "run", cwd=folder)
    return folder, out


@pytest.mark.parametrize("arguments", [["--help"], ["plugins"], ["components"], ["components", "RetinaNetHead"]])
def test_answers_without_importing_what_takes_long(arguments):
    code = (
        "import sys\nfrom vertebra.cli import main\n"
        f"sys.argv = ['vertebra', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "slow = {'torch', 'numpy', 'PIL', 'jinja2', 'matplotlib'} & set(sys.modules)\nassert not slow, slow\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_a_reader_that_stops_early_ends_a_command_without_a_word():
    # a process of its own: its standard output is a broken pipe, as in `vertebra components | head -0`
    command = [sys.executable, "-m", "vertebra", "components"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (1, b"")


def test_components_shows_arguments_types_defaults_and_docs(run, tmp_path):
    out, _ = run("components", "RetinaNetHead", cwd=tmp_path)
    assert "num_classes: int (given by the framework)" in out
    assert "score_threshold: float = 0.05" in out
    assert "head of vertebra-retinanet" in out


def test_unknown_component_names_the_nearest(run, tmp_path):
    _, err = run("components", "RetinaNetHaed", cwd=tmp_path, code=2)
    assert "RetinaNetHead" in err


def test_mistakes_of_a_recipe_are_one_message_and_exit_code_2(run, tmp_path):
    (tmp_path / "wrong.yaml").write_text(
        TINY.replace("depth: 18", "detph: 18").replace("batch_size: 2}", "batch_size: two}")
    )
    out, err = run("train", "wrong.yaml", cwd=tmp_path, code=2)
    assert "Traceback" not in err
    assert "wrong.yaml:3" in err
    assert "depth" in err  # the nearest name
    assert "batch_size" in err  # all mistakes at once
    assert not out


def test_training_prints_the_table_and_existing_paths(trained):
    folder, out = trained
    assert "bbox" in out
    assert "AP50" in out
    for name in ("report.html", "metrics.json", "pictures"):
        line = next(line for line in out.splitlines() if line.strip().startswith(name))
        assert (folder / line.split()[1]).exists()


def test_training_without_validation_data_ends_well(run, tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    out, err = run("train", "tiny.yaml", "data.val=null", "train.steps=1", "--output", "run", cwd=tmp_path)
    assert "Traceback" not in err
    assert "run/final.pth" in out.replace("\\", "/")
    assert "metrics.json" not in out


def test_a_second_run_never_overwrites_the_first(run, trained):
    folder, _ = trained
    before = (folder / "run" / "final.pth").read_bytes()
    _, err = run("train", "tiny.yaml", "--output", "run", cwd=folder, code=2)
    assert "--resume" in err
    assert (folder / "run" / "final.pth").read_bytes() == before


@pytest.mark.e2e
def test_the_saved_recipe_trains_to_the_same_weights(run, trained):
    folder, _ = trained
    run("train", "run/recipe.yaml", "--output", "again", cwd=folder)
    import torch

    first, second = (torch.load(folder / name / "final.pth", weights_only=True)["model"] for name in ("run", "again"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_evaluating_the_weights_gives_the_numbers_of_the_training(run, trained):
    folder, _ = trained
    run("evaluate", "run/recipe.yaml", "--weights", "run/final.pth", "--output", "evaluated", cwd=folder)
    first, second = (
        json.loads((folder / name / "metrics.json").read_text()) for name in ("run/evaluation", "evaluated")
    )
    keys = [key for key in first if key.startswith("bbox/")]
    assert keys
    assert {key: first[key] for key in keys} == {key: second[key] for key in keys}


def test_predict_writes_pictures_and_records(run, trained):
    folder, _ = trained
    run("data", "make-shapes", "some", "--images", "2", "--size", "64", cwd=folder)
    out, _ = run(
        "predict", "run/recipe.yaml", "--weights", "run/final.pth", "--score", "0", "--output", "seen",
        "--set", "model.heads.boxes.score_threshold=0",
        "some/images/train", cwd=folder,
    )  # fmt: skip
    assert len(list((folder / "seen").glob("*.png"))) == 2
    records = json.loads((folder / "seen" / "predictions.json").read_text())
    assert records
    assert {"file_name", "category", "bbox", "score"} <= set(records[0])
    assert "2 images" in out
    again = ("predict", "run/recipe.yaml", "--weights", "run/final.pth", "--output", "seen", "some/images/train")
    _, err = run(*again, cwd=folder, code=2)
    assert "already holds predictions" in err


def test_an_unreadable_image_loses_nothing_of_the_others(run, trained):
    folder, _ = trained
    mixed = folder / "mixed"
    mixed.mkdir()
    good = next((folder / "cache").rglob("*.jpg"))
    (mixed / "b_good.jpg").write_bytes(good.read_bytes())
    (mixed / "a_bad.jpg").write_text("no picture")
    arguments = ("predict", "run/recipe.yaml", "--weights", "run/final.pth", "--output", "seen_mixed", "mixed")
    _, err = run(*arguments, cwd=folder, code=2)
    assert "1 of 2 images" in err
    assert "a_bad.jpg" in err
    assert (folder / "seen_mixed" / "b_good.png").is_file()
    assert (folder / "seen_mixed" / "predictions.json").is_file()


def test_predict_without_weights_says_so(run, trained):
    folder, _ = trained
    _, err = run("predict", "tiny.yaml", "cache", cwd=folder, code=2)
    assert "weights" in err or "no image" in err
    assert "Traceback" not in err


def test_data_info_and_show(run, trained):
    folder, _ = trained
    out, _ = run("data", "info", "tiny.yaml", cwd=folder)
    assert "8" in out
    assert "circle" in out
    run("data", "show", "tiny.yaml", "--number", "4", "--output", "sheet.png", cwd=folder)
    assert (folder / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_data_show_overwrites_nothing(run, tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    _, err = run("data", "show", "tiny.yaml", "--output", "tiny.yaml", cwd=tmp_path, code=2)
    assert "already exists" in err
    assert (tmp_path / "tiny.yaml").read_text() == TINY
    _, err = run("data", "show", "tiny.yaml", "--output", "sheet.jpg", cwd=tmp_path, code=2)
    assert ".png" in err
    outs = [run("data", "show", "tiny.yaml", cwd=tmp_path)[0].strip() for _ in range(2)]
    assert outs == ["dataset.png", "dataset-2.png"]


@pytest.mark.parametrize("command", ["compare", "evaluate-results"])
def test_json_never_replaces_a_file(run, tmp_path, command):
    (tmp_path / "mine.yaml").write_text(TINY)
    files = ("a", "b") if command == "compare" else ("--annotations", "a", "--results", "b", "--task", "bbox")
    _, err = run(command, *files, "--json", "mine.yaml", cwd=tmp_path, code=2)
    assert "mine.yaml: exists and does not hold evaluation results" in err
    assert (tmp_path / "mine.yaml").read_text() == TINY


def test_a_place_that_cannot_be_written_is_one_message(run, tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "file").write_text("")
    _, err = run("train", "tiny.yaml", "--output", "file/run", cwd=tmp_path, code=2)
    assert "Traceback" not in err
    assert "file is not a folder, so results cannot go to file/run" in err.replace("\\", "/")


def test_doctor_finds_this_installation_well(run, tmp_path):
    out, _ = run("doctor", cwd=tmp_path)
    assert "All is well" in out
    assert "vertebra-retinanet" in out


def test_train_net_takes_detectron2s_arguments(run, trained, repository):
    folder, _ = trained
    run(
        *("--config-file", "tiny.yaml", "--num-gpus", "1", "--output", "convention", "train.steps", "1", "seed", "3"),
        cwd=folder, script=repository / "tools" / "train_net.py",
    )  # fmt: skip
    assert "seed: 3" in (folder / "convention" / "recipe.yaml").read_text()


def test_undefined_numbers_are_explained_not_minus_one():
    text = format_metrics({"bbox/AP": 0.5, "bbox/APl": None}, {"bbox/APl": "no object is that large"})
    assert "n/a" in text
    assert "no object is that large" in text
    assert "-1" not in text
