"""Tiny pictures that are real, and the sizes of those that callers bring; without an imaging library."""

from __future__ import annotations

import struct
import zlib
from importlib.resources import files

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG_SIZES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""The JPEG segments that say how large the picture is."""
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
"""The JPEG markers that no length follows."""


def png(width_px: int, height_px: int, seed: int) -> bytes:
    """Return a PNG of this size in one colour, which follows from the seed; it weighs a few hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    # One bit for each pixel, and a palette of one colour.
    rows = (b"\0" * (1 + (width_px + 7) // 8)) * height_px
    return b"".join(
        (
            _PNG,
            chunk(b"IHDR", struct.pack(">IIBBBBB", width_px, height_px, 1, 3, 0, 0, 0)),
            chunk(b"PLTE", zlib.crc32(seed.to_bytes(8, "big")).to_bytes(4, "big")[:3]),
            chunk(b"tEXt", b"seed\0" + str(seed).encode()),
            chunk(b"IDAT", zlib.compress(rows, 9)),
            chunk(b"IEND", b""),
        )
    )


def clip() -> bytes:
    """Return an MP4 of 5 seconds in 480×832, always the same one."""
    return files(__package__).joinpath("clip.mp4").read_bytes()


def preview() -> bytes:
    """Return a JPEG, always the same one."""
    return files(__package__).joinpath("preview.jpg").read_bytes()


def describe(data: bytes) -> tuple[str, int, int] | None:
    """Return MIME type, width and height of a PNG, JPEG or WebP file; None for anything else.

    Only its head is read, and whether it has an end: one that is broken in between passes here, and not in the service.
    """
    try:
        if data.startswith(_PNG) and b"IEND" in data[33:]:
            return ("image/png", *struct.unpack_from(">II", data, 16))
        if data.startswith(b"\xff\xd8") and b"\xff\xd9" in data:
            return ("image/jpeg", *_jpeg_size(data))
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP" and struct.unpack_from("<I", data, 4)[0] + 8 <= len(data):
            return ("image/webp", *_webp_size(data))
    except (struct.error, IndexError):
        pass
    return None


def _jpeg_size(data: bytes) -> tuple[int, int]:
    place = 2
    while data[place] == 0xFF:
        kind = data[place + 1]
        if kind in _JPEG_SIZES:
            height_px, width_px = struct.unpack_from(">HH", data, place + 5)
            return width_px, height_px
        place += 2 if kind in _JPEG_BARE else 2 + struct.unpack_from(">H", data, place + 2)[0]
    raise IndexError("no segment says the size")


def _webp_size(data: bytes) -> tuple[int, int]:
    match data[12:16]:
        case b"VP8X":
            low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", data, 24)
            return 1 + low_width + (high_width << 16), 1 + low_height + (high_height << 16)
        case b"VP8L":
            (packed,) = struct.unpack_from("<I", data, 21)
            return 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
        case _:
            width_px, height_px = struct.unpack_from("<HH", data, 26)
            return width_px & 0x3FFF, height_px & 0x3FFF
