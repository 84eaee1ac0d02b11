"""What a file is, as FFmpeg and Pillow read it."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from integration.stack import Stack

Frames = NDArray[np.uint8]
"""Frames × height × width × 3, RGB."""


def fetch(url: str) -> bytes:
    """Return what a signed URL opens, without a token."""
    return httpx.get(url, timeout=60, trust_env=False).raise_for_status().content


def frames_of(file: bytes) -> Frames:
    """Return all frames of a clip."""
    with av.open(io.BytesIO(file)) as clip:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in clip.decode(video=0)])


def picture_of(file: bytes) -> NDArray[np.uint8]:
    """Return a still image: height × width × 3, RGB."""
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def assert_is_the_promised_clip(file: bytes) -> None:
    """Check all that is promised of a clip: codec, size, length, colours, and that it starts before it is all there."""
    assert file.index(b"moov") < file.index(b"mdat")
    with av.open(io.BytesIO(file)) as clip:
        [stream] = clip.streams
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height) == (480, 832)
        assert stream.duration * stream.time_base == 5
        assert stream.average_rate == Fraction(83, 5)
        # BT.709 in all three places, limited range.
        context = stream.codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        assert sum(1 for _ in clip.decode(stream)) == 83


def drawing(colour: tuple[int, int, int], size: tuple[int, int] = (480, 832)) -> bytes:
    """Return a PNG: a bright disc on a ground of one colour."""
    width, height = size
    rows, columns = np.mgrid[:height, :width]
    pixels = np.full((height, width, 3), colour, np.uint8)
    pixels[(rows - height / 2) ** 2 + (columns - width / 2) ** 2 < (width / 4) ** 2] = (250, 240, 90)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def distance(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Return how far two pictures are from each other: the mean over all their values, of 255."""
    return float(np.abs(one.astype(np.int16) - other.astype(np.int16)).mean())


def upload(stack: Stack, user: str, file: bytes, name: str = "reference.png") -> str:
    """Upload a reference picture over REST; return its URL."""
    with stack.http(user) as http:
        reply = http.post("/api/upload-reference", files={"file": (name, file, "image/png")})
        assert reply.status_code == 200, reply.text
        return reply.json()["url"]
