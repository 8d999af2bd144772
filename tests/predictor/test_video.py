"""Videos: frames by their time stamps; damaged frames and missing ends are counted; any rate can be written."""

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from vertebra.errors import DataError
from vertebra.predictor import video
from vertebra.predictor.sources import open_source
from vertebra.predictor.video import VideoWriter, read_camera, read_video

av = pytest.importorskip("av")
STEADY = [number / 25 for number in range(60)]


def write(path, times=STEADY, size=(48, 64), codec="mpeg4", rate=25, **options):
    """A video whose frame i is gray value 4 i, shown from times[i] on."""
    with av.open(str(path), "w", options=options) as file:
        stream = file.add_stream(codec, rate=rate, options={"bf": "0", "g": "5"})
        stream.height, stream.width = size
        stream.pix_fmt = {"mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        tick = Fraction(1, rate) if path.suffix == ".avi" else Fraction(1, 1000)
        stream.time_base = stream.codec_context.time_base = tick
        for number, seconds in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((*size, 3), 4 * number % 256, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(seconds / tick), tick
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def read(path):
    """The frames, and the message at their end."""
    frames = []
    try:
        for frame in read_video(path):
            frames.append(frame)
    except DataError as err:
        return frames, str(err)
    return frames, None


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "a.avi", "a.m4v"])
def test_every_frame_comes_with_its_number_and_time(tmp_path, name):
    frames, message = read(write(tmp_path / name))
    assert message is None
    assert [frame.number for frame in frames] == list(range(60))
    assert [frame.seconds for frame in frames] == pytest.approx(STEADY, abs=1e-3)
    assert [round(frame.image.mean()) for frame in frames] == pytest.approx([4 * n % 256 for n in range(60)], abs=5)
    assert {frame.rate for frame in frames} == {25.0}


def damaged(tmp_path):
    """Motion JPEG in AVI: each frame by itself, in a chunk of its own."""
    path = write(tmp_path / "damaged.avi", codec="mjpeg")
    content = bytearray(path.read_bytes())
    at = 0
    for _ in range(8):  # the first one stands in the header, and the frames' follow
        at = content.find(b"00dc", at + 4)
    size = int.from_bytes(content[at + 4 : at + 8], "little")
    content[at + 8 : at + 8 + size] = b"\x5a" * size
    path.write_bytes(content)
    return path


def test_a_damaged_frame_is_skipped_and_named(tmp_path):
    frames, message = read(damaged(tmp_path))
    assert [frame.number for frame in frames] == [n for n in range(60) if n != 6]
    assert frames[-1].seconds == pytest.approx(59 / 25)
    assert (
        message == f"{tmp_path}/damaged.avi: 1 of 60 frames are damaged, or refer to such, and were skipped (number 6)"
    )


def test_frames_that_refer_to_a_damaged_one_are_skipped_too(tmp_path):
    """MPEG-4 with a key frame every five: what follows the damage is drawn on a wrong picture until the next."""
    path = write(tmp_path / "a.avi")
    with av.open(str(path)) as file:
        keys = [number for number, frame in enumerate(file.decode(video=0)) if frame.key_frame]
    content = bytearray(path.read_bytes())
    at = 0
    for _ in range(13):
        at = content.find(b"00dc", at + 4)
    size = int.from_bytes(content[at + 4 : at + 8], "little")
    content[at + 8 : at + 8 + size] = b"\xff" * size
    path.write_bytes(content)
    frames, message = read(path)
    assert "were skipped" in message
    numbers = [frame.number for frame in frames]
    skipped = sorted(set(range(60)) - set(numbers))
    assert skipped == list(range(skipped[0], min(key for key in keys if key > skipped[0]))) and len(skipped) > 1
    assert [frame.image.mean() for frame in frames] == pytest.approx([4 * n % 256 for n in numbers], abs=5)


def test_a_matroska_file_may_begin_later(tmp_path):
    path = write(tmp_path / "a.mkv", [4 + seconds for seconds in STEADY])
    frames, message = read(path)
    assert message is None and len(frames) == 60 and frames[0].seconds == 0


def test_the_other_places_are_read_after_a_damaged_video(tmp_path):
    whole = write(tmp_path / "whole.mp4")
    unreadable = []
    frames = list(open_source([damaged(tmp_path), whole], unreadable))
    assert len(frames) == 59 + 60 and len(unreadable) == 1 and "were skipped" in unreadable[0]


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("a.mkv", {}, r"it ends after \d\.\d\d of 2\.40 seconds.*; was it cut off\?"),
        ("a.mp4", {"movflags": "faststart"}, r"ends after \d\d of 60 frames.*; was it cut off\?"),
        ("a.mp4", {}, "not a video that FFmpeg can read"),
    ],
)
def test_a_file_that_was_cut_off_is_an_error_after_its_last_frame(tmp_path, name, options, says):
    path = write(tmp_path / name, **options)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 7 // 10])
    frames, message = read(path)
    assert len(frames) < 60
    with pytest.raises(DataError, match=rf"{name}: .*{says}"):
        raise DataError(message)


def test_times_of_a_varying_rate_are_those_of_the_file(tmp_path):
    times = [0.04 * number for number in range(10)] + [0.4 * number for number in range(1, 11)]
    for name in ("a.mkv", "a.mp4"):
        frames, message = read(write(tmp_path / name, times))
        assert message is None
        assert [frame.seconds for frame in frames] == pytest.approx(times, abs=1e-3)


@pytest.mark.parametrize("rate", [211.222, 29.97, 0.5, 1000])
def test_what_is_written_keeps_its_times_at_any_rate(tmp_path, rate):
    writer = VideoWriter(tmp_path / "out.mp4", rate)
    for number in range(20):
        writer.add(np.full((49, 65, 3), 10 * number, np.uint8), number / rate)
    writer.close()
    frames, message = read(tmp_path / "out.mp4")
    assert message is None
    assert [frame.seconds for frame in frames] == pytest.approx([n / rate for n in range(20)], abs=1e-4)
    assert frames[0].image.shape == (48, 64, 3)
    assert [frame.image.mean() for frame in frames] == pytest.approx([10 * n for n in range(20)], abs=4)
    assert [round(frame.rate, 2) for frame in frames[:1]] == pytest.approx([rate], rel=0.06)


def test_varying_times_are_written_as_they_are(tmp_path):
    times = [0, 0.04, 0.08, 0.5, 2.5, 2.5, 2.6]
    writer = VideoWriter(tmp_path / "out.mp4", 25)
    for number, seconds in enumerate(times):
        writer.add(np.full((32, 32, 3), 30 * number, np.uint8), seconds)
    writer.close()
    frames, _ = read(tmp_path / "out.mp4")
    assert [frame.seconds for frame in frames] == pytest.approx(times, abs=1e-3)
    with av.open(str(tmp_path / "out.mp4")) as file:
        assert file.duration / av.time_base == pytest.approx(2.64, abs=0.01)


def test_a_phones_upright_video_is_upright(tmp_path):
    """The matrix of a track header that turns its pictures by 90 degrees clockwise (ISO/IEC 14496-12, 8.3.2)."""
    path = tmp_path / "phone.mp4"
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:, :32] = 255  # left half white: after the turn, the upper half
    writer = VideoWriter(path, 25)
    for number in range(3):
        writer.add(picture, number / 25)
    writer.close()
    content = bytearray(path.read_bytes())
    one = (1 << 16).to_bytes(4, "big")
    start = content.index(b"tkhd") + 4 + 4 + 20 + 8 + 8  # version and flags; times, track, duration; layer, volume
    assert content[start : start + 4] == one
    content[start : start + 16] = bytes(4) + one + bytes(4) + (-(1 << 16)).to_bytes(4, "big", signed=True)
    path.write_bytes(content)
    frame = next(iter(read_video(path)))
    assert frame.image.shape == (64, 32, 3)
    assert frame.image[:28].mean() > 200 and frame.image[36:].mean() < 50


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("text.mp4", b"no video", "not a video that FFmpeg can read"),
        ("empty.mkv", b"", "not a video that FFmpeg can read"),
    ],
)
def test_what_is_not_a_video_says_so(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: {says}"):
        list(read_video(tmp_path / name))


def test_sound_alone_is_not_a_video(tmp_path):
    with av.open(str(tmp_path / "sound.mkv"), "w") as file:
        stream = file.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.rate = 8000
        file.mux(stream.encode(sound))
        file.mux(stream.encode())
    with pytest.raises(DataError, match=r"sound.mkv: not a video that FFmpeg can read \(no pictures; it holds audio\)"):
        list(read_video(tmp_path / "sound.mkv"))


def test_a_cameras_times_are_those_of_the_clock(monkeypatch):
    clock = iter([100.0, 100.5, 102.5])
    left = [np.zeros((4, 4, 3), np.uint8)] * 3
    capture = SimpleNamespace(
        isOpened=lambda: True,
        get=lambda what: 0.0,
        read=lambda: (True, left.pop()) if left else (False, None),
        release=lambda: None,
    )
    opencv = SimpleNamespace(
        VideoCapture=lambda number: capture, CAP_PROP_FPS=5, COLOR_BGR2RGB=4, cvtColor=lambda image, code: image
    )
    monkeypatch.setattr(video, "_opencv", lambda name: opencv)
    monkeypatch.setattr(video, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    assert [(frame.number, frame.seconds) for frame in read_camera(0)] == [(0, 0.0), (1, 0.5), (2, 2.5)]


def test_written_videos_are_of_one_source_each(tmp_path, trained):
    """Whatever frames are missing: the first of a video may be."""
    from vertebra.predictor import predict_files

    first = damaged(tmp_path)
    second = write(tmp_path / "second.avi", STEADY[:4])
    with pytest.raises(DataError, match="were skipped"):
        predict_files(
            str(trained[0]), [first, second], output=tmp_path / "out", weights=str(trained[1]), save=["pictures"]
        )
    lengths = {path.name: len(read(path)[0]) for path in Path(tmp_path / "out").iterdir()}
    assert lengths == {"damaged.mp4": 59, "second.mp4": 4}
