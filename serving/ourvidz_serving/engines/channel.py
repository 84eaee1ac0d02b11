"""How messages cross the socket between a server and its engine process.

One message is a length-prefixed pickle; the large buffers in it (pictures) follow as raw bytes and are neither copied
into the pickle nor out of it. The two ends are two processes of one server and trust each other.
"""

from __future__ import annotations

import asyncio
import pickle
import socket
import struct
import threading
from dataclasses import dataclass
from typing import Any

from ourvidz_serving.engines.engine import Task

_PREFIX = struct.Struct("!IQ")
"""How many buffers follow the pickle, and how long the pickle is."""
_LENGTH = struct.Struct("!Q")


@dataclass(frozen=True, slots=True)
class StartEngine:
    """The first message to the child: which engine it is."""

    factory: str
    """`module:callable`, imported in the child only."""
    config: dict[str, Any]
    module_path: list[str]
    """The server's `sys.path`, so that the child finds the same code."""


@dataclass(frozen=True, slots=True)
class StartTask:
    """Asks the child to do something."""

    task: Task


@dataclass(frozen=True, slots=True)
class StopTask:
    """Asks the child to end the task that runs."""


def pack(message: object) -> list[bytes | memoryview]:
    """Return the pieces that make up a message on the wire, in order."""
    buffers: list[memoryview] = []
    body = pickle.dumps(message, protocol=5, buffer_callback=lambda buffer: buffers.append(buffer.raw()))
    head = _PREFIX.pack(len(buffers), len(body)) + b"".join(_LENGTH.pack(buffer.nbytes) for buffer in buffers)
    return [head + body, *buffers]


class BlockingChannel:
    """The child's end: any thread may send, one thread receives."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._sending = threading.Lock()

    def send(self, message: object) -> None:
        """Send a message; blocks while the server is slow to read. Raises `OSError` once the server is gone."""
        pieces = pack(message)
        with self._sending:
            for piece in pieces:
                self._socket.sendall(piece)

    def receive(self) -> Any:
        """Return the next message; blocks. Raises `EOFError` once the server is gone."""
        count, length = _PREFIX.unpack(self._read(_PREFIX.size))
        lengths = [_LENGTH.unpack(self._read(_LENGTH.size))[0] for _ in range(count)]
        body = self._read(length)
        buffers = [self._read(size) for size in lengths]
        return pickle.loads(body, buffers=buffers)  # noqa: S301 - from our own server

    def _read(self, size: int) -> bytearray:
        data = bytearray(size)
        view, done = memoryview(data), 0
        while done < size:
            received = self._socket.recv_into(view[done:])
            if not received:
                raise EOFError("the server closed the channel")
            done += received
        return data


class AsyncChannel:
    """The server's end: one task receives, and sends never overlap with it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> AsyncChannel:
        """Wrap a connected socket; the channel owns it from then on."""
        return cls(*await asyncio.open_connection(sock=end))

    def send(self, message: object) -> None:
        """Queue a message for sending; what servers send is a few pictures at most. Says nothing when the child is gone: see `receive`."""
        self._writer.writelines(pack(message))

    async def receive(self) -> Any:
        """Return the next message. Raises `EOFError` once the child is gone."""
        try:
            count, length = _PREFIX.unpack(await self._reader.readexactly(_PREFIX.size))
            lengths = [_LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))[0] for _ in range(count)]
            body = await self._reader.readexactly(length)
            buffers = [await self._reader.readexactly(size) for size in lengths]
        except ConnectionError as error:
            raise EOFError("the engine closed the channel") from error
        return pickle.loads(body, buffers=buffers)  # noqa: S301 - from our own child

    def close(self) -> None:
        """Close the socket, which ends the child."""
        self._writer.close()
