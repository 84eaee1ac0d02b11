"""PNG and MP4 files at equal size and quality: ours, Pillow's default, and diffusers' `export_to_video`."""

from __future__ import annotations

import io
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median

import av
import cv2
import numpy as np
from diffusers.utils import export_to_video
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from ourvidz_bench.results import Row
from ourvidz_serving.rendering.engine import Pixels
from ourvidz_serving.rendering.png import encode_png
from ourvidz_wan.mp4 import Mp4Encoder

TITLE = "Pictures and clips as files"
TEXT = (
    "Pictures are made up with the statistics of photographs: noise whose amplitude falls with frequency as 1/f, a gradient "
    "of light, ellipses with sharp edges, and sensor noise of 1.5 of 255 (grainy), blurred by one pixel for the soft one, as "
    "decoders leave pictures. A clip pans over such a picture, with new noise in "
    "each frame. PNG has no loss: sizes are told. For the clip, `export_to_video` gets the quality at which it chooses "
    "ours, CRF 18; sizes and PSNR of luma are told. Processor time counts the encoder's own processes and threads; frames "
    "are given as 8-bit RGB, and what comes out is a file of ours in memory, theirs on the disk."
)
PACKAGES = ("opencv-python-headless", "pillow", "av", "diffusers", "imageio", "imageio-ffmpeg")

SIDE = 1024
CLIP_SIZE = (480, 832)
FRAME_COUNT = 83
RATE = Fraction(FRAME_COUNT, 5)
THEIR_QUALITY = 6.4
"""imageio turns it into CRF int(51 × (1 − 0.64)) = 18."""


async def measure(rounds: int, console: Console) -> list[Row]:
    """Encode the same picture and the same clip both ways in turn."""
    grainy, frames = photo(SIDE, SIDE, 1), clip()
    pictures = {"soft": cv2.GaussianBlur(grainy, (0, 0), 1.0), "grainy": grainy}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "theirs.mp4"
        console.print(f"pictures of {SIDE}×{SIDE}")
        pngs = {
            name: _in_turn(rounds, partial(encode_png, picture, {}), partial(_pillow, picture), repeats=5)
            for name, picture in pictures.items()
        }
        console.print(f"a clip of {FRAME_COUNT} frames")
        mp4 = _in_turn(rounds, lambda: _our_clip(frames), lambda: _their_clip(frames, path), repeats=1)
    rows = []
    for name, png in pngs.items():
        for file in png.files:
            if not np.array_equal(np.asarray(Image.open(io.BytesIO(file))), pictures[name]):
                raise RuntimeError(f"a PNG of the {name} picture does not hold it")
        note = "{} and {}, both without loss.".format(*map(_size, png.files))
        rows += _rows(
            f"1024² PNG, {name}", png, f"Pillow {version('pillow')}", "≤ 0.14", note, equal=_as_small(png.files)
        )
    ours_db, theirs_db = (
        luma_psnr(file, frames, weights) for file, weights in zip(mp4.files, (_BT709, _BT601), strict=True)
    )
    note = f"{_size(mp4.files[0])} at {ours_db:.1f} dB and {_size(mp4.files[1])} at {theirs_db:.1f} dB."
    equal = _as_small(mp4.files) and ours_db > theirs_db - 0.3
    beside = f"export_to_video, diffusers {version('diffusers')}"
    return rows + _rows("83-frame MP4", mp4, beside, "≤ 0.36", note, equal=equal)


def _as_small(files: tuple[bytes, bytes]) -> bool:
    """Whether ours is no more than 5 % larger than theirs."""
    return len(files[0]) <= 1.05 * len(files[1])


def _size(file: bytes) -> str:
    return f"{len(file) / 1e6:.2f} MB"


@dataclass(frozen=True)
class Timed:
    """Milliseconds of processor and of clock, round by round, and one file of each; ours first."""

    processor: tuple[list[float], list[float]]
    clock: tuple[list[float], list[float]]
    files: tuple[bytes, bytes]


def photo(width: int, height: int, seed: int) -> Pixels:
    """Return a made-up picture, height × width × 3, with the statistics of a photograph."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = 1
    # A common brightness, and colours that differ from it by less.
    layers = [np.fft.irfft2(np.fft.rfft2(random.normal(size=(height, width))) / frequency) for _ in range(4)]
    brightness, *colours = [layer / layer.std() for layer in layers]
    light = np.linspace(-40, 40, height)[:, None, None]
    picture = 120 + 35 * brightness[..., None] + 12 * np.stack(colours, axis=-1) + light
    canvas = np.ascontiguousarray(picture, np.float32)
    for _ in range(12):
        centre = [int(random.integers(0, side)) for side in (width, height)]
        axes = [int(random.integers(20, width // 6)) for _ in range(2)]
        shade = np.zeros((height, width), np.uint8)
        cv2.ellipse(shade, centre, axes, float(random.uniform(0, 180)), 0, 360, 255, -1, cv2.LINE_AA)
        canvas += (shade[..., None] / 255.0) * random.uniform(-45, 45, 3)
    canvas += random.normal(0, 1.5, canvas.shape)
    return np.clip(canvas, 0, 255).astype(np.uint8)


def clip() -> list[Pixels]:
    """Return frames that pan over a larger picture, each with sensor noise of its own."""
    width, height = CLIP_SIZE
    random = np.random.default_rng(2)
    scene = photo(width + 2 * FRAME_COUNT, height + FRAME_COUNT, 3)
    return [
        np.clip(
            scene[index : index + height, 2 * index : 2 * index + width] + random.normal(0, 1.5, (height, width, 3)),
            0,
            255,
        ).astype(np.uint8)
        for index in range(FRAME_COUNT)
    ]


_BT709 = (0.2126, 0.7152, 0.0722)
_BT601 = (0.299, 0.587, 0.114)
"""What FFmpeg converts by when nobody says otherwise."""


def luma_psnr(file: bytes, frames: list[Pixels], weights: tuple[float, float, float]) -> float:
    """Return how near a clip's brightness is to what was encoded, in decibels over all frames."""
    error: list[float] = []
    with av.open(io.BytesIO(file)) as container:
        for frame, pixels in zip(container.decode(video=0), frames, strict=True):
            height, width = pixels.shape[:2]
            luma: NDArray[np.float64] = (frame.to_ndarray()[:height, :width].astype(float) - 16) * 255 / 219
            error.append(float(np.mean((luma - pixels @ np.array(weights)) ** 2)))
    return float(10 * np.log10(255**2 / np.mean(error)))


def _in_turn(rounds: int, ours: Callable[[], bytes], theirs: Callable[[], bytes], *, repeats: int) -> Timed:
    files = ours(), theirs()  # also warms both up
    taken: list[list[tuple[float, float]]] = [[], []]
    for _ in range(rounds):
        for each, encode in zip(taken, (ours, theirs), strict=True):
            each.append(_timed(encode, repeats))
    processor, clock = ([[figures[index] for figures in each] for each in taken] for index in range(2))
    return Timed((processor[0], processor[1]), (clock[0], clock[1]), files)


def _timed(encode: Callable[[], bytes], repeats: int) -> tuple[float, float]:
    """Return the median milliseconds of processor and of clock."""
    figures = []
    for _ in range(repeats):
        processor, clock = _processor_s(), time.perf_counter()
        encode()
        figures.append((_processor_s() - processor, time.perf_counter() - clock))
    return 1e3 * median(each[0] for each in figures), 1e3 * median(each[1] for each in figures)


def _processor_s() -> float:
    """What this process has used, and its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _rows(what: str, timed: Timed, beside: str, goal: str, note: str, *, equal: bool) -> list[Row]:
    row = Row(f"{what}, processor time", "ms", timed.processor[0], beside, timed.processor[1], goal, note)
    if not equal:
        # A goal that is met with a larger or a worse file is not met; one that is missed is missed all the more.
        row = replace(
            row, goal="" if row.met else goal, note=f"{note} Not at equal size and quality; the goal is {goal}."
        )
    return [row, Row(f"{what}, wall time", "ms", timed.clock[0], beside, timed.clock[1])]


def _pillow(picture: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def _our_clip(frames: list[Pixels]) -> bytes:
    encoder = Mp4Encoder(*CLIP_SIZE, RATE, title="", comment="")
    for frame in frames:
        encoder.add(frame)
    return encoder.finish()


def _their_clip(frames: list[Pixels], path: Path) -> bytes:
    export_to_video([Image.fromarray(frame) for frame in frames], str(path), fps=float(RATE), quality=THEIR_QUALITY)
    return path.read_bytes()
