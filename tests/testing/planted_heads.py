"""Heads with one mistake each, which a fast check of the conformance kit catches."""

from sample_parts import SampleHead, SampleSemanticHead


class IgnoresValid(SampleHead):
    """Counts every row of the ground truth as an object."""

    def losses(self, raw, batch):
        found = super().losses(raw, batch)
        return found | {"box": found["box"] / batch.gt_boxes.shape[1]}


class ReluOfFeatures(SampleHead):
    def forward(self, features):
        return super().forward({name: one.add_(1) for name, one in features.items()})


class SigmoidOfRaw(SampleHead):
    def predict(self, raw, batch):
        raw[:, : self.num_classes].sub_(1)
        return super().predict(raw, batch)


class Negated(SampleHead):
    def losses(self, raw, batch):
        return {name: -loss for name, loss in super().losses(raw, batch).items()}


class WrongStride(SampleHead):
    def predict(self, raw, batch):
        self.stride *= 2
        try:
            return super().predict(raw, batch)
        finally:
            self.stride //= 2


class Changed(SampleHead):
    def to_instances(self, boxes, scores, classes, size, original):
        return super().to_instances(self.changed(boxes), scores, self.renamed(classes), size, original)

    def changed(self, boxes):
        return boxes

    def renamed(self, classes):
        return classes


class Swapped(Changed):
    def changed(self, boxes):
        return boxes[:, [1, 0, 3, 2]]


class Small(Changed):
    def changed(self, boxes):
        return boxes / 8


class OffByOne(Changed):
    def renamed(self, classes):
        return (classes + 1) % self.num_classes


class InInputPixels(SampleHead):
    def to_instances(self, boxes, scores, classes, size, original):
        found = super().to_instances(boxes, scores, classes, size, size)
        found._image_size = original
        return found


class NothingFound(SampleHead):
    def to_instances(self, boxes, scores, classes, size, original):
        return super().to_instances(boxes, scores - 1, classes, size, original)


class LabelsOffByOne(SampleSemanticHead):
    def predict(self, raw, batch):
        return super().predict(raw.roll(1, dims=1), batch)


class Mirrored(SampleSemanticHead):
    def predict(self, raw, batch):
        return super().predict(raw.flip(3), batch)


PREDICTED = "test_what_is_learned_is_what_is_predicted"
ALONE = "test_leaves_what_others_need_alone"
PLANTED_HEADS = [
    (IgnoresValid, "test_padded_ground_truth_changes_no_loss", "change the loss task/box.*gt_valid is False are not"),
    (ReluOfFeatures, ALONE, "ReluOfFeatures changes the features it is given in place"),
    (SigmoidOfRaw, ALONE, "SigmoidOfRaw.predict changes its raw outputs"),
    (Negated, "test_losses_are_not_negative", "loss task/cls is -.*Is its sign reversed"),
    (WrongStride, PREDICTED, "2 times too large: is the stride"),
    (Swapped, PREDICTED, "x and y are swapped"),
    (Small, PREDICTED, "8 times too small: is the stride"),
    (OffByOne, PREDICTED, "fit, but not the classes: class ids come as 1 for 0.*background"),
    (InInputPixels, PREDICTED, "in pixels of the input; scale them to the original size"),
    (NothingFound, PREDICTED, "no detections at all: all scores are below the threshold"),
    (LabelsOffByOne, PREDICTED, "regions fit, but not the classes: class ids come as 1 for 0"),
    (Mirrored, PREDICTED, "mirrored from left to right"),
]
