"""Images in, detections out in the images' own pixels, however they were resized and padded."""

import numpy as np
import pytest
import torch

from vertebra import Predictor
from vertebra.data.transforms import ResizeLetterbox, ResizeStretch
from vertebra.detection import Suppression
from vertebra.errors import DataError, RecipeError
from vertebra.models import DetectionHead, Head, Model, ResNet
from vertebra.predictor import StageTimes
from vertebra.predictor.settings import look_from_score, set_thresholds


def detections(output):
    found = output["instances"]
    return found.pred_boxes.tensor, found.scores, found.pred_classes


def test_files_arrays_and_tensors_give_the_same(predictor, folder, pixels):
    array = pixels(64, 96, 1)
    outputs = [
        predictor(folder / "a.png"),
        predictor(array),
        predictor(torch.from_numpy(array.copy()).permute(2, 0, 1)),
    ]
    assert len(outputs[0]["instances"]) > 0
    for other in outputs[1:]:
        for one, two in zip(detections(outputs[0]), detections(other), strict=True):
            assert torch.equal(one, two)


def test_a_padded_input_gives_what_the_unpadded_gives(trained, pixels):
    """96 x 128 in a letterbox of 160 x 128: the same pixels, and gray below. Away from the padding nothing changes."""
    image = np.zeros((96, 128, 3), dtype=np.uint8)
    image[:40] = pixels(40, 128)
    plain = Predictor(*trained, device="cpu", transforms=[])
    padded = Predictor(*trained, device="cpu", transforms=[ResizeLetterbox([160, 128], pad_value=0)])
    inside = padded._input(image)
    assert inside["image"].shape == (3, 160, 128) and inside["content_size"] == (96, 128)
    boxes = [detections(one(image))[0] for one in (plain, padded)]
    assert all(len(found) for found in boxes)
    for found in boxes:
        assert (found >= 0).all() and (found[:, [1, 3]] <= 96).all() and (found[:, [0, 2]] <= 128).all()


@pytest.mark.parametrize("transform", [ResizeLetterbox(192), ResizeStretch([96, 160]), ResizeLetterbox(256, pad=False)])
def test_boxes_come_back_to_the_pixels_of_the_image(trained, pixels, transform):
    """A head that marks the whole image must give the whole image back, whatever was done to it before."""
    predictor = Predictor(*trained, device="cpu", transforms=[transform])

    def whole(raw, batch):
        from vertebra.detection import rescale_instances
        from vertebra.structures import Boxes, Instances

        found = []
        for (height, width), original in zip(batch.image_sizes, batch.original_sizes, strict=True):
            box = Boxes(torch.tensor([[0.0, 0, width, height], [width / 4, height / 2, width / 2, height]]))
            one = Instances((height, width), pred_boxes=box, scores=torch.ones(2), pred_classes=torch.zeros(2).long())
            found.append({"instances": rescale_instances(one, *original)})
        return found

    predictor.model.heads["boxes"].predict = whole
    boxes, _, _ = detections(predictor(pixels(60, 100)))
    torch.testing.assert_close(boxes, torch.tensor([[0.0, 0, 100, 60], [25, 30, 50, 60]]))


def test_transforms_that_cannot_be_undone_are_refused(trained, pixels):
    predictor = Predictor(*trained, device="cpu", transforms=[ResizeLetterbox(192, center=True)])
    with pytest.raises(RecipeError, match="ResizeLetterbox without `center`"):
        predictor(pixels(60, 100))


def test_thresholds_are_obeyed(trained, pixels):
    image = pixels(96, 96)
    scores = detections(Predictor(*trained, device="cpu", score_threshold=0.4)(image))[1]
    loose = detections(Predictor(*trained, device="cpu", nms_threshold=0.9)(image))[1]
    usual = detections(Predictor(*trained, device="cpu")(image))[1]
    strict = detections(Predictor(*trained, device="cpu", nms_threshold=0.1, class_agnostic_nms=True)(image))[1]
    assert 0 < len(scores) < len(usual) or float(usual.min()) > 0.4
    assert float(scores.min()) > 0.4
    assert len(strict) < len(usual) <= len(loose)
    assert len(detections(Predictor(*trained, device="cpu", max_detections=3)(image))[0]) == 3


class PartsWithThresholds(Head):
    """Predicts nothing itself; what is inside it has an `nms_threshold`, and one part is a head."""

    def __init__(self, inner: Head):
        super().__init__()
        self.inner = inner
        self.part = torch.nn.Identity()
        self.part.nms_threshold = 0.7


def test_a_threshold_is_changed_in_heads_alone():
    heads = {"boxes": PartsWithThresholds(DetectionHead(3))}
    model = Model(ResNet(18), heads=heads)
    set_thresholds(model, nms_threshold=0.25, class_agnostic_nms=True)
    head = heads["boxes"]
    assert head.part.nms_threshold == 0.7  # not of the detections, such as a region proposal network's
    assert head.inner.suppression.nms_threshold == head.inner.nms_threshold == 0.25
    assert head.inner.suppression.class_agnostic is True


def test_a_head_without_thresholds_has_them_in_its_parts():
    heads = {"boxes": PartsWithThresholds(torch.nn.Identity()), "own": PartsWithThresholds(Suppression())}
    set_thresholds(Model(ResNet(18), heads=heads), nms_threshold=0.25, class_agnostic_nms=True)
    assert heads["boxes"].part.nms_threshold == heads["own"].inner.nms_threshold == 0.25
    assert heads["own"].inner.class_agnostic is True
    look_from_score(Model(ResNet(18), heads=heads), 0.01)
    assert heads["own"].inner.score_threshold == 0.01


def test_a_threshold_that_no_head_has_is_refused():
    model = Model(ResNet(18), heads={"boxes": PartsWithThresholds(torch.nn.Identity())})
    del model.heads["boxes"].part.nms_threshold
    with pytest.raises(RecipeError, match=r"nms_threshold cannot be set: no head.*boxes \(PartsWithThresholds\)"):
        set_thresholds(model, nms_threshold=0.5)


def test_a_stream_gives_each_image_with_its_origin_and_times(predictor, folder, video):
    times = StageTimes()
    found = list(predictor.stream([folder, video], batch_size=2, times=times))
    assert [prediction.frame.name.rpartition("/")[2] for prediction in found] == ["a.png", "b.jpg"] + ["clip.mp4"] * 5
    assert all("instances" in prediction.outputs for prediction in found)
    assert times.images == 7
    assert all(times.seconds[stage] > 0 for stage in ("read", "preprocess", "model", "postprocess"))
    assert "images/s" in str(times)


def test_a_stream_equals_single_predictions(predictor, folder):
    for prediction in predictor.stream(folder):
        for one, two in zip(detections(prediction.outputs), detections(predictor(prediction.frame.image)), strict=True):
            assert torch.equal(one, two)


def test_a_stream_reads_no_further_than_it_is_asked(predictor, folder):
    (folder / "c.png").write_text("damaged")
    stream = predictor.stream(folder)
    next(stream)
    next(stream)
    with pytest.raises(DataError, match=r"c\.png"):
        next(stream)


def test_classes_by_name_or_number(predictor, folder):
    everything = {label for one in predictor.stream(folder) for label in detections(one.outputs)[2].tolist()}
    assert len(everything) > 1
    for wanted, number in (("circle", 0), (2, 2), ("1", 1)):
        for prediction in predictor.stream(folder, classes=[wanted]):
            assert set(detections(prediction.outputs)[2].tolist()) <= {number}
    with pytest.raises(DataError, match=r"classes of this model is named 'cirle'.*\n.*Nearest: circle"):
        next(predictor.stream(folder, classes=["cirle"]))
    with pytest.raises(DataError, match="classes of this model is named '7'"):
        next(predictor.stream(folder, classes=[7]))


def test_scores_below_are_left_out(predictor, folder):
    for prediction in predictor.stream(folder, score=0.5):
        assert (detections(prediction.outputs)[1] >= 0.5).all()
