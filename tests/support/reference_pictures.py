"""Pictures to follow."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw

from ourvidz_serving.rendering.engine import Pixels


def scene(side: int) -> Pixels:
    """A yellow disc over green ground before a blue sky, and a red post: large areas of clear colours."""
    picture = Image.new("RGB", (side, side), (40, 90, 200))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((side * 0.2, side * 0.15, side * 0.7, side * 0.65), fill=(230, 200, 40))
    draw.rectangle((0, side * 0.7, side, side), fill=(30, 120, 50))
    draw.rectangle((side * 0.8, side * 0.1, side * 0.92, side * 0.9), fill=(200, 30, 30))
    return np.asarray(picture)


def plain(side: int, colour: tuple[int, int, int]) -> Pixels:
    return np.full((side, side, 3), colour, np.uint8)


def as_png(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
