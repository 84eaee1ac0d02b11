"""The client: jobs over gRPC, their files over HTTP."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, Unpack
from urllib.parse import urljoin

import httpx

from ourvidz.address import DEFAULT_ADDRESS, DEFAULT_URL, Address
from ourvidz.assets import Asset
from ourvidz.calls import files, jobs
from ourvidz.connection import CALL_TIMEOUT_S, LONGEST_PAGE, Connection
from ourvidz.credits import Credits
from ourvidz.downloads import CONNECT_TRIES, DOWNLOAD_TIMEOUT_S, PIECE_BYTES, new_file
from ourvidz.errors import Unavailable
from ourvidz.filters import AssetFilter, JobFilter
from ourvidz.generation import Generation
from ourvidz.job_options import JobOptions
from ourvidz.jobs import Job, JobEvent
from ourvidz.pages import Page
from ourvidz.queues import QueueStatus
from ourvidz.references import ReferenceImage
from ourvidz.watch import PATIENCE_S, Watch

__all__ = ["DEFAULT_ADDRESS", "DEFAULT_URL", "Client"]


class Client:
    """Jobs of one user: asked for, watched, and their files fetched. Safe to use from several threads.

    `address` is the gateway's gRPC `host:port`, `url` its REST base (only relative asset URLs need it), `token` the
    user's JWT. Nothing is connected before the first call. Close it, or use it in a `with`.

    A call that finds the service away is repeated for a moment where that does no harm. Each may take `timeout_s`
    seconds in all; a call's own `timeout_s` takes its place. Every call raises a kind of `OurVidzError`:
    `Unauthenticated`, `RateLimited` and `Unreachable` from all of them.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        token: str | None = None,
        *,
        url: str = DEFAULT_URL,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> None:
        self.address = address
        self._url = url
        self._connection = Connection(Address(address, token, url), timeout_s)
        self._http = httpx.Client(
            timeout=DOWNLOAD_TIMEOUT_S, follow_redirects=True, transport=httpx.HTTPTransport(retries=CONNECT_TRIES)
        )

    @classmethod
    def from_environment(cls, *, timeout_s: float = CALL_TIMEOUT_S) -> Self:
        """Make a client from `OURVIDZ_GRPC`, `OURVIDZ_URL` and `OURVIDZ_TOKEN`, or their defaults."""
        found = Address.from_environment()
        return cls(found.grpc, found.token, url=found.url, timeout_s=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; a `watch` that still runs ends with an error."""
        self._connection.close()
        self._http.close()

    def generate(
        self,
        job_type: str,
        prompt: str,
        *,
        previews: bool = False,
        patience_s: float = PATIENCE_S,
        **options: Unpack[JobOptions],
    ) -> Generation:
        """Ask for a job and follow it: iterate over its events, then take its `result()`.

            for event in (making := client.generate("sdxl_image_fast", "a lighthouse")):
                print(event.progress)
            client.download(making.result().assets[0], Path("lighthouse.png"))

        Raises what `create_job` raises; iterating raises what `watch` raises.
        """
        job = self.create_job(job_type, prompt, **options)
        return Generation(self, job, previews=previews, patience_s=patience_s)

    def create_job(
        self, job_type: str, prompt: str, *, timeout_s: float | None = None, **options: Unpack[JobOptions]
    ) -> Job:
        """Ask for a job. When this returns, the job is durable and will end in a terminal state.

        `JobOptions` says what else can be asked for. The same `request_id` within 24 hours answers with the same job.
        Raises `InvalidRequest`, `NoRenderer`, `QueueFull`, `InsufficientCredits` and `IdempotencyConflict`.
        """
        return self._connection.answer(jobs.create_job(job_type, prompt, options), timeout_s)

    def get_job(self, job_id: str, *, timeout_s: float | None = None) -> Job:
        """Return one job. Raises `JobNotFound`."""
        return self._connection.answer(jobs.get_job(job_id), timeout_s)

    def cancel_job(self, job_id: str, *, timeout_s: float | None = None) -> Job:
        """Cancel a job, and return it as it stands then; one that runs ends within a step, and one that ended stays.

        Outputs that were stored by then stay, too. Raises `JobNotFound`.
        """
        return self._connection.answer(jobs.cancel_job(job_id), timeout_s)

    def list_jobs(
        self,
        *,
        page_size: int = 20,
        page_token: str | None = None,
        timeout_s: float | None = None,
        **where: Unpack[JobFilter],
    ) -> Page[Job]:
        """Return a page of 1 to 100 jobs, newest first. Raises `InvalidRequest`."""
        return self._connection.answer(jobs.list_jobs(page_size, page_token, **where), timeout_s)

    def iter_jobs(self, **where: Unpack[JobFilter]) -> Iterator[Job]:
        """Yield jobs, newest first, asking for each page when it is needed. Raises `InvalidRequest`."""
        return self._connection.every(lambda token: jobs.list_jobs(LONGEST_PAGE, token, **where))

    def watch(
        self, job_id: str, *, resume_from: int = 0, previews: bool = False, patience_s: float = PATIENCE_S
    ) -> Generator[JobEvent, None, None]:
        """Yield the job's events, each once and in order, until the job has ended.

        `resume_from` is the `sequence` of the last event seen; 0 begins with the first. With `previews`, events
        without a number come in between, each with a small picture of what is being rendered.

        A stream that breaks is opened again after the last event, with growing pauses, until nothing was heard for
        `patience_s` seconds: then its last error is raised. Raises `JobNotFound`.
        """
        watch = Watch(job_id, resume_from=resume_from, previews=previews, patience_s=patience_s)
        while True:
            try:
                for event in self._connection.stream(watch.next_stream()):
                    if watch.is_news(event):
                        yield event
                        if event.state.terminal:
                            return
                # A stream that ends well before a terminal event: the caller has seen that one, or the server drains.
                if self.get_job(job_id).state.terminal:
                    return
            except Unavailable as error:
                watch.check_patience(error)
            time.sleep(watch.next_pause_s())

    def queue_status(self, *, timeout_s: float | None = None) -> QueueStatus:
        """Tell how full the queues are."""
        return self._connection.answer(jobs.queue_status(), timeout_s)

    def credits(self, *, timeout_s: float | None = None) -> Credits:
        """Return what the user can spend."""
        return self._connection.answer(jobs.credits_left(), timeout_s)

    def upload_reference(
        self, picture: Path | bytes, *, filename: str | None = None, timeout_s: float | None = None
    ) -> ReferenceImage:
        """Store a picture for jobs to follow: a PNG, JPEG or WebP file of at most 10 MiB and 50 megapixels.

        `filename` is kept for display; a file's own where it is not given. Raises `InvalidReferenceImage`,
        `FileTooLarge`, `StorageQuotaExceeded`, and `OSError` when the file can't be read.
        """
        with io.BytesIO(picture) if isinstance(picture, bytes) else picture.open("rb") as file:
            size = len(picture) if isinstance(picture, bytes) else os.fstat(file.fileno()).st_size
            name = filename if filename is not None else "" if isinstance(picture, bytes) else picture.name
            return self._connection.answer(files.upload_reference(_parts(file, name, size)), timeout_s)

    def list_reference_images(
        self, *, page_size: int = 20, page_token: str | None = None, timeout_s: float | None = None
    ) -> Page[ReferenceImage]:
        """Return a page of 1 to 100 uploaded pictures, newest first. Raises `InvalidRequest`."""
        return self._connection.answer(files.list_reference_images(page_size, page_token), timeout_s)

    def iter_reference_images(self) -> Iterator[ReferenceImage]:
        """Yield uploaded pictures, newest first, asking for each page when it is needed."""
        return self._connection.every(lambda token: files.list_reference_images(LONGEST_PAGE, token))

    def delete_reference_image(self, reference_image_id: str, *, timeout_s: float | None = None) -> None:
        """Delete an uploaded picture. Raises `ReferenceImageNotFound`, also when it was deleted before."""
        self._connection.answer(files.delete_reference_image(reference_image_id), timeout_s)

    def list_assets(
        self,
        *,
        page_size: int = 20,
        page_token: str | None = None,
        timeout_s: float | None = None,
        **where: Unpack[AssetFilter],
    ) -> Page[Asset]:
        """Return a page of 1 to 100 files that jobs made, newest first. Raises `InvalidRequest`."""
        return self._connection.answer(files.list_assets(page_size, page_token, **where), timeout_s)

    def iter_assets(self, **where: Unpack[AssetFilter]) -> Iterator[Asset]:
        """Yield files that jobs made, newest first, asking for each page when it is needed."""
        return self._connection.every(lambda token: files.list_assets(LONGEST_PAGE, token, **where))

    def delete_asset(self, asset_id: str, *, timeout_s: float | None = None) -> None:
        """Delete a file that a job made; the job stays. Raises `AssetNotFound`, also when it was deleted before."""
        self._connection.answer(files.delete_asset(asset_id), timeout_s)

    def download(self, asset: Asset, path: Path) -> None:
        """Write the asset's bytes to a new file.

        Raises `FileExistsError` if there is a file already, and `DownloadFailed`, leaving no file, if the bytes did
        not all come.
        """
        with (
            new_file(path, asset.size_bytes) as file,
            # The URL carries its own signature, and may lead to another host: the token stays here.
            self._http.stream("GET", urljoin(self._url, asset.url)) as response,
        ):
            response.raise_for_status()
            for piece in response.iter_bytes(PIECE_BYTES):
                file.write(piece)


def _parts(file: BinaryIO, name: str, size: int) -> Iterator[files.UploadPart]:
    yield files.upload_header(name, size)
    while chunk := file.read(files.CHUNK_BYTES):
        yield files.upload_chunk(chunk)
