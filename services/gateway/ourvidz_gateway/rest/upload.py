"""Reads an uploaded file out of a multipart form: bounded while it comes, and in memory, since it is small."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect

from ourvidz_gateway.errors import InvalidReferenceImage, InvalidRequest
from ourvidz_gateway.uploads import FIELD, check_size
from ourvidz_serving.pictures import MAX_FILE_BYTES

MAX_FORM_BYTES = MAX_FILE_BYTES + 2**16
"""A file at its limit, and the form around it."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A file as it came in."""

    data: bytes
    filename: str
    """Empty if none was given."""


async def read_upload(request: Request) -> Upload:
    """Return the form's field `file`; other fields are ignored.

    Raises `FileTooLarge` as soon as it is, `InvalidReferenceImage` where there is no such form or field, and
    `InvalidRequest` for a body that ends early.
    """
    length = request.headers.get("Content-Length", "")
    if length.isdecimal():
        _check_form(int(length))
    form = _Form(request.headers.get("Content-Type", ""))
    received = 0
    try:
        async for chunk in request.stream():
            received += len(chunk)
            _check_form(received)
            form.write(chunk)
    except ClientDisconnect as error:
        raise InvalidRequest("The body ended early.") from error
    if form.upload is None:
        raise InvalidReferenceImage(f"The form has no whole file in its field {FIELD}.", field=FIELD)
    check_size(len(form.upload.data))
    return form.upload


def _check_form(size_bytes: int) -> None:
    if size_bytes > MAX_FORM_BYTES:
        check_size(size_bytes)


class _Form:
    """Picks the file out of a form while it is written."""

    def __init__(self, content_type: str) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise InvalidReferenceImage(f"Send a multipart form with the image in its field {FIELD}.", field=FIELD)
        self.upload: Upload | None = None
        self._name, self._value = bytearray(), bytearray()
        self._filename = ""
        self._data: bytearray | None = None
        """Of the part that is being read; None while that is not the file."""
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._on_part_end,
                },
            )
        except FormParserError as error:
            raise _unreadable() from error

    def write(self, chunk: bytes) -> None:
        """Take the next bytes of the form. Raises `InvalidReferenceImage` for what is none."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _unreadable() from error

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            if options.get(b"name") == FIELD.encode():
                self._filename = options.get(b"filename", b"").decode(errors="replace")
                self._data = bytearray()
        self._name.clear()
        self._value.clear()

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._data is not None:
            self._data += data[start:end]

    def _on_part_end(self) -> None:
        if self._data is None:
            return
        if self.upload is not None:
            raise InvalidReferenceImage(f"The form has more than one file in its field {FIELD}.", field=FIELD)
        self.upload = Upload(bytes(self._data), self._filename)
        self._data = None


def _unreadable() -> InvalidReferenceImage:
    return InvalidReferenceImage("The multipart form can't be read.", field=FIELD)
