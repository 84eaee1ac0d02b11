"""The outputs of one render on their way into object storage."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from ourvidz.api.render.v1 import render_pb2
from ourvidz_serving.engines.errors import FailedInEngine
from ourvidz_serving.errors import ServiceError
from ourvidz_serving.rendering.clips import ClipEncoderFactory, ClipEncoding
from ourvidz_serving.rendering.engine import Pixels
from ourvidz_serving.rendering.errors import OutputTooLarge, StorageUnavailable, from_store
from ourvidz_serving.rendering.manifest import manifest_key, read_manifest, request_sha256, to_json
from ourvidz_serving.rendering.parameters import describe
from ourvidz_serving.rendering.png import encode_png
from ourvidz_serving.rendering.uploads import Uploads
from ourvidz_serving.rendering.work import frame_rate, size_of
from ourvidz_serving.storage import ObjectExists, StoreError


class OutputWriter:
    """Encodes and stores the outputs of one render while the engine goes on with the next picture or frame.

    Outputs are put plainly, so that a render can write over what an earlier try under the same id left behind when
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
        clip_encoder: ClipEncoderFactory | None,
        on_uploading: Callable[[int], None],
        on_failure: Callable[[ServiceError], None],
    ) -> None:
        """Prepare for the outputs of `request`.

        `clip_encoder` is needed for a clip. `on_uploading` is told the index of each output whose upload begins,
        `on_failure` why an output can't be stored.
        """
        self.seconds = {"encode": 0.0, "upload": 0.0}
        """Time spent so far, summed over the outputs."""
        self._is_clip = request.HasField("clip")
        self._expected = request.clip.frame_count if self._is_clip else request.images.image_count
        self._taken = 0
        self._uploads = uploads
        self._request = request
        self._seed = seed
        self._model = model
        self._on_uploading = on_uploading
        self._on_failure = on_failure
        self._clip_encoder = clip_encoder
        self._clip: ClipEncoding | None = None
        self._tasks: list[asyncio.Task[render_pb2.Output | None]] = []
        self._latest: float | None = None
        self._deadlines: set[asyncio.Timeout] = set()

    async def take(self, index: int, pixels: Pixels) -> None:
        """Take a finished picture, or the next frame of a clip; returns once there is room for it.

        What is complete is stored in the background. Raises `StorageUnavailable` when no room came free in time, and
        `FailedInEngine` for another size than the request's.
        """
        width_px, height_px = size_of(self._request)
        if pixels.shape != (height_px, width_px, 3):
            raise FailedInEngine(f"the engine made a picture of shape {pixels.shape}, not {width_px}×{height_px}")
        self._taken += 1
        if not self._is_clip:
            await self._start(index, lambda: self._encode_picture(index, pixels))
        elif self._taken <= self._expected:
            await self._take_frame(pixels)

    async def stored(self) -> list[render_pb2.Output]:
        """Wait until nothing is on its way any more, and return the outputs that are stored, in order."""
        if self._is_clip and self._taken < self._expected:
            await self.discard()
        elif self._tasks:
            await asyncio.wait(self._tasks)
        outputs = [task.result() for task in self._tasks if not task.cancelled()]
        return [output for output in outputs if output is not None]

    def check_complete(self) -> None:
        """Raise `FailedInEngine` unless as many pictures or frames were taken as the request asks for."""
        if self._taken != self._expected:
            what = "frames" if self._is_clip else "pictures"
            raise FailedInEngine(f"the engine made {self._taken} {what} instead of {self._expected}")

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
        """Leave what is on its way no more than this time, because the render was stopped.

        A clip without its last frames is given up at once.
        """
        if self._is_clip and self._taken < self._expected:
            self._give_up()
        self._latest = asyncio.get_running_loop().time() + seconds
        for deadline in self._deadlines:
            # One that has just run out can't be moved any more.
            if not deadline.expired():
                deadline.reschedule(self._latest)

    async def discard(self) -> None:
        """Give up what is on its way."""
        self._give_up()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _give_up(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._clip is not None:
            self._clip.close()

    async def _take_frame(self, pixels: Pixels) -> None:
        if self._clip is None:
            clip = self._clip = self._begin_clip()
            await self._start(0, lambda: self._encode_clip(clip))
        await self._clip.add(pixels)

    def _begin_clip(self) -> ClipEncoding:
        if self._clip_encoder is None:
            raise RuntimeError("a clip was let in, and nothing is there to encode it")
        encoder = self._clip_encoder(
            *size_of(self._request),
            frame_rate(self._request.clip),
            title=self._request.clip.sampling.prompt,
            comment=describe(self._request, seed=self._seed, model=self._model),
        )
        return ClipEncoding(encoder, self._expected)

    async def _start(self, index: int, encode: Callable[[], Awaitable[bytes]]) -> None:
        """Encode and store an output in the background, once there is a place for it."""
        async with self._patience():
            await self._uploads.places.acquire()
        task = asyncio.create_task(self._store(index, encode), name=f"store-output-{index}")
        task.add_done_callback(lambda _: self._uploads.places.release())
        self._tasks.append(task)

    async def _store(self, index: int, encode: Callable[[], Awaitable[bytes]]) -> render_pb2.Output | None:
        """Encode and upload one output; None, and `on_failure` is told, when that can't be done."""
        try:
            data = await encode()
            # What was encoded may weigh more than the file, and an upload can take long.
            del encode
            return await self._upload(index, data)
        except StoreError as error:
            self._on_failure(from_store(error))
        except ServiceError as error:
            self._on_failure(error)
        return None

    async def _encode_picture(self, index: int, pixels: Pixels) -> bytes:
        text = describe(self._request, seed=self._seed_of(index), model=self._model)
        started = time.perf_counter()
        data = await asyncio.to_thread(encode_png, pixels, {"Software": "OurVidz", "parameters": text})
        self.seconds["encode"] += time.perf_counter() - started
        return data

    async def _encode_clip(self, clip: ClipEncoding) -> bytes:
        data = await clip.encode()
        self.seconds["encode"] = clip.seconds
        return data

    async def _upload(self, index: int, data: bytes) -> render_pb2.Output:
        request = self._request
        limit = request.output.max_bytes
        if limit and len(data) > limit:
            raise OutputTooLarge(f"output {index} weighs {len(data):,} bytes; the limit is {limit:,} bytes")
        width_px, height_px = size_of(request)
        output = render_pb2.Output(
            bucket=request.output.bucket,
            key=f"{request.output.prefix}/{index}.{'mp4' if self._is_clip else 'png'}",
            mime_type="video/mp4" if self._is_clip else "image/png",
            size_bytes=len(data),
            sha256=(await asyncio.to_thread(hashlib.sha256, data)).digest(),
            width_px=width_px,
            height_px=height_px,
            seed=self._seed_of(index),
            frame_count=self._expected if self._is_clip else 1,
            duration=request.clip.duration if self._is_clip else None,
        )
        self._on_uploading(index)
        started = time.perf_counter()
        async with self._patience():
            await self._uploads.put(output.bucket, output.key, data, content_type=output.mime_type)
        self.seconds["upload"] += time.perf_counter() - started
        return output

    def _seed_of(self, index: int) -> int:
        return (self._seed + index) % 2**32

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
