"""Pictures that callers bring: read with every check that a file from outside needs, and fitted to a size.

What a file is gets read from its bytes, never from its name.
"""

from __future__ import annotations

import io
import warnings

from PIL import Image, ImageOps

MAX_FILE_BYTES = 10 * 2**20
MAX_PIXELS = 50_000_000
MIME_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
"""The formats that are read, by Pillow's name of each."""


class BadPicture(ValueError):
    """A file can't be used as a picture; the text says why, in words for whoever brought it."""


def read_picture(data: bytes) -> Image.Image:
    """Return the picture in a PNG, JPEG or WebP file: RGB, upright as its EXIF orientation says.

    What is transparent shows black behind it. Of an animation, the first frame is taken. The result's `format` is
    the file's. Raises `BadPicture` for another format, for a file that is broken or cut short, and, before its
    pixels are unpacked, for one of over 50 megapixels.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of large pictures before we can say that ours may be smaller still.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=list(MIME_TYPES)) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise BadPicture(
                        f"it has {opened.width}×{opened.height} pixels; at most {MAX_PIXELS // 10**6} megapixels are read"
                    )
                # A JPEG with more pictures behind the first, as telephones make them, is a format of its own to Pillow.
                name = "JPEG" if opened.format == "MPO" else opened.format
                picture = _to_rgb(ImageOps.exif_transpose(opened))
    except BadPicture:
        raise
    except Image.DecompressionBombError:
        raise BadPicture(f"it has more than {MAX_PIXELS // 10**6} megapixels") from None
    # Decoders meet broken files in many ways of their own, and none of them is a fault of ours.
    except Exception as error:
        raise BadPicture("it is no whole PNG, JPEG or WebP file") from error
    picture.format = name
    return picture


def letterbox(picture: Image.Image, width_px: int, height_px: int) -> Image.Image:
    """Return the picture as large as fits into a size, its aspect kept, centred on black; RGB."""
    scale = min(width_px / picture.width, height_px / picture.height)
    # Even of a picture that is far too thin, one line is seen.
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    fitted = Image.new("RGB", (width_px, height_px))
    place = (width_px - size[0]) // 2, (height_px - size[1]) // 2
    fitted.paste(picture.convert("RGB").resize(size, Image.Resampling.LANCZOS), place)
    return fitted


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):
        # Grey in 16 bits, of which Pillow would make white wherever it is not almost black.
        picture = picture.point(lambda value: value / 256).convert("L")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, (0, 0, 0, 255)), layer).convert("RGB")
    return picture.convert("RGB")
