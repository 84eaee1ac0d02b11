"""Previews: small JPEG pictures of the state at a step."""

from __future__ import annotations

import cv2

from ourvidz_serving.rendering.engine import Pixels

_MAX_SIDE_PX = 256
# At this quality even black and white noise stays within the contract's 64 kB.
_ENCODING = [cv2.IMWRITE_JPEG_QUALITY, 70]


def encode_preview(pixels: Pixels) -> bytes:
    """Return a JPEG of at most 256 pixels at its longer side and 64 kB.

    `pixels` is height × width × 3, RGB. It takes about a millisecond, so it may run on the event loop.
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, _MAX_SIDE_PX / max(height, width))
    picture = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    if scale < 1.0:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    encoded, data = cv2.imencode(".jpg", picture, _ENCODING)
    if not encoded:
        raise ValueError(f"OpenCV can't encode a picture of shape {pixels.shape}")
    return data.tobytes()
