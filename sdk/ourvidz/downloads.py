"""New files for downloads: whole, or not there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import httpx

from ourvidz.errors import DownloadFailed

DOWNLOAD_TIMEOUT_S = 60.0
"""How long the store may be silent."""
CONNECT_TRIES = 2
PIECE_BYTES = 2**18


@contextmanager
def new_file(path: Path, size_bytes: int) -> Iterator[BinaryIO]:
    """Give a new file to write a download into; it is deleted again unless all of it came.

    Raises `FileExistsError` if there is a file already, and `DownloadFailed` for what the store did wrong.
    """
    with path.open("xb") as file:
        try:
            yield file
            if file.tell() != size_bytes:
                raise DownloadFailed(f"{path.name}: {file.tell()} of {size_bytes} bytes came")
        except BaseException as error:
            path.unlink()
            if isinstance(error, httpx.HTTPStatusError):
                answer = error.response
                raise DownloadFailed(
                    f"{path.name}: the store answered {answer.status_code} {answer.reason_phrase}"
                ) from error
            if isinstance(error, httpx.HTTPError):
                raise DownloadFailed(f"{path.name}: {error}") from error
            raise
