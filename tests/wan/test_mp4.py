"""The MP4 files that clips are stored as."""

from __future__ import annotations

import gc
import io
import weakref
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc
from numpy.typing import NDArray

from ourvidz_wan.mp4 import Mp4Encoder

RATE = Fraction(83, 5)
BT709 = 1


def encode(
    frames: list[NDArray[np.uint8]], rate: Fraction = RATE, *, title: str = "a fox", comment: str = "Steps: 25"
) -> bytes:
    height, width = frames[0].shape[:2]
    encoder = Mp4Encoder(width, height, rate, title=title, comment=comment)
    for frame in frames:
        encoder.add(frame)
    return encoder.finish()


def moving(count: int, width: int = 64, height: int = 96) -> list[NDArray[np.uint8]]:
    """Frames of a picture that moves, none like another one."""
    picture = (
        np.random.default_rng(1).integers(0, 256, (height // 8, width // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    )
    return [np.roll(picture, 3 * index, axis=1).copy() for index in range(count)]


def solid(colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    return np.full((96, 64, 3), colour, np.uint8)


def boxes(data: bytes) -> list[str]:
    """The names of the file's outermost boxes, in order."""
    names, place = [], 0
    while place < len(data):
        names.append(data[place + 4 : place + 8].decode())
        place += int.from_bytes(data[place : place + 4])
    return names


def test_a_clip_has_the_form_that_browsers_play() -> None:
    data = encode(moving(83, 480, 832))
    with av.open(io.BytesIO(data)) as container:
        (stream,) = container.streams
        assert (stream.codec_context.name, stream.codec_context.profile) == ("h264", "High")
        assert (stream.width, stream.height, stream.pix_fmt) == (480, 832, "yuv420p")
        assert (stream.frames, stream.average_rate) == (83, RATE)
        assert stream.duration * stream.time_base == 5
        assert container.duration == 5_000_000
    assert boxes(data).index("moov") < boxes(data).index("mdat")


@pytest.mark.parametrize("rate", [RATE, Fraction(24), Fraction(30_000, 1_001), Fraction(1, 60), Fraction(240)])
def test_every_frame_comes_in_its_order_and_lasts_as_long_as_every_other_one(rate: Fraction) -> None:
    frames = moving(24)
    with av.open(io.BytesIO(encode(frames, rate))) as container:
        decoded = list(container.decode(video=0))
    assert [frame.pts * frame.time_base for frame in decoded] == [index / rate for index in range(24)]
    shown = [frame.to_ndarray()[:96, :64].astype(int) for frame in decoded]
    expected = [0.2126 * frame[..., 0] + 0.7152 * frame[..., 1] + 0.0722 * frame[..., 2] for frame in frames]
    for index, luma in enumerate(shown):
        distances = [np.abs(luma - (16 + each * 219 / 255)).mean() for each in expected]
        assert int(np.argmin(distances)) == index


def test_a_rate_that_no_small_fraction_expresses_is_met_to_a_hair() -> None:
    rate = Fraction(83) / (3 + Fraction(333_333_333, 10**9))
    with av.open(io.BytesIO(encode(moving(8), rate))) as container:
        seconds = container.streams.video[0].duration * container.streams.video[0].time_base
    assert seconds == pytest.approx(8 / rate, rel=1e-8)


def test_a_clip_starts_with_a_keyframe_and_can_have_a_single_frame() -> None:
    with av.open(io.BytesIO(encode(moving(1)))) as container:
        (frame,) = container.decode(video=0)
        assert frame.key_frame
        assert container.streams.video[0].duration * container.streams.video[0].time_base == 1 / RATE


def test_the_colours_are_named_in_the_file() -> None:
    with av.open(io.BytesIO(encode(moving(2)))) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_range) == (BT709, ColorRange.MPEG)
        assert (context.color_primaries, context.color_trc) == (ColorPrimaries.BT709, ColorTrc.BT709)


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ((255, 0, 0), (63, 102, 240)),
        ((0, 255, 0), (173, 42, 26)),
        ((0, 0, 255), (32, 240, 118)),
        ((255, 255, 255), (235, 128, 128)),
        ((0, 0, 0), (16, 128, 128)),
    ],
)
def test_the_colours_are_what_their_name_says(colour: tuple[int, int, int], expected: tuple[int, int, int]) -> None:
    """Y, Cb and Cr as BT.709 gives them in limited range; BT.601 makes a red of (81, 90, 240), for example."""
    with av.open(io.BytesIO(encode([solid(colour)] * 3))) as container:
        frame = next(container.decode(video=0))
        planes = frame.to_ndarray()
    luma, chroma = planes[:96], planes[96:].reshape(2, 48, 32)
    seen = (luma.mean(), chroma[0].mean(), chroma[1].mean())
    assert np.abs(np.subtract(seen, expected)).max() <= 1


def test_a_clip_says_how_it_was_made_in_any_language_and_nothing_else() -> None:
    data = encode(moving(2), title="狐狸 🦊", comment="a\0b\nSteps: 25")
    with av.open(io.BytesIO(data)) as container:
        tags = {
            name: text for name, text in container.metadata.items() if "brand" not in name and "version" not in name
        }
    assert tags == {"title": "狐狸 🦊", "comment": "ab\nSteps: 25"}


def test_the_same_frames_give_the_same_bytes() -> None:
    assert encode(moving(20)) == encode(moving(20))


def test_an_encoder_that_is_given_up_lets_go_of_its_memory() -> None:
    encoder = Mp4Encoder(64, 96, RATE, title="", comment="")
    for frame in moving(12):
        encoder.add(frame)
    file = weakref.ref(encoder._file)
    container = weakref.ref(encoder)
    encoder.close()
    encoder.close()
    assert encoder._container is None
    del encoder
    # Nothing needs the collector of cycles.
    assert (file(), container()) == (None, None)


def test_an_encoder_that_was_never_used_can_be_given_up() -> None:
    encoder = Mp4Encoder(64, 96, RATE, title="", comment="")
    encoder.close()
    assert encoder._file.closed
    gc.collect()
