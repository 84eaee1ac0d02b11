"""Picture files that tests bring, good ones and bad ones."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def halves(width: int = 64, height: int = 48) -> Image.Image:
    """A picture whose left half is red and whose right half is blue."""
    picture = Image.new("RGB", (width, height), RED)
    picture.paste(BLUE, (width // 2, 0, width, height))
    return picture


def file_of(picture: Image.Image, format: str = "PNG", **options) -> bytes:  # noqa: A002  # Pillow's own word
    output = io.BytesIO()
    picture.save(output, format, **options)
    return output.getvalue()


def turned_jpeg() -> bytes:
    """A JPEG of 64×48 whose EXIF orientation turns it by 90° clockwise: upright it is 48×64, red above, blue below."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return file_of(halves(), "JPEG", exif=exif, quality=95)


def bomb() -> bytes:
    """A PNG of a few hundred bytes that says it has 100 megapixels."""
    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 10_001)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


HTML = b"<!doctype html><title>Sign in</title>" + b" " * 1000

BAD_FILES = {
    "empty": b"",
    "HTML": HTML,
    "a GIF": file_of(Image.new("P", (8, 8)), "GIF"),
    "a PNG cut short": file_of(halves(640, 480))[:-100],
    "a JPEG cut short": file_of(halves(640, 480), "JPEG")[:-100],
    "a decompression bomb": bomb(),
}
"""Files that can't be used as pictures, by what they are."""
