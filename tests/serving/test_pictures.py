"""Reading pictures from outside, and fitting them to a size."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ourvidz_serving.pictures import MIME_TYPES, BadPicture, letterbox, read_picture

RED, GREEN, BLUE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)


def to_file(picture: Image.Image, kind: str = "PNG", **more: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **more)
    return file.getvalue()


def halves(size: tuple[int, int] = (32, 16)) -> Image.Image:
    """Red at the left and blue at the right."""
    picture = Image.new("RGB", size, RED)
    picture.paste(BLUE, (size[0] // 2, 0, *size))
    return picture


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG with a header that says it has this size, and little in it."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND")


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def is_near(picture: Image.Image, place: tuple[int, int], colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(np.subtract(picture.getpixel(place), colour)).max() <= 8)


@pytest.mark.parametrize("kind", MIME_TYPES)
def test_a_picture_is_read_by_what_its_bytes_are(kind: str) -> None:
    picture = read_picture(to_file(halves(), kind, **({} if kind == "PNG" else {"quality": 95})))
    assert (picture.format, picture.mode, picture.size) == (kind, "RGB", (32, 16))
    assert is_near(picture, (2, 8), RED)
    assert is_near(picture, (29, 8), BLUE)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_every_kind_of_pixel_becomes_rgb(mode: str) -> None:
    white = Image.new("RGB", (16, 16), (255, 255, 255)).convert(mode)
    picture = read_picture(to_file(white, "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"))
    assert picture.mode == "RGB"
    assert is_near(picture, (8, 8), (255, 255, 255))


def test_grey_in_16_bits_keeps_its_shades() -> None:
    ramp = np.linspace(0, 65_535, 256, dtype=np.uint16)[None].repeat(4, axis=0)
    picture = read_picture(to_file(Image.fromarray(ramp)))
    expected = np.arange(256, dtype=np.uint8)[None, :, None].repeat(4, axis=0).repeat(3, axis=2)
    np.testing.assert_array_equal(np.asarray(picture), expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_is_black(mode: str) -> None:
    picture = Image.new("RGBA", (16, 16), (255, 255, 255, 0))
    picture.paste((255, 255, 255, 255), (0, 0, 8, 16))
    read = read_picture(to_file(picture.convert(mode)))
    assert (read.getpixel((4, 8)), read.getpixel((12, 8))) == ((255, 255, 255), BLACK)


def test_a_transparent_entry_of_a_palette_is_black() -> None:
    picture = Image.new("P", (16, 16))
    picture.putpalette([*RED, *GREEN])
    picture.paste(1, (0, 0, 8, 16))
    read = read_picture(to_file(picture, transparency=0))
    assert (read.getpixel((4, 8)), read.getpixel((12, 8))) == (GREEN, BLACK)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", MIME_TYPES)
def test_a_picture_is_upright_as_its_orientation_says(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    corners = halves((32, 32))
    corners.paste(GREEN, (16, 16, 32, 32))
    expected = corners.transpose(turned[orientation]) if orientation in turned else corners
    read = read_picture(to_file(corners, kind, exif=exif, **({} if kind == "PNG" else {"quality": 95})))
    for place in ((4, 4), (27, 4), (4, 27), (27, 27)):
        assert is_near(read, place, expected.getpixel(place)), place


def test_of_an_animation_the_first_frame_is_taken() -> None:
    data = to_file(Image.new("RGB", (16, 16), RED), "WEBP", save_all=True, append_images=[Image.new("RGB", (16, 16))])
    assert is_near(read_picture(data), (8, 8), RED)


def test_of_a_jpeg_with_several_pictures_the_first_one_is_taken() -> None:
    """Telephones make them: Pillow reads them as MPO."""
    data = to_file(Image.new("RGB", (16, 16), RED), "MPO", save_all=True, append_images=[Image.new("RGB", (16, 16))])
    picture = read_picture(data)
    assert picture.format == "JPEG"
    assert is_near(picture, (8, 8), RED)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a picture",
        b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        b"%PDF-1.7",
        to_file(halves(), "GIF"),
        to_file(halves(), "BMP"),
        to_file(halves(), "TIFF"),
        to_file(halves(), "JPEG")[:-40],
        to_file(halves(), "PNG")[:60],
        to_file(halves(), "WEBP")[:-10],
        png(64, 64),
        # 300 MB of text, packed into some kB.
        png(8, 8, chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(300_000_000), 9))),
    ],
    ids=[
        "empty",
        "text",
        "svg",
        "pdf",
        "gif",
        "bmp",
        "tiff",
        "short jpeg",
        "short png",
        "short webp",
        "few pixels",
        "long text",
    ],
)
def test_what_is_no_whole_picture_is_refused(data: bytes) -> None:
    with pytest.raises(BadPicture, match=r"^it is no whole PNG, JPEG or WebP file$"):
        read_picture(data)


@pytest.mark.parametrize(("width", "height"), [(7_072, 7_071), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_a_picture_of_too_many_pixels_is_refused_before_they_are_unpacked(width: int, height: int) -> None:
    with pytest.raises(BadPicture, match="megapixels"):
        read_picture(png(width, height))


def test_the_largest_picture_is_read() -> None:
    assert read_picture(to_file(Image.new("L", (10_000, 5_000)))).size == (10_000, 5_000)


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((100, 100), (0, 8, 32, 40)),
        ((32, 48), (0, 0, 32, 48)),
        ((64, 32), (0, 16, 32, 32)),
        ((16, 96), (12, 0, 20, 48)),
        ((8, 8), (0, 8, 32, 40)),
        ((5_000, 1), (0, 23, 32, 24)),
    ],
    ids=["square", "as it is", "wide", "tall", "small", "a line"],
)
def test_a_picture_is_as_large_as_fits_centred_on_black(size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = box
    fitted = np.asarray(letterbox(Image.new("RGB", size, RED), 32, 48))
    assert fitted.shape == (48, 32, 3)
    expected = np.zeros((48, 32, 3), np.uint8)
    expected[top:bottom, left:right] = RED
    np.testing.assert_array_equal(fitted, expected)


def test_fitting_a_picture_leaves_it_as_it_is(tmp_path: Path) -> None:
    picture = halves()
    before = picture.tobytes()
    letterbox(picture, 64, 64)
    assert picture.tobytes() == before
