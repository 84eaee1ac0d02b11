"""Live progress: each watched job has one feed in memory, however many watch it.

A watcher is a cursor into its job's feed, so one that stops reading costs nothing more and slows nobody. Events of jobs
that this gateway runs arrive as they are stored; those of jobs that wait or run elsewhere are read from the log, one
query for all of them, a few times a second and only while somebody watches.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

import structlog

from ourvidz_gateway.database import Database
from ourvidz_gateway.errors import DatabaseUnavailable
from ourvidz_gateway.events import read_events
from ourvidz_gateway.jobs import JobEvent

log = structlog.get_logger()

TAIL_INTERVAL_S = 0.1


class Feed:
    """The events of one watched job in order, without gaps, from the first that is kept."""

    def __init__(self) -> None:
        self.events: list[JobEvent] = []
        self.watchers = 0
        self.behind = True
        """Whether the log may hold events that are not here."""
        self._changed = asyncio.Event()

    @property
    def last(self) -> int:
        """The number of the last event; 0 before the first."""
        return self.events[-1].sequence if self.events else 0

    @property
    def ended(self) -> bool:
        """Whether the job has reached a terminal state, after which nothing follows."""
        return bool(self.events) and self.events[-1].state.terminal

    def add(self, events: Sequence[JobEvent], *, from_log: bool) -> None:
        """Add events that follow the last one; one that leaves a gap is left to be read from the log."""
        for event in events:
            if event.sequence <= self.last and not event.state.terminal:
                continue
            # Steps of an ended job are pruned, so gaps in the log itself are real; an event just published is not
            # known to follow unless its number says so. A job's end may even come with a number that was seen before,
            # when steps were lost with the database's host.
            if not from_log and event.sequence > self.last + 1:
                self.behind = True
                break
            if not self.ended:
                self.events.append(event)
        self.wake()

    def wake(self) -> None:
        """Let every watcher look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self) -> None:
        """Wait until something was added."""
        await self._changed.wait()


class Feeds:
    """The feeds of all jobs that are watched at this gateway. `on_end` is called when jobs have ended here."""

    def __init__(self, database: Database, *, on_end: Callable[[], None] = lambda: None) -> None:
        self._database = database
        self._on_end = on_end
        self._feeds: dict[UUID, Feed] = {}
        self._owned: Counter[UUID] = Counter()
        self._nudge = asyncio.Event()
        self._closed = False

    def publish(self, events: Sequence[JobEvent]) -> None:
        """Show stored events to those who watch their jobs."""
        for event in events:
            if feed := self._feeds.get(event.job_id):
                feed.add([event], from_log=False)
                if feed.behind:
                    self._nudge.set()
        if any(event.state.terminal for event in events):
            self._on_end()

    @contextmanager
    def owning(self, job_id: UUID) -> Iterator[None]:
        """Say that this gateway runs the job, so that its events are published here and need not be looked for."""
        # Counted, since the next attempt may begin here before the last one has quite ended.
        self._owned[job_id] += 1
        try:
            yield
        finally:
            self._owned[job_id] -= 1
            if not self._owned[job_id]:
                del self._owned[job_id]
            if feed := self._feeds.get(job_id):
                feed.behind = True

    def close(self) -> None:
        """End every watch: the server drains, and watchers go on elsewhere from their last event."""
        self._closed = True
        for feed in self._feeds.values():
            feed.wake()

    async def watch(self, job_id: UUID, *, after: int) -> AsyncGenerator[JobEvent, None]:
        """Yield the job's events with a number greater than `after`, to the terminal one. The job must exist.

        The end itself comes also under a number that was passed already: steps may be lost with the database's host, and
        whoever has seen them still learns how the job ended.
        """
        feed = self._feeds.setdefault(job_id, Feed())
        feed.watchers += 1
        self._nudge.set()
        try:
            cursor, seen = 0, after
            while not self._closed:
                while cursor < len(feed.events):
                    event = feed.events[cursor]
                    cursor += 1
                    if event.sequence > seen or (event.state.terminal and event.sequence < seen):
                        seen = event.sequence
                        yield event
                if feed.ended:
                    return
                # A reader may have been away since the loop began.
                if cursor == len(feed.events) and not self._closed:
                    await feed.changed()
        finally:
            feed.watchers -= 1
            if feed.watchers == 0:
                self._feeds.pop(job_id, None)

    async def run(self) -> None:
        """Read from the log what was not published here, for ever, while anything is watched."""
        while True:
            await self._wait_for_work()
            behind = {
                job_id: feed
                for job_id, feed in self._feeds.items()
                if not feed.ended and (feed.behind or job_id not in self._owned)
            }
            if not behind:
                continue
            for feed in behind.values():
                feed.behind = False
            try:
                events = await read_events(self._database, {job_id: feed.last for job_id, feed in behind.items()})
            except DatabaseUnavailable:
                log.warning("database away, watchers wait")
                for feed in behind.values():
                    feed.behind = True
                continue
            # To the feed that asked: by now the job may have a new one, which has not seen what came before.
            for event in events:
                behind[event.job_id].add([event], from_log=True)

    async def _wait_for_work(self) -> None:
        """Wait for a nudge; while anything is watched, for no longer than the interval between two looks."""
        try:
            async with asyncio.timeout(TAIL_INTERVAL_S if self._feeds else None):
                await self._nudge.wait()
        except TimeoutError:
            pass
        self._nudge.clear()
