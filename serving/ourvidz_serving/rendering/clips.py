"""Clips on their way from frames to a file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any, Protocol, TypeVar

from ourvidz_serving.rendering.engine import Pixels

Result = TypeVar("Result")

_FRAMES_IN_HAND = 4
"""How many frames are at the encoder, the one in its hands included, before the engine is held back; one of 480×832 is
1.2 MB."""


class ClipEncoder(Protocol):
    """Makes one file of one clip. It may be called from any thread, by one at a time, and every call may block."""

    def add(self, pixels: Pixels) -> None:
        """Encode the next frame: height × width × 3, RGB."""
        ...

    def finish(self) -> bytes:
        """Return the whole file."""
        ...

    def close(self) -> None:
        """Let go of all memory, finished or not."""
        ...


class ClipEncoderFactory(Protocol):
    """Begins the encoding of a `video/mp4` file; the encoder's class itself is one."""

    def __call__(self, width_px: int, height_px: int, frame_rate: Fraction, *, title: str, comment: str) -> ClipEncoder:
        """Return the encoder of one clip; `title` and `comment` go into the file."""
        ...


class ClipEncoding:
    """One clip that is encoded in a thread of its own while its later frames are still being made."""

    def __init__(self, encoder: ClipEncoder, frame_count: int) -> None:
        """Encode `frame_count` frames; `encoder` belongs to this object from now on."""
        self.seconds = 0.0
        """Time spent with the encoder so far."""
        self._encoder = encoder
        self._frame_count = frame_count
        self._frames: asyncio.Queue[Pixels] = asyncio.Queue()
        self._room = asyncio.Semaphore(_FRAMES_IN_HAND)
        # A single thread, so that the encoder is never called twice at once, not even to close it.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="clip-encoder")
        self._closed = False

    async def add(self, pixels: Pixels) -> None:
        """Hand over the next frame; returns once there is room for it. Nothing happens after `close`."""
        await self._room.acquire()
        if not self._closed:
            self._frames.put_nowait(pixels)

    async def encode(self) -> bytes:
        """Encode the frames as they come and return the file after the last one; `close` in any case."""
        try:
            for _ in range(self._frame_count):
                await self._call(self._encoder.add, await self._frames.get())
                self._room.release()
            return await self._call(self._encoder.finish)
        finally:
            self.close()

    def close(self) -> None:
        """Let go of all memory, as soon as the encoder is done with the frame in its hands."""
        if self._closed:
            return
        self._closed = True
        self._thread.submit(self._encoder.close)
        self._thread.shutdown(wait=False)
        while not self._frames.empty():
            self._frames.get_nowait()
        # Whoever still waits to hand over a frame is let go.
        for _ in range(self._frame_count):
            self._room.release()

    async def _call(self, call: Callable[..., Result], *arguments: Any) -> Result:
        started = time.perf_counter()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)
        finally:
            self.seconds += time.perf_counter() - started
