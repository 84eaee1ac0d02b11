"""A network line between two servers of a test, which can be slow, silent, cut, or gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from threading import Thread
from typing import Any, TypeVar

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]
FarEnd = tuple[str, int] | str
"""A host and port, or a unix socket."""
T = TypeVar("T")


class Line:
    """Forwards every connection to its far end, from a thread of its own, as well as the line does just now.

    What it is told holds for all connections at once; while it holds bytes back, it holds back the end of a connection too.
    """

    def __init__(self, far_end: FarEnd | None = None) -> None:
        self.far_end = far_end
        """Where it leads, from the next connection on; None: not known yet."""
        self.port = 0
        """Where it listens on loopback, all its life."""
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._delay_s = 0.0
        self._server: asyncio.Server | None = None
        self._relays: set[asyncio.Task[None]] = set()
        self._cut: set[asyncio.Task[None]] = set()

    def flow(self, *, delay_s: float = 0.0) -> None:
        """Forward again, also what was held back; each piece takes `delay_s`."""

        async def flow() -> None:
            self._delay_s = delay_s
            self._flowing.set()
            await self._listen()

        self._run(flow())

    def stall(self) -> None:
        """Take connections and forward nothing, until `flow`."""

        async def stall() -> None:
            self._flowing.clear()
            await self._listen()

        self._run(stall())

    def cut(self) -> None:
        """Never forward anything more over the connections that there are, without a word to either end."""

        async def cut() -> None:
            self._cut |= self._relays

        self._run(cut())

    def refuse(self) -> None:
        """Break all connections and take no more, until `flow`."""

        async def refuse() -> None:
            if self._server:
                self._server.close()
                self._server = None
            await self._break_all()

        self._run(refuse())

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._take, "127.0.0.1", self.port, backlog=2048)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relay = asyncio.current_task()
        assert relay
        self._relays.add(relay)
        writers, copying = [writer], list[asyncio.Task[None]]()
        try:
            await self._may_flow(relay)
            far_reader, far_writer = await self._connect()
            writers.append(far_writer)
            copying += [
                asyncio.create_task(self._forward(relay, reader, far_writer)),
                asyncio.create_task(self._forward(relay, far_reader, writer)),
            ]
            await asyncio.wait(copying, return_when=asyncio.FIRST_EXCEPTION)
        except (OSError, asyncio.CancelledError):
            pass  # there is no far end, or the line is broken on purpose: either is told by the end of the connection
        finally:
            self._relays.discard(relay)
            self._cut.discard(relay)
            for task in copying:
                task.cancel()
            await asyncio.gather(*copying, return_exceptions=True)
            for each in writers:
                each.transport.abort()

    async def _forward(
        self, relay: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(2**16):
            if self._delay_s:
                await asyncio.sleep(self._delay_s)
            await self._may_flow(relay)
            writer.write(data)
            await writer.drain()
        await self._may_flow(relay)
        if writer.can_write_eof():
            writer.write_eof()

    async def _may_flow(self, relay: asyncio.Task[None]) -> None:
        while not self._flowing.is_set() or relay in self._cut:
            if relay in self._cut:
                await asyncio.Event().wait()
            await self._flowing.wait()

    async def _connect(self) -> Ends:
        if self.far_end is None:
            raise ConnectionRefusedError("the line leads nowhere yet")
        if isinstance(self.far_end, str):
            return await asyncio.open_unix_connection(self.far_end)
        return await asyncio.open_connection(*self.far_end)

    async def _break_all(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)  # by then, those that were just taken have begun
        while relays := set(self._relays):
            for relay in relays:
                relay.cancel()
            await asyncio.gather(*relays, return_exceptions=True)
        await asyncio.sleep(0.01)  # by then, both ends of all are closed

    def _run(self, doing: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(doing, self._loop).result(10)

    @contextlib.contextmanager
    def _open(self) -> Iterator[None]:
        thread = Thread(target=self._loop.run_forever, daemon=True)
        thread.start()
        try:
            self.flow()
            yield
        finally:
            self.refuse()
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()


@contextlib.contextmanager
def open_line(far_end: FarEnd | None = None) -> Iterator[Line]:
    """Lay a line."""
    line = Line(far_end)
    with line._open():
        yield line
