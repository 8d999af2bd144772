"""Readers of images of any number of channels and bits, and what becomes of the pixels on the way to a model."""

import json

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from vertebra.config import ComponentSpec, load_recipe
from vertebra.data import CocoFormat, Dataset, DatasetCatalog, Mapper, Metadata, MetadataCatalog, load_dataset
from vertebra.data.build import build_mapper
from vertebra.data.images.measure import with_measured_pixels
from vertebra.data.images.readers import RGB, ArrayFile, Bands, Gray, Stacked, as_tensor
from vertebra.data.transforms import (
    ColorJitter,
    GaussianNoise,
    HSVJitter,
    MixUp,
    Mosaic,
    RandomGamma,
    RandomQuarterTurn,
    ResizeStretch,
    Sample,
)
from vertebra.data.transforms.drawn_pixels import ImageDrawn
from vertebra.errors import DataError, RecipeError
from vertebra.predictor.sources import open_source


@pytest.fixture
def bands():
    """(40, 60, 5) uint16 up to 4000."""
    return np.random.default_rng(0).integers(0, 4000, (40, 60, 5)).astype(np.uint16)


@pytest.mark.parametrize("layout", ["interleaved", "planes", "pages"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_bands_of_a_tiff_are_read_however_they_lie(tmp_path, bands, layout, compression):
    path = tmp_path / "b.tif"
    if layout == "interleaved":
        tifffile.imwrite(path, bands, photometric="minisblack", planarconfig="contig", compression=compression)
    elif layout == "planes":
        planes = bands.transpose(2, 0, 1)
        tifffile.imwrite(path, planes, photometric="minisblack", planarconfig="separate", compression=compression)
    else:
        tifffile.imwrite(path, bands.transpose(2, 0, 1), photometric="minisblack", compression=compression)
    assert np.array_equal(Bands(5).read(path), bands)
    assert np.array_equal(Bands([3, 0]).read(path), bands[..., [3, 0]])
    with pytest.raises(DataError, match=r"b\.tif: the file has 5 bands, expected 4"):
        Bands(4).read(path)
    with pytest.raises(DataError, match=r"the file has 5 bands, expected more than 7"):
        Bands([0, 7]).read(path)
    with pytest.raises(DataError, match=r"read uint16 values, expected float32; bits or dtype of the reader"):
        Bands(5, dtype="float32").read(path)


def test_a_damaged_tiff_and_other_files_are_named(tmp_path, bands):
    path = tmp_path / "b.tif"
    tifffile.imwrite(path, bands, photometric="minisblack", planarconfig="contig")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"b\.tif: cannot be read as TIFF"):
        Bands(5).read(path)
    tifffile.imwrite(path, bands, photometric="minisblack", planarconfig="contig", compression="zlib")
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 40] = b"\xff" * 40
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"b\.tif: cannot be read as TIFF"):
        Bands(5).read(path)
    with pytest.raises(DataError, match=r"none\.tif: cannot be read as TIFF"):
        Bands(5).read(tmp_path / "none.tif")


def test_gray_of_8_and_16_bits(tmp_path):
    for bits, dtype in ((8, np.uint8), (16, np.uint16)):
        Image.fromarray(np.full((4, 6), 200, dtype)).save(tmp_path / f"{bits}.png")
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "rgb.png")
    assert Gray(16).read(tmp_path / "16.png").dtype == np.uint16 and Gray(16).highest == 65535
    assert Gray().read(tmp_path / "8.png").shape == (4, 6, 1) and Gray(16).read(tmp_path / "8.png").max() == 200
    with pytest.raises(DataError, match=r"16\.png: Gray read uint16 values, expected uint8"):
        Gray().read(tmp_path / "16.png")
    with pytest.raises(DataError, match=r"rgb\.png: one channel is needed, this image has mode RGB"):
        Gray().read(tmp_path / "rgb.png")
    for highest in (0, float("inf")):
        with pytest.raises(ValueError, match="highest value must be a number above 0"):
            Gray(16, highest=highest)


def test_palettes_and_single_bits_become_gray(tmp_path):
    colors = Image.new("P", (6, 4))
    colors.putpalette([0, 0, 0, 255, 255, 255, 200, 200, 200])
    colors.paste(2, (0, 0, 3, 4))
    colors.save(tmp_path / "p.png")
    Image.fromarray(np.eye(4, 6) > 0).save(tmp_path / "1.png")
    assert np.unique(Gray().read(tmp_path / "p.png")).tolist() == [0, 200]
    assert np.unique(Gray().read(tmp_path / "1.png")).tolist() == [0, 255]


def test_pages_written_one_by_one_are_all_read(tmp_path, bands):
    with tifffile.TiffWriter(tmp_path / "b.tif") as writer:
        for band in range(5):
            writer.write(bands[..., band], photometric="minisblack")
    assert np.array_equal(Bands(5).read(tmp_path / "b.tif"), bands)
    with pytest.raises(DataError, match="the file has 5 bands, expected 1"):
        Bands(1).read(tmp_path / "b.tif")
    with tifffile.TiffWriter(tmp_path / "sizes.tif") as writer:
        for side in (8, 9):
            writer.write(np.zeros((side, side), np.uint16), photometric="minisblack")
    with pytest.raises(DataError, match=r"sizes\.tif: cannot be read as TIFF"):
        Bands([0]).read(tmp_path / "sizes.tif")


def test_arrays_and_stacked_files(tmp_path, bands):
    np.save(tmp_path / "a.npy", bands.transpose(2, 0, 1).astype(np.float32))
    read = ArrayFile(5, channels_first=True).read(tmp_path / "a.npy")
    assert read.shape == (40, 60, 5) and read.dtype == np.float32
    with pytest.raises(DataError, match=r"read the shape \(5, 40, 60\), expected \(height, width, 5\)"):
        ArrayFile(5).read(tmp_path / "a.npy")
    np.savez(tmp_path / "several.npz", a=bands)
    (tmp_path / "several.npz").rename(tmp_path / "several.npy")
    with pytest.raises(DataError, match=r"several\.npy: holds several arrays"):
        ArrayFile(5).read(tmp_path / "several.npy")
    with pytest.raises(DataError, match=r"x\.png: ArrayFile reads \.npy files"):
        ArrayFile(5).read(tmp_path / "x.png")
    with pytest.raises(ValueError, match="at least one channel, got 0"):
        ArrayFile(0)
    np.save(tmp_path / "nan.npy", np.full((4, 4, 1), np.nan, np.float32))
    with pytest.raises(DataError, match=r"16 values are not finite"):
        ArrayFile(1).read(tmp_path / "nan.npy")
    for name in ("x.png", "x_nir.png"):
        Image.fromarray(np.full((4, 6) if "nir" in name else (4, 6, 3), 7 * len(name), np.uint8)).save(tmp_path / name)
    stacked = Stacked([RGB(), Gray()], ["{stem}{suffix}", "{stem}_nir.png"])
    assert stacked.read(tmp_path / "x.png")[0, 0].tolist() == [35, 35, 35, 63] and stacked.channels == 4
    with pytest.raises(ValueError, match="one dtype"):
        Stacked([RGB(), Gray(16)], ["a", "b"])
    assert [frame.stem for frame in open_source(str(tmp_path), reader=stacked)] == ["x"]  # its partner is read with it
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(tmp_path / "x_nir.png")
    with pytest.raises(DataError, match="have different sizes"):
        stacked.read(tmp_path / "x.png")


def test_the_channels_shown_may_be_chosen():
    pixels = np.arange(5, dtype=np.uint8) * np.ones((2, 2, 1), np.uint8)
    assert Bands(5, dtype="uint8", shown=[3, 2, 1]).picture(pixels)[0, 0].tolist() == [3, 2, 1]
    assert ArrayFile(5, dtype="uint8", shown=[4, 4, 0]).picture(pixels)[0, 0].tolist() == [4, 4, 0]
    with pytest.raises(ValueError, match=r"shown needs three numbers from 0 to 4, got \[5, 0, 1\]"):
        Bands(5, shown=[5, 0, 1])


def test_pictures_for_people():
    assert Bands(5, highest=10000).picture(np.full((2, 2, 5), 2000, np.uint16))[0, 0].tolist() == [51, 51, 51]
    assert ArrayFile(2).picture(np.full((2, 2, 2), 2.0, np.float32))[0, 0].tolist() == [255, 255, 255]
    same = np.full((2, 2, 3), 9, np.uint8)
    assert RGB().picture(same) is not None and (RGB().picture(same) == same).all()


def pair(bands, highest=4000.0) -> Sample:
    sample = Sample(as_tensor(bands), highest=highest)
    sample.fields["other"] = ImageDrawn(torch.full((1, 40, 60), 0.25), highest=1.0)
    return sample


def test_all_images_move_together_and_keep_their_types(bands):
    turned = RandomQuarterTurn()(pair(bands), np.random.default_rng(1))
    assert turned.image_of("other")[0].shape[1:] == turned.image.shape[1:]
    sample = ResizeStretch([20, 30])(pair(bands), np.random.default_rng(0))
    assert sample.image.dtype == torch.int32 and sample.image.shape == (5, 20, 30)
    assert sample.image_of("other")[0].unique().tolist() == [0.25]
    padded = sample.pad(1, 1, 1, 1, value=51)  # a fifth of white
    assert padded.image[:, 0, 0].tolist() == [800] * 5
    assert padded.image_of("other")[0][0, 0, 0] == pytest.approx(0.2)
    with pytest.raises(RecipeError, match="no image is called 'depth'; there are: image, other"):
        sample.image_of("depth")


def test_joined_images_of_many_channels(bands):
    mosaic = Mosaic(1.0, fill=51).mix(pair(bands), [pair(bands) for _ in range(3)], np.random.default_rng(0))
    assert mosaic.image.shape == (5, 80, 120) and mosaic.image.dtype == torch.int32
    assert set(mosaic.image_of("other")[0].unique().tolist()) <= {0.25, torch.tensor(0.2).item()}
    other = pair(np.zeros_like(bands))
    mixed = MixUp(1.0).mix(pair(bands), [other], np.random.default_rng(0))
    assert 0 < mixed.image.float().mean() < torch.from_numpy(bands.astype(np.float32)).mean()
    assert mixed.image_of("other")[0].unique().tolist() == pytest.approx([0.25])


def test_color_transforms_change_the_named_images_alone(bands):
    before = pair(bands)
    noisy = GaussianNoise(10, 10, images=["other"])(pair(bands), np.random.default_rng(0))
    assert torch.equal(noisy.image, before.image)
    assert float(noisy.image_of("other")[0].std()) == pytest.approx(10 / 255, rel=0.1)
    darker = RandomGamma(2.0, 2.0, images=["image", "other"])(pair(bands), np.random.default_rng(0))
    assert darker.image_of("other")[0].unique().tolist() == pytest.approx([0.0625])
    expected = (before.image.double() ** 2 / 4000).round()
    assert (darker.image - expected).abs().max() <= 1


@pytest.mark.parametrize("transform", [ColorJitter(hue=0.1), HSVJitter()])
def test_color_transforms_refuse_channels_that_they_do_not_know(bands, transform):
    with pytest.raises(RecipeError, match=r"knows images with .* channels of 8 bits, but 'image' has 5 of more than"):
        transform(pair(bands), np.random.default_rng(0))


def test_gamma_keeps_white_and_the_range_of_16_bits():
    gamma = RandomGamma(0.5, 0.5)
    white = Sample(torch.full((1, 2, 2), 100, dtype=torch.uint8), highest=100)
    assert gamma(white, np.random.default_rng(0)).image.unique().tolist() == [100]
    above = Sample(torch.full((1, 2, 2), 40000, dtype=torch.int32), highest=10000)
    assert RandomGamma(3.0, 3.0)(above, np.random.default_rng(0)).image.unique().tolist() == [65535]


def test_turned_values_of_16_bits_are_rounded_means(bands):
    even = Sample(as_tensor(np.repeat(np.arange(41, dtype=np.uint16)[None, :, None], 20, axis=0)), highest=65535)
    moved = even.warp(np.array([[1, 0, 0.25], [0, 1, 0], [0, 0, 1.0]]), 20, 41).image[0, 5, 2:-2]
    assert (moved - torch.arange(2, 39)).abs().max() == 0  # a quarter less, rounded


@pytest.mark.parametrize(
    ("images", "text"),
    [("[image]", "knows images with 1 or 3 channels of 8 bits, but 'image' has 5"), ("[depth]", "no image is called")],
)
def test_color_transforms_are_checked_before_the_start(folder, images, text):
    recipe = recipe_of(folder, f"data.train_transforms=[{{name: ColorJitter, prob: 0.01, images: {images}}}]")
    dataset = load_dataset(recipe.data.train, None, recipe.data.fields, recipe.data.image)
    with pytest.raises(RecipeError, match=text):
        build_mapper(recipe, dataset, training=True)


@pytest.fixture
def folder(tmp_path, bands):
    """A COCO file of four images with five bands, each with an array of two channels beside it."""
    images, annotations = [], []
    for number in range(4):
        pixels = bands.copy()
        pixels[5:25, 10:30] = 4000
        tifffile.imwrite(tmp_path / f"{number}.tif", pixels, photometric="minisblack", planarconfig="contig")
        np.save(tmp_path / f"{number}.npy", np.random.default_rng(number).random((40, 60, 2)).astype(np.float32))
        name = {"file_name": f"{number}.tif", "sar": f"{number}.npy"}
        images.append({"id": number, "height": 40, "width": 60, **name})
        box = {"bbox": [10, 5, 20, 20], "category_id": 1, "iscrowd": 0}
        annotations.append({"id": number + 1, "image_id": number, **box})
    categories = [{"id": 1, "name": "thing"}]
    file = tmp_path / "data.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return tmp_path


def recipe_of(folder, *overrides):
    block = f"{{format: coco, annotations: {folder}/data.json, images: {folder}}}"
    base = [f"data.train={block}", f"data.val={block}", "data.train_transforms=[]", "data.eval_transforms=[]"]
    image = "data.image={name: Bands, bands: 5, highest: 4000}"
    return load_recipe("retinanet:retinanet_shapes_quick", [*base, image, *overrides])


SAR = "data.fields={sar: {geometry: image, reader: {name: ArrayFile, channels: 2}, pixel_mean: auto, pixel_std: auto}}"


def test_auto_is_measured_once_and_written_into_the_recipe(folder):
    recipe = recipe_of(folder, "model.pixel_mean=auto", "model.pixel_std=auto", SAR)
    dataset = load_dataset(recipe.data.train, None, recipe.data.fields, recipe.data.image)
    resolved = with_measured_pixels(recipe, dataset)
    pixels = np.stack([tifffile.imread(folder / f"{n}.tif") for n in range(4)]).reshape(-1, 5).astype(float)
    assert resolved.model.pixel_mean == pytest.approx(pixels.mean(0), rel=1e-5)
    assert resolved.model.pixel_std == pytest.approx(pixels.std(0), rel=1e-5)
    assert resolved.data.fields["sar"].pixel_mean == pytest.approx([0.5, 0.5], abs=0.02)
    assert "pixel_mean: [" in resolved.to_yaml() and with_measured_pixels(resolved, dataset) is resolved
    flat = Dataset(list(dataset)[:1], dataset.metadata, checked=True)
    tifffile.imwrite(
        folder / "0.tif", np.zeros((40, 60, 5), np.uint16), photometric="minisblack", planarconfig="contig"
    )
    with pytest.raises(DataError, match=r"channels \[0, 1, 2, 3, 4\] of image have one value in 1 images"):
        with_measured_pixels(recipe, flat)


def test_further_images_come_in_training_and_in_evaluation(folder):
    recipe = recipe_of(folder, SAR)
    for split, training in (("train", True), ("val", False)):
        dataset = load_dataset(getattr(recipe.data, split), None, recipe.data.fields, recipe.data.image, truth=training)
        sample = build_mapper(recipe, dataset, training)(dataset[0])
        assert sample["image"].shape == (5, 40, 60) and sample["image"].dtype == torch.int32
        assert sample["sar"].shape == (2, 40, 60) and sample["sar"].dtype == torch.float32
    np.save(folder / "0.npy", np.zeros((40, 50, 2), np.float32))
    with pytest.raises(DataError, match=r"0\.npy has 50x40 pixels \(width x height\), but .*0\.tif has 60x40"):
        build_mapper(recipe, dataset, False)(dataset[0])
    (folder / "1.npy").unlink()
    with pytest.raises(DataError, match=r"1\.tif: sar is '.*1\.npy', but there is no such file"):
        load_dataset(recipe.data.val, None, recipe.data.fields, recipe.data.image, truth=False)


def test_a_registered_dataset_may_name_its_reader(folder):
    metadata = Metadata("m").set(image_reader={"name": "Bands", "bands": [1, 2], "highest": 4000})
    assert Mapper([], training=False, metadata=metadata)({"file_name": f"{folder}/0.tif"})["image"].shape == (2, 40, 60)
    with pytest.raises(RecipeError, match=r"image_reader\.bandz: Bands has no such argument"):
        Mapper([], training=False, metadata=Metadata("m").set(image_reader={"name": "Bands", "bandz": 2}))
    other, declares = ComponentSpec("part", "Bands", {"bands": 5}), Dataset([], metadata)
    DatasetCatalog.register("declares a reader", lambda: list(declares))
    MetadataCatalog.get("declares a reader").set(image_reader=metadata.image_reader)
    with pytest.raises(RecipeError, match=r"but the images of the dataset declares a reader are read by .*'bands'"):
        load_dataset("declares a reader", image=other)
    with pytest.raises(DataError, match=r"0\.tif"):  # five bands make no photograph
        Mapper([], training=False)({"file_name": f"{folder}/0.tif"})
    assert CocoFormat(f"{folder}/data.json", str(folder)).load().metadata.get("image_reader") is None
    assert ComponentSpec("part", "RGB").build().channels == 3


def test_folders_of_arrays_are_found_by_a_reader_of_arrays(folder):
    reader = ArrayFile(2)
    frames = list(open_source(str(folder), reader=reader))
    assert [frame.stem for frame in frames] == ["0", "1", "2", "3"] and frames[0].picture.shape == (40, 60, 3)
