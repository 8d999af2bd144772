"""Transforms for images with labels: windows, padding, bending and turning."""

import numpy as np
import pytest
import torch

from vertebra.config import load_recipe
from vertebra.data import Mapper, Metadata
from vertebra.data.transforms import (
    ClassBalancedCrop,
    ElasticDeform,
    GaussianNoise,
    PadTo,
    RandomGamma,
    RandomQuarterTurn,
    RandomRotation,
    RandomScaleCrop,
    Sample,
)
from vertebra.errors import DataError, RecipeError
from vertebra.registry import TRANSFORMS

EVERY = [
    RandomScaleCrop([13, 17]),
    RandomScaleCrop(16, max_class_share=0.5),
    ClassBalancedCrop([9, 21], min_scale=0.5, max_scale=2.0),
    PadTo([20, 8], multiple=16),
    PadTo(center=True, size=11),
    ElasticDeform(),
    ElasticDeform(sigma=3, grid=4, border="fill"),
    RandomRotation(180),
    RandomRotation([-10, 30], border="mirror"),
    RandomQuarterTurn(),
    RandomGamma(),
    GaussianNoise(10),
]


def name_of(transform):
    return type(transform).__name__


def sample_of(height, width, labels=None, **fields):
    """Every channel of a pixel says where it is and which class it has, so that both can be followed."""
    if labels is None:
        labels = torch.arange(height * width, dtype=torch.uint8).reshape(height, width) % 5
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack((rows, columns, labels))
    return Sample(image.to(torch.uint8), sem_seg=labels.to(torch.uint8), **fields)


def run(transform, sample, seed=0):
    return transform(sample, np.random.default_rng(seed))


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (7, 3), (40, 25)])
@pytest.mark.parametrize("transform", EVERY, ids=name_of)
def test_images_of_any_size_stay_bytes_and_agree_with_their_labels(transform, size):
    for seed in range(5):
        sample = run(transform, sample_of(*size), seed)
        assert sample.image.dtype == torch.uint8 and sample.image.shape[0] == 3
        assert sample.sem_seg.dtype == torch.uint8
        assert sample.sem_seg.shape == sample.image.shape[1:]
        assert min(sample.size) >= 1


@pytest.mark.parametrize("transform", EVERY, ids=name_of)
def test_the_generator_alone_decides(transform):
    first, second = run(transform, sample_of(30, 40), 3), run(transform, sample_of(30, 40), 3)
    assert torch.equal(first.image, second.image) and torch.equal(first.sem_seg, second.sem_seg)


@pytest.mark.parametrize("transform", EVERY, ids=name_of)
def test_images_without_labels_and_with_nothing_but_ignored_ones_pass(transform):
    ignored = run(transform, sample_of(20, 20, torch.full((20, 20), 255)))
    assert (ignored.sem_seg == 255).all()
    bare = Sample(torch.zeros(3, 20, 20, dtype=torch.uint8))
    if isinstance(transform, ClassBalancedCrop):
        with pytest.raises(DataError, match="semantic labels, but this dataset has none"):
            run(transform, bare)
    else:
        assert run(transform, bare).sem_seg is None


@pytest.mark.parametrize("transform", EVERY, ids=name_of)
def test_recipes_find_them_by_name(transform):
    assert TRANSFORMS.get(name_of(transform)) is type(transform)


def test_a_scale_crop_has_its_size_and_pads_labels_with_255():
    for seed in range(30):
        sample = run(RandomScaleCrop([24, 32], 0.5, 2.0), sample_of(30, 30), seed)
        assert sample.size == (24, 32)
        padded = sample.sem_seg == 255
        assert (sample.image[:, padded] == 124).all()
        rows, columns = (~padded).any(1).nonzero(), (~padded).any(0).nonzero()
        assert not padded[: rows.max() + 1, : columns.max() + 1].any()  # to the right and the bottom only


def test_a_crop_at_scale_1_is_a_window_of_the_image():
    sample = run(RandomScaleCrop([8, 9], 1.0, 1.0), sample_of(30, 40))
    top, left = sample.image[0, 0, 0], sample.image[1, 0, 0]
    whole = sample_of(30, 40)
    assert torch.equal(sample.image, whole.image[:, top : top + 8, left : left + 9])
    assert torch.equal(sample.sem_seg, whole.sem_seg[top : top + 8, left : left + 9])
    assert np.allclose(sample.matrix @ [int(left), int(top), 1], [0, 0, 1])


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_cutting_before_resizing_gives_the_picture_of_resizing_before_cutting(scale):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 6, 8, generator=generator) * 255
    image = torch.nn.functional.interpolate(coarse, (96, 128), mode="bicubic").clamp(0, 255).to(torch.uint8)[0]
    whole = Sample(image.clone()).resize(round(96 * scale), round(128 * scale))
    compared = 0
    for seed in range(20):
        sample = run(RandomScaleCrop([32, 40], scale, scale), Sample(image.clone()), seed)
        left, top = -sample.matrix[:2, 2]
        if left % 1 or top % 1:
            continue  # half a pixel of the resized image beside any of its windows
        wanted = whole.image[:, int(top) : int(top) + 32, int(left) : int(left) + 40]
        difference = (sample.image.int() - wanted.int()).abs()
        assert difference[:, 2:-2, 2:-2].max() <= 1  # at the border there is less to interpolate from
        compared += 1
    assert compared >= 3


def test_windows_of_one_class_are_drawn_anew_while_tries_last():
    labels = torch.zeros(40, 40)
    labels[:, 20:] = 1
    patient = RandomScaleCrop(16, 1.0, 1.0, max_class_share=0.75, tries=100)
    hasty = RandomScaleCrop(16, 1.0, 1.0, max_class_share=0.75, tries=1)
    shares = [
        [run(transform, sample_of(40, 40, labels), seed).sem_seg.float().mean() for seed in range(40)]
        for transform in (patient, hasty)
    ]
    assert all(0.25 <= share <= 0.75 for share in shares[0])
    assert any(share in (0, 1) for share in shares[1])


def test_where_all_is_one_class_the_last_window_is_taken():
    assert run(RandomScaleCrop(16, max_class_share=0.5), sample_of(40, 40, torch.ones(40, 40))).size == (16, 16)


def test_rare_classes_are_seen_as_often_as_common_ones():
    labels = torch.zeros(100, 100)
    labels[70, 3] = 7  # a single pixel
    labels[:10] = 255
    seen = [7 in run(ClassBalancedCrop(10), sample_of(100, 100, labels), seed).sem_seg for seed in range(200)]
    assert 0.4 < np.mean(seen) < 0.6
    anywhere = [7 in run(ClassBalancedCrop(10, prob=0), sample_of(100, 100, labels), s).sem_seg for s in range(200)]
    assert np.mean(anywhere) < 0.1


def test_the_chosen_pixel_lies_anywhere_in_the_window():
    labels = torch.zeros(50, 50)
    labels[25, 25] = 1
    places = set()
    for seed in range(300):
        found = (run(ClassBalancedCrop(5), sample_of(50, 50, labels), seed).sem_seg == 1).nonzero()
        places |= {tuple(place) for place in found.tolist()}
    assert places == {(row, column) for row in range(5) for column in range(5)}


def test_padding_reaches_a_size_and_a_multiple():
    assert run(PadTo([20, 8], multiple=16), sample_of(7, 30)).size == (32, 32)
    assert run(PadTo(multiple=32), sample_of(1, 33)).size == (32, 64)
    sample = run(PadTo(5, center=True, pad_value=9), sample_of(2, 3))
    assert (sample.sem_seg[1:3, 1:4] != 255).all() and (sample.sem_seg == 255).sum() == 19
    assert (sample.image[:, 0] == 9).all()


def test_bent_labels_follow_the_bent_image():
    labels = torch.zeros(96, 96, dtype=torch.uint8)
    labels[30:70, 40:60] = 1
    image = (labels * 200).expand(3, 96, 96).clone()
    sample = run(ElasticDeform(sigma=8), Sample(image, sem_seg=labels))
    agree = (sample.image[0] > 100) == (sample.sem_seg == 1)
    assert agree.float().mean() > 0.99  # but for pixels on the border, which are interpolated
    assert not torch.equal(sample.sem_seg, labels)
    assert abs(int(sample.sem_seg.sum()) - 800) < 300


def test_bending_moves_by_about_its_deviation_and_never_at_0():
    same = run(ElasticDeform(sigma=0), sample_of(50, 50))
    assert torch.equal(same.image, sample_of(50, 50).image)
    moves = []
    for seed in range(40):
        sample = run(ElasticDeform(sigma=4, grid=3), sample_of(101, 101), seed)
        moves.append(float(sample.image[1, 50, 50]) - 50)  # the column that the middle, a point of the grid, came from
    assert 2.5 < np.std(moves) < 6


@pytest.mark.parametrize("transform", [ElasticDeform(sigma=6), RandomRotation(40), RandomRotation(40, border="mirror")])
def test_boxes_polygons_and_points_go_where_their_pixels_go(transform):
    for seed in range(5):
        mask = torch.zeros(80, 100, dtype=torch.uint8)
        mask[30:50, 40:70] = 1
        corners = np.array([[40.0, 30], [70, 30], [70, 50], [40, 50]])
        fields = {"boxes": np.array([[40.0, 30, 70, 50]]), "rows": np.arange(1)}
        points = np.array([[[41.0, 31, 2], [69, 49, 2]]])
        drawn = run(transform, Sample(mask.expand(3, 80, 100) * 255, bitmasks=mask[None].clone(), **fields), seed)
        lines = run(
            transform, Sample(mask.expand(3, 80, 100) * 255, polygons=[[corners]], keypoints=points, **fields), seed
        )
        ys, xs = drawn.bitmasks[0].nonzero().T
        around = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        assert np.allclose(drawn.boxes[0], around)  # around the mask exactly
        assert np.allclose(lines.boxes[0], around, atol=1.5)
        for x, y, visibility in lines.keypoints[0]:
            near = drawn.bitmasks[0][max(int(y) - 1, 0) : int(y) + 2, max(int(x) - 1, 0) : int(x) + 2]
            assert visibility == 2 and near.any()
        outline = lines.polygons[0][0]
        assert np.allclose([*outline.min(0), *outline.max(0)], lines.boxes[0], atol=1e-6)


def test_what_turns_out_of_the_image_is_gone():
    boxes = np.array([[0.0, 0, 4, 4], [45, 45, 55, 55]])
    points = np.array([[[1.0, 1, 2]], [[50, 50, 2]]])
    sample = run(RandomRotation([45, 45]), sample_of(100, 100, boxes=boxes, keypoints=points, rows=np.arange(2)))
    assert sample.rows.tolist() == [1]
    assert np.allclose(sample.boxes[0], [50 - 50**0.5, 50 - 50**0.5, 50 + 50**0.5, 50 + 50**0.5])
    assert np.allclose(sample.keypoints[0, 0], [50, 50, 2])
    assert sample.sem_seg[0, 0] == 255 and (sample.image[:, 0, 0] == 124).all()


def test_a_turn_by_90_degrees_is_that_of_numpy():
    for seed, angle in enumerate((90, -90, 180)):
        sample = run(RandomRotation([angle, angle]), sample_of(31, 31), seed)
        assert np.array_equal(sample.sem_seg, np.rot90(sample_of(31, 31).sem_seg, angle // 90))


@pytest.mark.parametrize("quarters", range(4))
def test_quarter_turns_move_everything(quarters):
    mask = torch.zeros(1, 20, 30, dtype=torch.uint8)
    mask[0, 2:5, 4:12] = 1
    box = np.array([[4.0, 2, 12, 5]])
    corners = np.array([[4.0, 2], [12, 2], [12, 5], [4, 5]])
    points = np.array([[[4.0, 2, 2]]])
    fields = {"boxes": box, "keypoints": points, "rows": np.arange(1)}
    sample = sample_of(20, 30, bitmasks=mask.clone(), **fields).turn(quarters)
    drawn = sample_of(20, 30, polygons=[[corners]], **fields).turn(quarters)
    assert np.array_equal(sample.bitmasks[0], np.rot90(mask[0], quarters))
    assert np.array_equal(sample.sem_seg, np.rot90(sample_of(20, 30).sem_seg, quarters))
    ys, xs = sample.bitmasks[0].nonzero().T
    assert sample.boxes[0].tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    outline = drawn.polygons[0][0]
    assert [*outline.min(0), *outline.max(0)] == sample.boxes[0].tolist()
    assert (sample.matrix @ [4, 2, 1])[:2].tolist() == sample.keypoints[0, 0, :2].tolist()


def test_all_quarter_turns_occur():
    square = sample_of(9, 9)
    found = {run(RandomQuarterTurn(), sample_of(9, 9), seed).sem_seg.numpy().tobytes() for seed in range(40)}
    assert found == {np.ascontiguousarray(np.rot90(square.sem_seg, k)).tobytes() for k in range(4)}


def test_gamma_keeps_black_white_and_order():
    ramp = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256).clone()
    for seed in range(10):
        image = run(RandomGamma(0.5, 2.0), Sample(ramp.clone()), seed).image[0, 0].int()
        assert (image[0], image[-1]) == (0, 255) and (image.diff() >= 0).all()
    assert run(RandomGamma(2.0, 2.0), Sample(ramp.clone())).image[0, 0, 128] == round(255 * (128 / 255) ** 2)


def test_noise_has_its_deviation():
    image = run(GaussianNoise(10, 10), Sample(torch.full((3, 64, 64), 128, dtype=torch.uint8))).image.float()
    assert 9 < image.std() < 11 and abs(image.mean() - 128) < 1


@pytest.mark.parametrize(
    "transform", ["{name: ElasticDeform}", "{name: RandomRotation}", "{name: PadTo, size: 64, center: true}"]
)
def test_evaluation_refuses_what_cannot_be_undone(transform, tmp_path, write_pair):
    write_pair("images/a.png", "masks/a.png", np.zeros((20, 20), np.uint8))
    (tmp_path / "recipe.yaml").write_text(
        "model: {backbone: {name: ResNet, depth: 18}, heads: {boxes: {name: RetinaNetHead}}}\n"
        f"data: {{eval_transforms: [{transform}]}}\n"
    )
    spec = load_recipe(tmp_path / "recipe.yaml").data.eval_transforms[0]
    mapper = Mapper([spec.build()], training=False, metadata=Metadata("x"))
    with pytest.raises(RecipeError, match="move, cut or turn the image"):
        mapper({"file_name": str(tmp_path / "images/a.png")})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RandomScaleCrop(0), "RandomScaleCrop needs a size"),
        (lambda: RandomScaleCrop(8, 2.0, 1.0), "0 < min_scale <= max_scale"),
        (lambda: RandomScaleCrop(8, max_class_share=0), "max_class_share above 0"),
        (lambda: ClassBalancedCrop(8, prob=2), "prob is 2"),
        (lambda: PadTo(8, multiple=0), "multiple is 0"),
        (lambda: ElasticDeform(grid=1), "grid of at least 2"),
        (lambda: ElasticDeform(border="wrap"), "border is 'wrap'"),
        (lambda: RandomRotation([3, 1]), r"\[lowest, highest\]"),
        (lambda: RandomRotation(-3), "degrees of at least 0"),
        (lambda: RandomQuarterTurn(prob=-1), "prob is -1"),
        (lambda: RandomGamma(0, 1), "RandomGamma needs"),
        (lambda: GaussianNoise(-1), "GaussianNoise needs"),
    ],
)
def test_settings_that_cannot_be(make, words):
    with pytest.raises(ValueError, match=words):
        make()
