"""The outputs of one render on their way into object storage."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from ourvidz.api.render.v1 import render_pb2
from ourvidz_serving.errors import ServiceError
from ourvidz_serving.rendering.engine import Pixels
from ourvidz_serving.rendering.errors import OutputTooLarge, StorageUnavailable, from_store
from ourvidz_serving.rendering.manifest import manifest_key, read_manifest, request_sha256, to_json
from ourvidz_serving.rendering.parameters import describe
from ourvidz_serving.rendering.png import encode_png
from ourvidz_serving.rendering.uploads import Uploads
from ourvidz_serving.storage import ObjectExists, StoreError


class OutputWriter:
    """Encodes and stores the pictures of one render while the engine goes on with the next one.

    Pictures are put plainly, so that a render can write over what an earlier try under the same id left behind when
    its server died. That nothing complete is overwritten is the manifest's doing: it is looked for before a render
    starts, and written last and only where none is.
    """

    def __init__(
        self,
        uploads: Uploads,
        request: render_pb2.RenderRequest,
        *,
        seed: int,
        model: str,
        on_uploading: Callable[[int], None],
        on_failure: Callable[[ServiceError], None],
    ) -> None:
        """Prepare for the outputs of `request`.

        `on_uploading` is told the index of each output whose upload begins, `on_failure` why an output can't be stored.
        """
        self.seconds = {"encode": 0.0, "upload": 0.0}
        """Time spent so far, summed over the outputs."""
        self._uploads = uploads
        self._request = request
        self._seed = seed
        self._model = model
        self._on_uploading = on_uploading
        self._on_failure = on_failure
        self._tasks: list[asyncio.Task[render_pb2.Output | None]] = []
        self._latest: float | None = None
        self._deadlines: set[asyncio.Timeout] = set()

    async def take(self, index: int, pixels: Pixels) -> None:
        """Take a finished picture; returns once there is room for it, and stores it in the background.

        Raises `StorageUnavailable` when no room came free in time.
        """
        async with self._patience():
            await self._uploads.places.acquire()
        task = asyncio.create_task(self._store(index, pixels), name=f"store-output-{index}")
        task.add_done_callback(lambda _: self._uploads.places.release())
        self._tasks.append(task)

    async def stored(self) -> list[render_pb2.Output]:
        """Wait until nothing is on its way any more, and return the outputs that are stored, in order."""
        outputs = await asyncio.gather(*self._tasks)
        return [output for output in outputs if output is not None]

    async def seal(self, finished: render_pb2.Finished, index: int) -> None:
        """Write the manifest, which makes the render complete. `index` is the index of its last event.

        Raises `RenderExists` if another render was sealed in this place, and `StorageUnavailable`.
        """
        manifest = render_pb2.Manifest(
            render_id=self._request.render_id,
            request_sha256=request_sha256(self._request),
            finished=finished,
            finished_index=index,
        )
        output = self._request.output
        try:
            async with self._patience():
                await self._uploads.put(
                    output.bucket,
                    manifest_key(output),
                    to_json(manifest),
                    content_type="application/json",
                    if_absent=True,
                )
        except ObjectExists:
            # An upload that failed may have been written all the same: it is fine if the manifest there is our own.
            await read_manifest(self._uploads.store, self._request)
        except StoreError as error:
            raise from_store(error) from error

    def hurry(self, seconds: float) -> None:
        """Leave what is on its way no more than this time, because the render was stopped."""
        self._latest = asyncio.get_running_loop().time() + seconds
        for deadline in self._deadlines:
            # One that has just run out can't be moved any more.
            if not deadline.expired():
                deadline.reschedule(self._latest)

    async def discard(self) -> None:
        """Give up what is on its way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _store(self, index: int, pixels: Pixels) -> render_pb2.Output | None:
        """Encode and upload one picture; None, and `on_failure` is told, when that can't be done."""
        try:
            return await self._encode_and_upload(index, pixels)
        except StoreError as error:
            self._on_failure(from_store(error))
        except ServiceError as error:
            self._on_failure(error)
        return None

    async def _encode_and_upload(self, index: int, pixels: Pixels) -> render_pb2.Output:
        request, height_px, width_px = self._request, *pixels.shape[:2]
        seed = (self._seed + index) % 2**32
        texts = describe(request.images, seed=seed, model=self._model)
        started = time.perf_counter()
        data = await asyncio.to_thread(encode_png, pixels, texts)
        # The raw picture may weigh more than the file, and an upload can take long.
        del pixels
        self.seconds["encode"] += time.perf_counter() - started

        limit = request.output.max_bytes
        if limit and len(data) > limit:
            raise OutputTooLarge(f"output {index} weighs {len(data):,} bytes; the limit is {limit:,} bytes")
        output = render_pb2.Output(
            bucket=request.output.bucket,
            key=f"{request.output.prefix}/{index}.png",
            mime_type="image/png",
            size_bytes=len(data),
            sha256=hashlib.sha256(data).digest(),
            width_px=width_px,
            height_px=height_px,
            seed=seed,
            frame_count=1,
        )
        self._on_uploading(index)
        started = time.perf_counter()
        async with self._patience():
            await self._uploads.put(output.bucket, output.key, data, content_type=output.mime_type)
        self.seconds["upload"] += time.perf_counter() - started
        return output

    @asynccontextmanager
    async def _patience(self) -> AsyncIterator[None]:
        """Bound the time that something may wait for storage; `hurry` cuts it short."""
        patience_s = self._uploads.policy.upload_patience_s
        end = self._latest
        if end is None:
            end = asyncio.get_running_loop().time() + patience_s
        try:
            async with asyncio.timeout_at(end) as deadline:
                self._deadlines.add(deadline)
                try:
                    yield
                finally:
                    self._deadlines.discard(deadline)
        except TimeoutError:
            raise StorageUnavailable(
                f"object storage was out of reach for {patience_s:g} s; the outputs could not be stored"
            ) from None
