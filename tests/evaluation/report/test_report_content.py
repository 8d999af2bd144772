"""What the report holds: mistakes, crops, dataset facts, and no more bytes than promised."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from matching import matches_of
from vertebra.data import Dataset, Metadata
from vertebra.evaluation.ground_truth import GroundTruth
from vertebra.evaluation.report import Facts, Figure, Gallery, Table, Text, dataset_sections
from vertebra.evaluation.report.crops import crop_window, draw_mistakes
from vertebra.evaluation.report.mistakes import Mistake, worst_false, worst_missed
from vertebra.evaluation.report.pictures import expected
from vertebra.structures import BoxMode
from vertebra_eval.coco import DetectionColumns
from vertebra_eval.masks import MaskColumn

CAT, DOG = 0, 1
HERE, ALMOST, FAR = (0, 0, 10, 10), (0, 0, 10, 9), (50, 50, 60, 60)


def texts_of(choose, detections, objects, threshold=0.5, count=9):
    return [mistake.text for mistake in choose(matches_of(detections, objects, 5), 0, threshold, count)]


def test_false_detections_come_surest_first_each_with_its_cause():
    detections = [
        (0, CAT, 0.9, HERE, 0),
        (0, CAT, 0.8, ALMOST, -1),
        (1, DOG, 0.99, ALMOST, -1),
        (2, CAT, 0.7, FAR, -1),
        (3, CAT, 0.6, (0, 0, 10, 3), -1),
        (3, CAT, 0.2, FAR, -1),
    ]
    objects = [(0, CAT, HERE, False), (1, CAT, HERE, False), (2, CAT, HERE, False), (3, CAT, HERE, False)]
    assert texts_of(worst_false, detections, objects) == [
        "dog 0.99, but a cat is annotated (IoU 0.90)",
        "cat 0.80, on an object that another detection has found",
        "cat 0.70, where nothing is annotated",
        "cat 0.60, badly placed: IoU 0.30",
    ]
    assert len(texts_of(worst_false, detections, objects, count=2)) == 2


def test_missed_objects_come_unseen_and_large_first_each_with_its_cause():
    detections = [(0, CAT, 0.3, HERE, 0), (1, DOG, 0.9, ALMOST, -1), (2, CAT, 0.95, HERE, 4)]
    objects = [
        (0, CAT, HERE, False),  # matched, but below the threshold
        (1, CAT, HERE, False),
        (1, CAT, (20, 20, 90, 90), False),
        (2, CAT, ALMOST, False),  # annotated twice
        (2, CAT, HERE, False),
        (3, CAT, HERE, True),  # a crowd cannot be missed
    ]
    assert texts_of(worst_missed, detections, objects) == [
        "cat, no detection here",
        "cat, nearest detection: dog 0.90 (IoU 0.90)",
        "cat, the detection here, cat 0.95 (IoU 0.90), is matched to another object",
        "cat, found with score 0.30 only",
    ]


def test_one_bad_image_does_not_fill_the_gallery():
    detections = [(0, CAT, 0.9 - k / 100, FAR, -1) for k in range(8)] + [(1, CAT, 0.6, FAR, -1)]
    mistakes = worst_false(matches_of(detections, [], 5), 0, 0.5, 5)
    assert [mistake.image for mistake in mistakes] == [0, 0, 1]


@pytest.mark.parametrize(
    ("box", "window"),
    [
        ((40, 40, 60, 60), (20, 20, 80, 80)),  # 20 pixels around, the least
        ((10, 45, 30, 55), (0, 20, 60, 80)),  # moved in, not cut
        ((0, 0, 100, 100), (0, 0, 100, 100)),
        ((95, 95, 140, 140), (0, 0, 100, 100)),  # beyond the image
        ((50, 50, 50, 50), (30, 30, 70, 70)),  # no area
    ],
)
def test_a_crop_shows_the_surroundings_and_stays_inside(box, window):
    x0, y0, x1, y1 = crop_window(np.array(box, float), (100, 100))
    assert np.abs(np.subtract((x0, y0, x1, y1), window)).max() <= 1
    assert 0 <= x0 < x1 <= 100 and 0 <= y0 < y1 <= 100


def test_the_gallery_of_mistakes_has_both_kinds_side_by_side(generated_report):
    section = next(s for s in generated_report.sections if s.title.startswith("Worst mistakes"))
    false, missed = section.blocks
    assert "False detections" in false.explanation and "Missed objects" in missed.explanation
    for gallery in section.blocks:
        assert isinstance(gallery, Gallery) and gallery.pictures
        for picture in gallery.pictures:
            with Image.open(picture.path) as image:
                assert image.width > 1.5 * image.height  # two about square halves beside each other
    page = generated_report.path.read_text(encoding="utf-8")
    assert all(picture.caption in page for gallery in section.blocks for picture in gallery.pictures)


def drawn_crop(folder, masks, keypoints):
    """The two halves of a crop around one object, annotated and detected with mask and keypoint, in a black image."""
    Image.new("RGB", (100, 100)).save(folder / "black.png")
    record = {
        "image_id": 1,
        "file_name": str(folder / "black.png"),
        "height": 100,
        "width": 100,
        "annotations": [
            {
                "bbox": [30, 30, 70, 70],
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": 0,
                "segmentation": [[32, 32, 68, 32, 68, 68, 32, 68]],
                "keypoints": [50, 40, 2],
            }
        ],
    }
    truth = GroundTruth.of_dataset(Dataset([record], Metadata("one").set(thing_classes=["cat"])))
    inside = np.zeros((100, 100, 1), np.uint8)
    inside[32:68, 32:68] = 1
    table = DetectionColumns(
        image=np.zeros(1, np.int64),
        category=np.zeros(1, np.int64),
        boxes=np.array([[30.0, 30.0, 40.0, 40.0]]),
        areas=None,
        scores=np.array([0.9]),
        masks=MaskColumn.of_encoded(coco_mask.encode(np.asfortranarray(inside))) if masks else None,
        keypoints=np.array([[[49.5, 39.5, 1.0]]]) if keypoints else None,
    )
    mistakes = [Mistake(0, np.array([30.0, 30.0, 70.0, 70.0]), "cat")]
    (picture,) = draw_mistakes(mistakes, truth, table, 0.5, folder / "crops", "false")
    with Image.open(picture.path) as image:
        pixels = np.asarray(image)
    middle = pixels.shape[1] // 2
    return pixels[:, :middle], pixels[:, middle:]


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("keypoints", [True, False])
def test_both_halves_of_a_crop_show_the_same_kinds_of_things(tmp_path, masks, keypoints):
    for half in drawn_crop(tmp_path, masks, keypoints):
        height, width = half.shape[:2]
        below = half[int(0.62 * height), width // 2]  # inside the mask, away from box, label and keypoint
        assert below.any() == masks
        white = (half[int(0.4 * height) : int(0.5 * height), int(0.45 * width) : int(0.55 * width)] == 255).all(axis=2)
        assert white.any() == keypoints


def test_boxes_are_compared_without_the_masks_of_the_ground_truth():
    nothing = DetectionColumns(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 4)), None, np.zeros(0))
    annotation = {"bbox": [1, 1, 2, 2], "category_id": 0, "segmentation": [[1, 1, 3, 1, 3, 3]], "keypoints": [1, 1, 2]}
    (drawn,) = expected([annotation], nothing)["annotations"]
    assert "segmentation" not in drawn and "keypoints" not in drawn and drawn["bbox"] == [1, 1, 2, 2]
    nothing.masks = MaskColumn.of_encoded([])
    (drawn,) = expected([annotation], nothing)["annotations"]
    assert "segmentation" in drawn and "keypoints" not in drawn


def dataset_of(annotations, size=(100, 200)):
    """Images of one size (height, width); annotations: one list per image of (box, class, crowd)."""
    dicts = [
        {
            "image_id": number,
            "file_name": f"{number}.png",
            "height": size[0] + 10 * number,
            "width": size[1],
            "annotations": [
                {"bbox": list(box), "bbox_mode": BoxMode.XYXY_ABS, "category_id": label, "iscrowd": crowd}
                for box, label, crowd in boxes
            ],
        }
        for number, boxes in enumerate(annotations)
    ]
    return Dataset(dicts, Metadata("counted").set(thing_classes=["cat", "dog"]))


def test_dataset_facts_are_counted(tmp_path):
    small, large = (0, 0, 20, 20), (0, 0, 97, 97)
    dataset = dataset_of([[(small, 0, 0), (large, 0, 0)], [(large, 1, 0), (large, 1, 1)], []])
    (section,) = dataset_sections(dataset, tmp_path)
    figure, facts, table = section.blocks
    assert isinstance(figure, Figure) and figure.path.is_file()
    assert isinstance(facts, Facts) and facts.rows == {
        "images": "3",
        "image size": "200 to 200 x 100 to 120 pixels, median 200 x 110",
        "images without objects": "1",
        "objects": "3, 1.0 per image",
        "by size": "1 small (33%), 0 medium (0%), 2 large (67%)",
        "crowd regions": "1",
    }
    assert isinstance(table, Table) and table.rows == [["cat", 2, 2 / 3, 1], ["dog", 1, 1 / 3, 1]]


def test_a_dataset_without_objects_has_facts_but_no_classes(tmp_path):
    (section,) = dataset_sections(dataset_of([[]]), tmp_path)
    (facts,) = section.blocks
    assert facts.rows == {"images": "1", "image size": "200 x 100 pixels", "objects": "none"}


def test_a_dataset_that_cannot_be_counted_says_so_and_keeps_the_report(tmp_path):
    right = dataset_of([[((0, 0, 4, 5), 0, 0)]])
    faulty = {**right[0], "annotations": [{**right[0]["annotations"][0], "bbox": [0, 0, float("nan"), 5]}]}
    (section,) = dataset_sections(SimpleNamespace(dicts=[faulty], metadata=right.metadata), tmp_path)
    (text,) = section.blocks
    assert isinstance(text, Text) and "annotation 0" in text.text


def test_the_page_names_nothing_outside_itself(generated_report):
    page = generated_report.path.read_text(encoding="utf-8")
    assert set(re.findall(r'(?:src|href)="(\w+:)', page)) == {"data:"}
    assert "url(" not in page and "@import" not in page and "<link" not in page


@pytest.mark.slow
def test_the_report_of_5000_images_stays_below_5_megabytes(report_of, tmp_path):
    made = report_of(tmp_path, images=5000, classes=80, objects=7, false=20, pictures=64, resamples=100)
    assert made.path.stat().st_size < 5_000_000
    page = made.path.read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") >= 64
