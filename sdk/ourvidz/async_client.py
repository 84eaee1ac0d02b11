"""The client for asyncio: the same calls as `Client` makes, each awaited."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, Unpack
from urllib.parse import urljoin

import httpx

from ourvidz.address import DEFAULT_ADDRESS, DEFAULT_URL, Address
from ourvidz.assets import Asset
from ourvidz.calls import files, jobs
from ourvidz.connection import CALL_TIMEOUT_S, LONGEST_PAGE, AsyncConnection
from ourvidz.credits import Credits
from ourvidz.downloads import CONNECT_TRIES, DOWNLOAD_TIMEOUT_S, PIECE_BYTES, new_file
from ourvidz.errors import Unavailable
from ourvidz.filters import AssetFilter, JobFilter
from ourvidz.generation import AsyncGeneration
from ourvidz.job_options import JobOptions
from ourvidz.jobs import Job, JobEvent
from ourvidz.pages import Page
from ourvidz.queues import QueueStatus
from ourvidz.references import ReferenceImage
from ourvidz.watch import PATIENCE_S, Watch


class AsyncClient:
    """As `Client`, for asyncio: the same calls with the same results and errors, and any number of them at once.

    It belongs to the event loop that runs when its first call is made. Close it, or use it in an `async with`.
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
        self._connection = AsyncConnection(Address(address, token, url), timeout_s)
        self._http = httpx.AsyncClient(
            timeout=DOWNLOAD_TIMEOUT_S, follow_redirects=True, transport=httpx.AsyncHTTPTransport(retries=CONNECT_TRIES)
        )

    @classmethod
    def from_environment(cls, *, timeout_s: float = CALL_TIMEOUT_S) -> Self:
        """Make a client from `OURVIDZ_GRPC`, `OURVIDZ_URL` and `OURVIDZ_TOKEN`, or their defaults."""
        found = Address.from_environment()
        return cls(found.grpc, found.token, url=found.url, timeout_s=timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; calls that still run are cancelled."""
        await self._connection.close()
        await self._http.aclose()

    async def generate(
        self,
        job_type: str,
        prompt: str,
        *,
        previews: bool = False,
        patience_s: float = PATIENCE_S,
        **options: Unpack[JobOptions],
    ) -> AsyncGeneration:
        """Ask for a job and follow it: iterate over its events, then take its `result()`.

            making = await client.generate("sdxl_image_fast", "a lighthouse")
            async for event in making:
                print(event.progress)
            await client.download((await making.result()).assets[0], Path("lighthouse.png"))

        Raises what `create_job` raises; iterating raises what `watch` raises.
        """
        job = await self.create_job(job_type, prompt, **options)
        return AsyncGeneration(self, job, previews=previews, patience_s=patience_s)

    async def create_job(
        self, job_type: str, prompt: str, *, timeout_s: float | None = None, **options: Unpack[JobOptions]
    ) -> Job:
        """Ask for a job, as `Client.create_job` does."""
        return await self._connection.answer(jobs.create_job(job_type, prompt, options), timeout_s)

    async def get_job(self, job_id: str, *, timeout_s: float | None = None) -> Job:
        """Return one job. Raises `JobNotFound`."""
        return await self._connection.answer(jobs.get_job(job_id), timeout_s)

    async def cancel_job(self, job_id: str, *, timeout_s: float | None = None) -> Job:
        """Cancel a job, as `Client.cancel_job` does. Raises `JobNotFound`."""
        return await self._connection.answer(jobs.cancel_job(job_id), timeout_s)

    async def list_jobs(
        self,
        *,
        page_size: int = 20,
        page_token: str | None = None,
        timeout_s: float | None = None,
        **where: Unpack[JobFilter],
    ) -> Page[Job]:
        """Return a page of 1 to 100 jobs, newest first. Raises `InvalidRequest`."""
        return await self._connection.answer(jobs.list_jobs(page_size, page_token, **where), timeout_s)

    def iter_jobs(self, **where: Unpack[JobFilter]) -> AsyncIterator[Job]:
        """Yield jobs, newest first, asking for each page when it is needed. Raises `InvalidRequest`."""
        return self._connection.every(lambda token: jobs.list_jobs(LONGEST_PAGE, token, **where))

    async def watch(
        self, job_id: str, *, resume_from: int = 0, previews: bool = False, patience_s: float = PATIENCE_S
    ) -> AsyncGenerator[JobEvent, None]:
        """Yield the job's events, through broken streams, as `Client.watch` does. Raises `JobNotFound`."""
        watch = Watch(job_id, resume_from=resume_from, previews=previews, patience_s=patience_s)
        while True:
            try:
                async with aclosing(self._connection.stream(watch.next_stream())) as events:
                    async for event in events:
                        if watch.is_news(event):
                            yield event
                            if event.state.terminal:
                                return
                # A stream that ends well before a terminal event: the caller has seen that one, or the server drains.
                if (await self.get_job(job_id)).state.terminal:
                    return
            except Unavailable as error:
                watch.check_patience(error)
            await asyncio.sleep(watch.next_pause_s())

    async def queue_status(self, *, timeout_s: float | None = None) -> QueueStatus:
        """Tell how full the queues are."""
        return await self._connection.answer(jobs.queue_status(), timeout_s)

    async def credits(self, *, timeout_s: float | None = None) -> Credits:
        """Return what the user can spend."""
        return await self._connection.answer(jobs.credits_left(), timeout_s)

    async def upload_reference(
        self, picture: Path | bytes, *, filename: str | None = None, timeout_s: float | None = None
    ) -> ReferenceImage:
        """Store a picture for jobs to follow, as `Client.upload_reference` does."""
        opened = io.BytesIO(picture) if isinstance(picture, bytes) else await asyncio.to_thread(picture.open, "rb")
        with opened as file:
            size = len(picture) if isinstance(picture, bytes) else os.fstat(file.fileno()).st_size
            name = filename if filename is not None else "" if isinstance(picture, bytes) else picture.name
            return await self._connection.answer(files.upload_reference(_parts(file, name, size)), timeout_s)

    async def list_reference_images(
        self, *, page_size: int = 20, page_token: str | None = None, timeout_s: float | None = None
    ) -> Page[ReferenceImage]:
        """Return a page of 1 to 100 uploaded pictures, newest first. Raises `InvalidRequest`."""
        return await self._connection.answer(files.list_reference_images(page_size, page_token), timeout_s)

    def iter_reference_images(self) -> AsyncIterator[ReferenceImage]:
        """Yield uploaded pictures, newest first, asking for each page when it is needed."""
        return self._connection.every(lambda token: files.list_reference_images(LONGEST_PAGE, token))

    async def delete_reference_image(self, reference_image_id: str, *, timeout_s: float | None = None) -> None:
        """Delete an uploaded picture. Raises `ReferenceImageNotFound`, also when it was deleted before."""
        await self._connection.answer(files.delete_reference_image(reference_image_id), timeout_s)

    async def list_assets(
        self,
        *,
        page_size: int = 20,
        page_token: str | None = None,
        timeout_s: float | None = None,
        **where: Unpack[AssetFilter],
    ) -> Page[Asset]:
        """Return a page of 1 to 100 files that jobs made, newest first. Raises `InvalidRequest`."""
        return await self._connection.answer(files.list_assets(page_size, page_token, **where), timeout_s)

    def iter_assets(self, **where: Unpack[AssetFilter]) -> AsyncIterator[Asset]:
        """Yield files that jobs made, newest first, asking for each page when it is needed."""
        return self._connection.every(lambda token: files.list_assets(LONGEST_PAGE, token, **where))

    async def delete_asset(self, asset_id: str, *, timeout_s: float | None = None) -> None:
        """Delete a file that a job made; the job stays. Raises `AssetNotFound`, also when it was deleted before."""
        await self._connection.answer(files.delete_asset(asset_id), timeout_s)

    async def download(self, asset: Asset, path: Path) -> None:
        """Write the asset's bytes to a new file. Raises `FileExistsError` and `DownloadFailed` as `Client` does."""
        with new_file(path, asset.size_bytes) as file:
            async with self._http.stream("GET", urljoin(self._url, asset.url)) as response:
                response.raise_for_status()
                async for piece in response.aiter_bytes(PIECE_BYTES):
                    await asyncio.to_thread(file.write, piece)


async def _parts(file: BinaryIO, name: str, size: int) -> AsyncIterator[files.UploadPart]:
    yield files.upload_header(name, size)
    while chunk := await asyncio.to_thread(file.read, files.CHUNK_BYTES):
        yield files.upload_chunk(chunk)
