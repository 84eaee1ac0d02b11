"""A wire to a server that a test can cut: what a process that dies, or a network that breaks, looks like from outside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Wire:
    """Relays all connections that are made to `address`."""

    def __init__(self, target: str) -> None:
        self.address = ""
        self._target = target.rsplit(":", 1)
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Break every connection; new ones can be made."""
        for writer in self._writers:
            writer.transport.abort()

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Connect one caller with the server."""
        try:
            far_reader, far_writer = await asyncio.open_connection(self._target[0], int(self._target[1]))
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, far_writer}
        self._writers |= ends
        try:
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        finally:
            self._writers -= ends
            for end in ends:
                end.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def wire_to(target: str) -> AsyncIterator[Wire]:
    """Lay a wire to `target`, `host:port`, until the end of the block."""
    wire = Wire(target)
    server = await asyncio.start_server(wire.relay, "127.0.0.1", 0)
    wire.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield wire
    finally:
        server.close()
        wire.cut()
