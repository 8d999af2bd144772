"""CrowdPose's numbers, those of its own code: https://github.com/Jeff-sjtu/CrowdPose, run on the files made here."""

import json

import numpy as np
import pytest

from vertebra_eval import coco_evaluate, crowdpose_evaluate
from vertebra_eval.command.main import main
from vertebra_eval.crowdpose import CROWDPOSE_SIGMAS
from vertebra_eval.errors import DataError

REFERENCE = {  # its stats with Python's round taken out
    "AP": 0.32454603190639564,
    "AP50": 0.4984644591628179,
    "AP75": 0.44815667363088585,
    "AR": 0.456875,
    "AR50": 0.65,
    "AR75": 0.625,
    "AP_easy": 0.3569616967083479,
    "AP_medium": 0.31211973919723895,
    "AP_hard": 0.385712967418471,
}


def crowd_set(images=60):
    """Persons that stand close to each other, without areas, and poses near them."""
    rng = np.random.default_rng(0)
    annotations, results = [], []
    for image in range(images):
        for _ in range(int(rng.integers(1, 6))):
            x, y, w, h = (int(value) for value in rng.integers([0, 0, 30, 60], [200, 200, 120, 200]))
            points = np.stack([rng.integers(x, x + w, 14), rng.integers(y, y + h, 14), rng.integers(0, 3, 14)], axis=1)
            if rng.random() < 0.1:
                points[:] = 0
            person = {"image_id": image, "category_id": 1, "keypoints": points.reshape(-1).tolist()}
            count = int((points[:, 2] > 0).sum())
            number = len(annotations) + 1
            annotations.append(person | {"id": number, "iscrowd": 0, "bbox": [x, y, w, h], "num_keypoints": count})
            for _ in range(int(rng.integers(0, 3))):
                moved = points.astype(float)
                moved[:, :2] += rng.integers(-12, 13, (14, 2)) * (w + h) / 300
                score = int(rng.integers(1, 1000)) / 1000
                results.append(person | {"score": score, "keypoints": moved.reshape(-1).tolist()})
    index = rng.integers(0, 101, images)
    listed = [
        {"id": number, "file_name": f"{number}.jpg", "height": 400, "width": 400, "crowdIndex": int(value) / 100}
        for number, value in enumerate(index)
    ]
    truth = {"images": listed, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    return truth, results


def test_numbers_are_those_of_its_own_code():
    found = crowdpose_evaluate(*crowd_set())
    assert dict(found) == {f"crowdpose/{name}": value for name, value in REFERENCE.items()}
    assert found.notes == [] and found.reasons == {}


def test_the_area_is_an_option_of_coco_too(tmp_path, capsys):
    truth, results = crowd_set()
    found = coco_evaluate(truth, results, "keypoints", area_of_box=0.53, sigmas=CROWDPOSE_SIGMAS)
    assert found["keypoints/AP"] == REFERENCE["AP"]
    assert coco_evaluate(truth, results, "keypoints", sigmas=CROWDPOSE_SIGMAS)["keypoints/AP"] != REFERENCE["AP"]
    with pytest.raises(DataError, match=r"area_of_box is 0; expected a share of the box's area"):
        coco_evaluate(truth, results, "keypoints", area_of_box=0)
    files = [tmp_path / "gt.json", tmp_path / "dt.json"]
    for path, content in zip(files, (truth, results), strict=True):
        path.write_text(json.dumps(content))
    names = list(map(str, files))
    assert main(["crowdpose", *names]) == 0
    said = capsys.readouterr().out
    assert "0.3245" in said and "AP_hard" in said and "95 % interval of crowdpose/AP:" in said
    sigmas = ["--sigmas", *map(str, CROWDPOSE_SIGMAS)]
    assert main(["coco", *names, "--task", "keypoints", "--area-of-box", "0.53", *sigmas]) == 0
    assert "0.3245" in capsys.readouterr().out


def test_a_level_without_persons_has_a_reason():
    truth, results = crowd_set()
    for image in truth["images"]:
        image["crowdIndex"] = 0.5
    found = crowdpose_evaluate(truth, results)
    assert found["crowdpose/AP_medium"] == REFERENCE["AP"] and found["crowdpose/AP_hard"] is None
    assert found.reasons["crowdpose/AP_hard"] == (
        "none of the 0 images with a crowd index from 0.8 to 1 has a person with labeled keypoints"
    )


def test_what_is_no_crowdpose_is_refused():
    truth, results = crowd_set()
    del truth["images"][3]["crowdIndex"]
    with pytest.raises(DataError, match=r"1 of 60 images have no crowdIndex, .*; the first is image 3"):
        crowdpose_evaluate(truth, results)
    truth, results = crowd_set()
    for record in (*truth["annotations"], *results):
        record["keypoints"] += [1, 1, 2] * 3
    with pytest.raises(DataError, match="17 keypoints; CrowdPose has 14"):
        crowdpose_evaluate(truth, results)
