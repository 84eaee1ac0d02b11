"""How full the queues are, at most a second old, without asking the database for each request."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from ourvidz_gateway.errors import DatabaseUnavailable
from ourvidz_gateway.jobs import Kind, QueueStatus
from ourvidz_gateway.queue import Backlog, Queue
from ourvidz_gateway.renderers import Renderers

MAX_AGE_S = 1.0
EMPTY = Backlog(depth=0, running=0, oldest_s=None)


class BacklogView:
    """A cached count of what waits and runs. Jobs accepted here since the last count are added to it."""

    def __init__(self, queue: Queue, renderers: Renderers) -> None:
        self._queue = queue
        self._renderers = renderers
        self._counted: dict[Kind, Backlog] = {}
        self._accepted: Counter[Kind] = Counter()
        self._counted_at = float("-inf")
        self._failed_at = float("-inf")
        self._counting = asyncio.Lock()

    def accepted(self, kind: Kind) -> None:
        """Count a job that was just accepted here."""
        self._accepted[kind] += 1

    async def depth(self, kind: Kind) -> int:
        """Return how many jobs of this kind wait."""
        await self._refresh()
        return self._counted.get(kind, EMPTY).depth + self._accepted[kind]

    async def status(self) -> list[QueueStatus]:
        """Return all queues."""
        await self._refresh()
        return [self._status(kind, self._counted.get(kind, EMPTY)) for kind in Kind if kind is not Kind.FETCHER]

    def _status(self, kind: Kind, backlog: Backlog) -> QueueStatus:
        return QueueStatus(
            kind=kind,
            depth=backlog.depth,
            running=backlog.running,
            oldest_seconds=backlog.oldest_s,
            renderers=len(self._renderers.ready(kind)),
        )

    async def _refresh(self) -> None:
        asked_at = time.monotonic()
        async with self._counting:
            if time.monotonic() - self._counted_at < MAX_AGE_S:
                return
            # All who waited for this count share its failure: else each would wait for one of its own, in turn.
            if self._failed_at > asked_at:
                raise DatabaseUnavailable("The database is out of reach.")
            # What is accepted while the count runs may be in it or not; it is counted on top, since a queue that
            # looks a little too full is better than one that overflows.
            self._accepted.clear()
            try:
                self._counted = await self._queue.backlog()
            except DatabaseUnavailable:
                self._failed_at = time.monotonic()
                raise
            self._counted_at = time.monotonic()
