"""Reads an uploaded file: bounded while it comes, and spooled to disk where it is more than a megabyte."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from ourvidz_gateway.errors import InvalidReferenceImage, InvalidRequest
from ourvidz_gateway.references import FIELD, check_size
from ourvidz_serving.pictures import MAX_FILE_BYTES

MAX_FORM_BYTES = MAX_FILE_BYTES + 2**16
"""A file at its limit, and the form around it."""

MAX_FIELDS = 10
MAX_FIELD_BYTES = 2**14


@dataclass(frozen=True, slots=True)
class Upload:
    """A file as it came in."""

    data: bytes
    filename: str


async def read_upload(request: Request) -> Upload:
    """Return the file in the form's field `file`; other fields are ignored.

    Raises `FileTooLarge` as soon as it is, `InvalidReferenceImage` where there is no such form or field, and
    `InvalidRequest` for a body that ends early.
    """
    length = request.headers.get("Content-Length", "")
    if length.isdecimal():
        _check_form(int(length))
    if not request.headers.get("Content-Type", "").lower().startswith("multipart/form-data"):
        raise InvalidReferenceImage(f"Send a multipart form with the image in its field {FIELD}.", field=FIELD)
    parser = MultiPartParser(
        request.headers, _bounded(request), max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise InvalidReferenceImage(f"The multipart form can't be read: {error.message}", field=FIELD) from error
    except ClientDisconnect as error:
        raise InvalidRequest("The body ended early.") from error
    try:
        file = form.get(FIELD)
        if not isinstance(file, UploadFile):
            raise InvalidReferenceImage(f"The form has no file in its field {FIELD}.", field=FIELD)
        check_size(file.size or 0)
        return Upload(await file.read(), file.filename or "")
    finally:
        await form.close()


async def _bounded(request: Request) -> AsyncGenerator[bytes, None]:
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        _check_form(received)
        yield chunk


def _check_form(size_bytes: int) -> None:
    if size_bytes > MAX_FORM_BYTES:
        check_size(size_bytes)
