"""PNG files with text in them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

import cv2

from ourvidz_serving.rendering.engine import Pixels

# Run-length matching weighs no more than zlib's search and takes a fraction of its time. As measured on 1024×1024 and
# one core of a 2-core machine: a photo-like picture 1.49 MB in 54 ms (Pillow's default: 1.53 MB in 387 ms; OpenCV's
# default: 1.61 MB in 33 ms), flat shapes 52 kB in 18 ms (56 kB; 59 kB), noise 3.11 MB in 53 ms (3.14 MB; 3.14 MB).
_ENCODING = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]

_HEADER_BYTES = 8 + 25
"""The signature and IHDR, which must come first: text goes right behind them."""


def encode_png(pixels: Pixels, texts: Mapping[str, str]) -> bytes:
    """Return a picture as a PNG file; the same input gives the same bytes.

    `pixels` is height × width × 3, RGB. Each of `texts` becomes an iTXt chunk; its keyword is 1 to 79 Latin-1
    characters. NUL, which PNG does not allow in text, is left out.
    """
    encoded, data = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), _ENCODING)
    if not encoded:
        raise ValueError(f"OpenCV can't encode a picture of shape {pixels.shape}")
    file = data.tobytes()
    chunks = b"".join(_text_chunk(keyword, text) for keyword, text in texts.items())
    return file[:_HEADER_BYTES] + chunks + file[_HEADER_BYTES:]


def _text_chunk(keyword: str, text: str) -> bytes:
    """An uncompressed iTXt chunk without a language."""
    body = b"iTXt" + keyword.encode("latin-1") + b"\0\0\0\0\0" + text.replace("\0", "").encode()
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
