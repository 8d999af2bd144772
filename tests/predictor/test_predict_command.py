"""`vertebra predict` on the command line."""

import json
import subprocess
import sys
from functools import partial

import pytest

from vertebra.errors import DataError, RecipeError


@pytest.fixture
def predict(command_line, trained, tmp_path):
    """predict("images", "--score", "0.3"): runs the command in tmp_path; how it ended."""
    recipe, weights = trained
    command = ("predict", recipe, "--weights", weights, "--device", "cpu")
    return partial(command_line, *command, cwd=tmp_path)


def test_it_names_pictures_results_and_times(predict, folder):
    out = predict("images", "--score", "0.3").stdout.splitlines()
    assert out[:2] == ["predictions/a.png", "predictions/b.png"]
    assert out[2].startswith("2 images, ") and out[2].endswith(
        "detections from score 0.3: predictions/predictions.json"
    )
    assert "images/s; ms per image: read " in out[3] and ", write " in out[3]
    assert predict("images").stdout.startswith("predictions-2/a.png")  # nothing is overwritten


def test_names_on_standard_input_formats_and_a_single_class(predict, folder):
    options = ("-o", "out", "--save", "coco,csv", "--class", "star", "--score", "0.3", "--batch", "2")
    predict("-", *options, stdin="images/b.jpg\nimages/a.png\n")
    records = json.loads((folder.parent / "out" / "predictions.json").read_text())
    assert {record["file_name"] for record in records} <= {"images/b.jpg", "images/a.png"}
    assert {record["category"] for record in records} == {"star"}
    assert sorted(path.name for path in (folder.parent / "out").iterdir()) == ["predictions.csv", "predictions.json"]


@pytest.mark.parametrize("resize", [["--letterbox", "96x160"], ["--stretch", "128"]])
def test_images_are_resized_as_asked_and_boxes_stay_within_them(predict, folder, resize):
    predict("images/a.png", "-o", "out", "--save", "coco", "--score", "0.3", *resize)
    records = json.loads((folder.parent / "out" / "predictions.json").read_text())
    assert records
    for x, y, width, height in (record["bbox"] for record in records):
        assert x >= 0 and y >= 0 and x + width <= 96.01 and y + height <= 64.01


def test_saving_nothing_measures_alone(predict, folder):
    out = predict("images", "--save", "none", "--limit", "1").stdout
    assert "1 images" in out and "nothing written" in out
    assert not (folder.parent / "predictions").exists()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (["--letterbox", "96x"], RecipeError, "--letterbox is '96x'; expected HEIGHTxWIDTH"),
        (["--letterbox", "96", "--stretch", "96"], RecipeError, "cannot be combined"),
        (["--class", "cirle"], DataError, "classes of this model is named 'cirle'"),
        (["--save", "xml"], RecipeError, "no format is named 'xml'"),
    ],
)
def test_wrong_options_are_told_and_nothing_is_written(predict, folder, arguments, error, words):
    failed = predict("images", *arguments, code=2)
    assert isinstance(failed.error, error)
    assert "vertebra: " in failed.stderr and words in failed.stderr
    assert not (folder.parent / "predictions").exists()


@pytest.mark.slow
def test_it_imports_nothing_that_loads_slowly_and_is_not_needed(trained, folder):
    recipe, weights = trained
    arguments = ["predict", str(recipe), str(folder / "a.png"), "--weights", str(weights), "--device", "cpu"]
    arguments += ["--output", str(folder / "out"), "--letterbox", "96x160", "--score", "0.3"]
    slow = ["matplotlib", "numba", "onnx", "onnxruntime", "onnxscript", "pandas", "scipy", "sympy", "tensorboard"]
    slow += ["timm", "torch._dynamo", "torch._inductor", "torch.distributed.fsdp", "torch.distributed.tensor"]
    slow += ["torch.onnx", "torch.utils.tensorboard", "torchvision"]
    code = (
        "import sys\nfrom vertebra.cli import main\n"
        f"sys.argv = ['vertebra', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'torch' in sys.modules\n"
        f"assert not {set(slow)!r} & set(sys.modules), {set(slow)!r} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "out" / "predictions.json").read_text())  # so NMS has run
