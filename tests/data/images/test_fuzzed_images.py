"""Images, label files and videos with random faults: decoded, or refused with a DataError that names the file."""

import io
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fuzzing import bounded, changed_bytes
from vertebra.data.images.read import read_image, read_labels
from vertebra.errors import DataError
from vertebra.predictor.sources import open_source

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 17, 3), dtype=np.uint8)
LABELS = PIXELS[..., 0] % 5


def encoded(pixels, kind, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format=kind, **options)
    return stream.getvalue()


pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow warns of damaged metadata
KINDS = {
    "PNG": encoded(PIXELS, "PNG"),
    "JPEG": encoded(PIXELS, "JPEG", exif=Image.Exif()),
    "TIFF": encoded(PIXELS, "TIFF"),
    "TIFF LZW": encoded(PIXELS, "TIFF", compression="tiff_lzw"),
    "TIFF 16": encoded(PIXELS[..., 0].astype(np.uint16) << 8, "TIFF"),
    "GIF": encoded(PIXELS[..., 0], "GIF"),
    "BMP": encoded(PIXELS, "BMP"),
    "WebP": encoded(PIXELS, "WebP"),
    "JPEG 2000": encoded(PIXELS, "JPEG2000"),
    "PPM": encoded(PIXELS, "PPM"),
    "TGA": encoded(PIXELS, "TGA"),
    "ICO": encoded(PIXELS, "ICO"),
    "PNG palette": encoded(LABELS, "PNG", bits=4),
    "PNG 16": encoded(LABELS.astype(np.uint16), "PNG"),
    "MPO": encoded(PIXELS, "MPO"),
    "DDS": encoded(PIXELS, "DDS"),
    "SGI": encoded(PIXELS, "SGI"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("images")


@bounded
@given(data=st.data())
@pytest.mark.parametrize("kind", KINDS)
def test_images(folder, kind, data):
    path = folder / f"{kind}.img"
    path.write_bytes(data.draw(changed_bytes(KINDS[kind])))
    for read in (read_image, read_labels):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", ResourceWarning)
                found = read(path)
        except DataError as err:
            assert str(path) in str(err)
        else:
            assert found.ndim in (2, 3) and found.size and found.dtype in (np.uint8, np.int32)


@bounded
@given(content=st.binary(max_size=200))
def test_bytes_that_are_no_image(folder, content):
    path = folder / "noise.png"
    path.write_bytes(content)
    for read in (read_image, read_labels):
        try:
            read(path)
        except DataError as err:
            assert str(path) in str(err)


@pytest.fixture(scope="module")
def film(folder):
    """A short video's bytes."""
    av = pytest.importorskip("av")
    with av.open(str(folder / "film.mp4"), "w") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for level in range(8):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), level * 20, np.uint8), format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return (folder / "film.mp4").read_bytes()


@bounded
@given(data=st.data())
def test_videos(folder, film, data):
    path = folder / "damaged.mp4"
    path.write_bytes(data.draw(changed_bytes(film, 8)))
    unreadable = []
    try:
        frames = list(open_source(path, unreadable))
    except DataError as err:
        assert str(path) in str(err)
        return
    assert all(frame.image.shape[2] == 3 for frame in frames)
