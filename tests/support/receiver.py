"""A receiver of webhooks, on loopback, that answers what a test has written down and keeps what it was sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from support.connections import answering
from support.web_host import page

DROP = b""
"""The connection is closed without an answer."""
HANG = b"hang"
"""No answer ever comes."""


@dataclass(frozen=True)
class Received:
    """One webhook as it came."""

    headers: dict[str, str]
    """Names in lower case."""
    body: str

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def job(self) -> dict[str, Any]:
        job: dict[str, Any] = json.loads(self.body)
        return job


@dataclass
class Receiver:
    """Gives its `answers` one after the other, and then `otherwise`."""

    port: int = 0
    answers: list[bytes] = field(default_factory=list)
    otherwise: bytes = page(status="204 No Content")
    received: list[Received] = field(default_factory=list)
    _came: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}/hooks?key=k"

    async def has(self, count: int) -> list[Received]:
        """Wait until so many webhooks have come, and return all that have."""
        async with asyncio.timeout(30):
            while len(self.received) < count:
                self._came.clear()
                await self._came.wait()
        return self.received

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one webhook."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        pairs = (line.partition(": ") for line in head.splitlines()[1:] if line)
        headers = {name.lower(): value for name, _, value in pairs}
        body = (await reader.readexactly(int(headers["content-length"]))).decode()
        self.received.append(Received(headers, body))
        self._came.set()
        answer = self.answers.pop(0) if self.answers else self.otherwise
        if answer == HANG:
            await asyncio.Event().wait()
        writer.write(answer)
        await writer.drain()


@contextlib.asynccontextmanager
async def receiver(*answers: bytes, **more: bytes) -> AsyncIterator[Receiver]:
    """Take webhooks on 127.0.0.1 until the end of the block."""
    taking = Receiver(answers=list(answers), **more)
    async with answering(taking.answer) as taking.port:
        yield taking
