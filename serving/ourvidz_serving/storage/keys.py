"""Which bucket names and keys every store accepts: S3's rules for buckets, and for keys what a folder can hold safely."""

import re
import unicodedata
from typing import Final

from ourvidz_serving.storage.errors import InvalidKey

MAX_KEY_BYTES: Final = 1024

_LABEL: Final = "[a-z0-9]+(?:-+[a-z0-9]+)*"
_BUCKET: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_IPV4: Final = re.compile(r"\d+\.\d+\.\d+\.\d+")


def check_bucket(bucket: str) -> None:
    """Raise `InvalidKey` unless S3 allows the bucket name: 3–63 of a–z, 0–9, hyphens and dots."""
    well_formed = 3 <= len(bucket) <= 63 and _BUCKET.fullmatch(bucket) and not _IPV4.fullmatch(bucket)
    reserved = bucket.startswith("xn--") or bucket.endswith(("-s3alias", "--ol-s3"))
    if not well_formed or reserved:
        raise InvalidKey(f"bucket {bucket!r}: 3 to 63 lower-case letters, digits, hyphens and dots are allowed")


def check_key(key: str) -> None:
    """Raise `InvalidKey` unless the key is 1–1024 bytes of UTF-8 in segments that name no other place.

    Refused are empty, `.` and `..` segments (so also a slash in front or at the end), backslashes and control
    characters.
    """
    if not key.strip():
        raise InvalidKey("the key is empty")
    _check_text(key)
    if any(segment in {"", ".", ".."} for segment in key.split("/")):
        raise InvalidKey(f"key {key!r}: empty, '.' and '..' segments are not allowed")


def check_prefix(prefix: str) -> None:
    """Raise `InvalidKey` unless a key can start with `prefix`; an empty one starts them all."""
    _check_text(prefix)
    if any(segment in {"", ".", ".."} for segment in prefix.split("/")[:-1]):
        raise InvalidKey(f"prefix {prefix!r}: empty, '.' and '..' segments are not allowed")


def _check_text(text: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidKey(f"key {text!r}: not Unicode text") from error
    if size > MAX_KEY_BYTES:
        raise InvalidKey(f"key of {size} bytes: at most {MAX_KEY_BYTES} are allowed")
    if "\\" in text or any(unicodedata.category(character) == "Cc" for character in text):
        raise InvalidKey(f"key {text!r}: backslashes and control characters are not allowed")
