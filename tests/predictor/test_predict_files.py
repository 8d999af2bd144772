"""What `vertebra predict` writes: pictures, videos, COCO JSON, CSV, YOLO text, label maps."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from vertebra import load_recipe
from vertebra.errors import DataError, RecipeError
from vertebra.predictor import Prediction, predict_files
from vertebra.predictor.sources import Frame
from vertebra.predictor.writers import CocoWriter, LabelWriter
from vertebra.structures import Boxes, Instances

ALL = ["pictures", "coco", "yolo", "csv"]


def predict(trained, source, output, **arguments):
    recipe, weights = trained
    arguments = {"score": 0.3, "device": "cpu", **arguments}
    return predict_files(str(recipe), source, weights=str(weights), output=output, **arguments)


def test_every_format_holds_the_same_detections(trained, folder, tmp_path):
    written = predict(trained, folder, tmp_path / "out", save=ALL)
    records = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert len(records) == written.num_detections > 0 and written.num_images == 2
    assert {"image_id", "file_name", "category", "category_id", "bbox", "score"} == set(records[0])
    assert {record["image_id"] for record in records} == {1, 2}
    with (tmp_path / "out" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(records)
    for record, row in zip(records, rows, strict=True):
        x, y, width, height = record["bbox"]
        assert [float(row[name]) for name in ("x0", "y0", "x1", "y1")] == pytest.approx([x, y, x + width, y + height])
        assert (row["category"], row["file_name"]) == (record["category"], record["file_name"])
    for image_id, (name, (height, width)) in enumerate((("a", (64, 96)), ("b", (80, 64))), start=1):
        lines = [line.split() for line in (tmp_path / "out" / "labels" / f"{name}.txt").read_text().splitlines()]
        own = [record for record in records if record["image_id"] == image_id]
        assert len(lines) == len(own)
        for line, record in zip(lines, own, strict=True):
            cx, cy, w, h, score = map(float, line[1:])
            box = [(cx - w / 2) * width, (cy - h / 2) * height, w * width, h * height]
            assert box == pytest.approx(record["bbox"], abs=0.01)
            assert (int(line[0]), score) == (record["category_id"], pytest.approx(record["score"]))
        assert Image.open(tmp_path / "out" / f"{name}.png").size >= (width, height)


@pytest.fixture
def sparse(trained, tmp_path):
    """(recipe, weights) of the detector, trained on a dataset that numbers its classes 31, 7 and 9."""
    content = torch.load(trained[1], weights_only=True)
    facts = {"thing_classes": content["classes"], "thing_dataset_id_to_contiguous_id": {31: 0, 7: 1, 9: 2}}
    torch.save({**content, "metadata": {"birds": facts}}, tmp_path / "sparse.pth")
    return trained[0], tmp_path / "sparse.pth"


def test_category_ids_are_those_of_the_dataset_the_checkpoint_remembers(trained, sparse, folder, tmp_path):
    numbered = {"circle": 31, "square": 7, "star": 9}
    predict(trained, folder, tmp_path / "plain", save=["coco"])
    predict(sparse, folder, tmp_path / "out", save=["coco", "csv", "yolo"])
    plain = json.loads((tmp_path / "plain" / "predictions.json").read_text())
    records = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert len({record["category"] for record in records}) > 1
    assert records == [{**record, "category_id": numbered[record["category"]]} for record in plain]
    with (tmp_path / "out" / "predictions.csv").open() as file:
        assert all(int(row["category_id"]) == numbered[row["category"]] for row in csv.DictReader(file))
    lines = [line for path in (tmp_path / "out" / "labels").iterdir() for line in path.read_text().splitlines()]
    assert {line.split()[0] for line in lines} <= {"0", "1", "2"}  # YOLO's text files count


def test_category_ids_come_from_the_recipes_dataset_where_the_weights_do_not_know(trained, folder, tmp_path):
    categories = [{"id": number, "name": name} for number, name in ((4, "circle"), (17, "square"), (90, "star"))]
    images = [{"id": 1, "file_name": "a.png", "height": 64, "width": 96}]
    (tmp_path / "val.json").write_text(json.dumps({"images": images, "annotations": [], "categories": categories}))
    model = torch.load(trained[1], weights_only=True)["model"]
    torch.save({"model": model, "num_classes": 3}, tmp_path / "imported.pth")
    data = {"data.val": {"format": "coco", "annotations": str(tmp_path / "val.json"), "images": str(folder)}}
    arguments = {"weights": str(tmp_path / "imported.pth"), "save": ["coco"], "score": 0.3, "device": "cpu"}
    predict_files(load_recipe(str(trained[0]), [data]), folder, output=tmp_path / "out", **arguments)
    records = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert records
    assert {(record["category_id"], record["category"]) for record in records} <= {
        (category["id"], category["name"]) for category in categories
    }


class Camera:
    """Two frames of a camera, and then what a test makes of the third; OpenCV's VideoCapture."""

    end = (False, None)

    def __init__(self, source):
        self.opened = source == 3
        self.frames = [np.full((64, 96, 3), value, dtype=np.uint8) for value in (30, 200)]

    def isOpened(self):  # noqa: N802 - OpenCV's word
        return self.opened

    def get(self, what):
        return 0.0  # many cameras do not tell their rate

    def read(self):
        if self.frames:
            return True, self.frames.pop(0)
        if isinstance(self.end, BaseException):
            raise self.end
        return self.end

    def release(self):
        Camera.released += 1


@pytest.mark.parametrize("end", [(False, None), KeyboardInterrupt()], ids=["unplugged", "Ctrl-C"])
def test_a_camera_is_read_until_it_ends_or_is_interrupted(trained, tmp_path, monkeypatch, end):
    cv2 = pytest.importorskip("cv2")
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    monkeypatch.setattr(Camera, "end", end)
    monkeypatch.setattr(Camera, "released", 0, raising=False)
    written = predict(trained, "3", tmp_path / "out", save=ALL)
    assert written.num_images == 2
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "camera_3.mp4",
        "predictions.json",
        "predictions.csv",
        "labels",
    }
    records = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert {record["file_name"] for record in records} == {"camera 3"}
    times = dict(sorted((record["frame"], record["seconds"]) for record in records))  # by the clock
    assert times.keys() <= {0, 1} and times.get(0, 0) == 0 < times.get(1, 1) < 60
    assert sorted(path.name for path in (tmp_path / "out" / "labels").iterdir()) == [
        "camera_3_000000.txt",
        "camera_3_000001.txt",
    ]
    assert Camera.released == 1


def test_a_camera_stops_after_so_many_frames_and_one_that_is_not_there_is_told(trained, tmp_path, monkeypatch):
    cv2 = pytest.importorskip("cv2")
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    monkeypatch.setattr(Camera, "released", 0, raising=False)
    assert predict(trained, 3, tmp_path / "out", save=["csv"], max_images=1).num_images == 1
    assert Camera.released == 1
    with pytest.raises(DataError, match="camera 0: no such camera, or it is in use"):
        predict(trained, 0, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_video_becomes_a_video_and_records_of_its_frames(trained, video, tmp_path):
    cv2 = pytest.importorskip("cv2")
    written = predict(trained, video, tmp_path / "out", save=ALL)
    capture = cv2.VideoCapture(str(tmp_path / "out" / "clip.mp4"))
    assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == 5
    assert (capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (96, 64)
    records = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert {record["frame"] for record in records} == {0, 1, 2, 3, 4}
    assert {record["seconds"] for record in records} == {0, 0.1, 0.2, 0.3, 0.4}
    assert sorted(path.name for path in (tmp_path / "out" / "labels").iterdir())[0] == "clip_000000.txt"
    assert written.num_images == 5


def test_nothing_found_is_an_empty_list_and_empty_files(trained, folder, tmp_path):
    written = predict(trained, folder, tmp_path / "out", score=1.0, save=["coco", "yolo"])
    assert written.num_detections == 0
    assert json.loads((tmp_path / "out" / "predictions.json").read_text()) == []
    assert (tmp_path / "out" / "labels" / "a.txt").read_text() == ""


def test_a_score_below_the_recipes_threshold_reaches_the_head(trained, folder, tmp_path):
    usual = predict(trained, folder, tmp_path / "usual", save=["coco"])
    strict = load_recipe(str(trained[0]), ["model.heads.boxes.score_threshold=0.99"])
    arguments = {"weights": str(trained[1]), "device": "cpu", "save": ["coco"]}
    assert predict_files(strict, folder, output=tmp_path / "strict", score=0.99, **arguments).num_detections == 0
    found = predict_files(strict, folder, output=tmp_path / "found", score=0.3, **arguments)
    assert found.num_detections == usual.num_detections > 0


def test_equal_names_and_earlier_results_are_kept(trained, folder, tmp_path):
    again = tmp_path / "again"
    again.mkdir()
    (again / "a.png").write_bytes((folder / "a.png").read_bytes())
    predict(trained, [folder / "a.png", again / "a.png"], tmp_path / "out")
    assert {"a.png", "a-2.png", "predictions.json"} == {path.name for path in (tmp_path / "out").iterdir()}
    with pytest.raises(DataError, match="already holds predictions"):
        predict(trained, folder, tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_an_image_that_cannot_be_read_is_told_after_the_others(trained, folder, tmp_path):
    (folder / "aa.png").write_text("damaged")
    with pytest.raises(DataError, match=r"1 of 3 images cannot be read; the others are in .*\n.*aa\.png"):
        predict(trained, folder, tmp_path / "out")
    assert (tmp_path / "out" / "b.png").is_file()
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())


def test_what_was_written_before_a_crash_is_complete(trained, folder, tmp_path):
    begun = []

    def crash(path):
        begun.append(path)
        if len(begun) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(trained, folder, tmp_path / "out", on_written=crash)
    assert {record["image_id"] for record in json.loads((tmp_path / "out" / "predictions.json").read_text())} == {1}
    assert not list((tmp_path / "out").glob(".*"))


def test_it_stops_after_so_many_images(trained, video, tmp_path):
    assert predict(trained, video, tmp_path / "out", max_images=2, save=["coco"]).num_images == 2


@pytest.mark.parametrize(
    ("save", "words"),
    [
        (["cocoo"], r"no format is named 'cocoo'.*\n.*coco"),
        (["labels"], r"outputs \(instances\) cannot be saved as labels"),
    ],
)
def test_formats_that_do_not_exist_or_fit_are_refused(trained, folder, tmp_path, save, words):
    with pytest.raises(RecipeError, match=words):
        predict(trained, folder, tmp_path / "out", save=save)
    assert not (tmp_path / "out").exists()


def test_label_maps_hold_the_class_of_each_pixel(tmp_path):
    writer = LabelWriter(tmp_path, [])
    frame = Frame(np.zeros((2, 3, 3), dtype=np.uint8), "x/pic.jpg")
    labels = torch.tensor([[0, 1, 2], [2, 1, 0]])
    writer.add(Prediction(frame, {"sem_seg": labels}))
    writer.add(Prediction(frame, {"sem_seg": torch.nn.functional.one_hot(labels + 298).permute(2, 0, 1).float()}))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "label_maps" / "pic.png")), labels)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "label_maps" / "pic-2.png")), labels + 298)


def test_a_score_that_json_does_not_have_leaves_a_file_that_every_parser_reads(tmp_path):
    frame = Frame(np.zeros((8, 8, 3), np.uint8), "a.png")
    scores = torch.tensor([float("inf"), float("nan"), 0.5])
    found = Instances((8, 8), pred_boxes=Boxes(torch.tensor([[1.0, 1, 5, 5]] * 3)), scores=scores)
    found.pred_classes = torch.zeros(3, dtype=torch.int64)
    writer = CocoWriter(tmp_path, {})
    writer.add(Prediction(frame, {"instances": found}))
    writer.close()
    records = json.loads((tmp_path / "predictions.json").read_text(), parse_constant=pytest.fail)
    assert [record["score"] for record in records] == [float("inf"), None, 0.5]
