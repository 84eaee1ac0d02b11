"""What gateways tell each other at once through the database: work waits, a job is to be cancelled, or is watched.

A signal is a hint. What is lost is found by the sweeps: nothing depends on its delivery. Signals go out over a
connection of their own, gathered for a moment: a NOTIFY inside each commit would take a lock that all commits share.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from uuid import UUID, uuid4

import asyncpg
import structlog

from ourvidz_gateway.database import UNREACHABLE, connect
from ourvidz_gateway.errors import DatabaseUnavailable
from ourvidz_gateway.jobs import Kind

log = structlog.get_logger()

CHANNEL = "ourvidz"
GATHER_S = 0.02
RECONNECT_S = 1.0
CHECK_S = 10.0


class Signals:
    """The signals that this gateway sends and hears; its own do not come back to it."""

    def __init__(
        self,
        dsn: str,
        *,
        on_work: Callable[[Kind], object],
        on_cancel: Callable[[UUID], object],
        on_preview: Callable[[UUID], object],
    ) -> None:
        self._dsn = dsn
        self._on_work = on_work
        self._on_cancel = on_cancel
        self._on_preview = on_preview
        self._self = uuid4().hex
        self._outgoing: set[str] = set()
        self._something = asyncio.Event()

    def work(self, kind: Kind) -> None:
        """Tell the others that work of this kind waits."""
        self._send(f"work {kind}")

    def cancel(self, job_id: UUID) -> None:
        """Tell whoever runs the job to cancel it."""
        self._send(f"cancel {job_id}")

    def preview(self, job_id: UUID) -> None:
        """Tell whoever renders the job that its previews are watched here."""
        self._send(f"preview {job_id}")

    async def run(self) -> None:
        """Send and hear, for ever, over one connection that is opened again when it breaks."""
        while True:
            try:
                connection = await connect(self._dsn)
            except DatabaseUnavailable:
                await asyncio.sleep(RECONNECT_S)
                continue
            try:
                await connection.add_listener(CHANNEL, self._hear)
                await self._send_until_broken(connection)
            except UNREACHABLE:
                log.warning("signals are interrupted, sweeps find what they miss")
                await asyncio.sleep(RECONNECT_S)
            finally:
                connection.terminate()

    async def _send_until_broken(self, connection: asyncpg.Connection) -> None:
        broken = asyncio.Event()

        def wake_broken(_: object) -> None:
            broken.set()
            self._something.set()

        connection.add_termination_listener(wake_broken)
        while True:
            # Who only listens never learns that the line has fallen silent: it is tried now and then.
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_S):
                    await self._something.wait()
            if broken.is_set():
                raise ConnectionError("the connection for signals was closed")
            await asyncio.sleep(GATHER_S)
            self._something.clear()
            messages = [f"{self._self} {message}" for message in self._outgoing]
            self._outgoing.clear()
            await connection.execute("SELECT pg_notify($1, m) FROM unnest($2::text[]) m", CHANNEL, messages)

    def _send(self, message: str) -> None:
        self._outgoing.add(message)
        self._something.set()

    def _hear(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        sender, word, value = str(payload).split(" ", 2)
        if sender == self._self:
            return
        if word == "work":
            self._on_work(Kind(value))
        elif word == "cancel":
            self._on_cancel(UUID(value))
        elif word == "preview":
            self._on_preview(UUID(value))
