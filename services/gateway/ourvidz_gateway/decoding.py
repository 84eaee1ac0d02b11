"""Decoding of users' pictures: off the event loop, and only a few at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

T = TypeVar("T")

DECODERS: Final = 2
"""Pictures that are decoded at once: one of 50 megapixels takes up to 1 GB while it is turned and flattened."""


class Decoder:
    """The threads in which a gateway decodes pictures, its own and nobody else's."""

    def __init__(self) -> None:
        # Threads of their own and not places for waiting tasks: a task that is cancelled leaves its thread decoding.
        self._threads = ThreadPoolExecutor(DECODERS, thread_name_prefix="decode")

    async def run(self, decode: Callable[[bytes], T], data: bytes) -> T:
        """Return what `decode` makes of a file, once a thread is free. Raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, decode, data)

    def close(self) -> None:
        """Take nothing more; what is being decoded is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
