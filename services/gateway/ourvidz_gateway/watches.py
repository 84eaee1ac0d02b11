"""One watcher's stream of a job: its numbered events, and between them previews and heartbeats, which have no number."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass

from ourvidz_gateway.jobs import Job, JobEvent, JobStage
from ourvidz_gateway.previews import Preview, Previews, PreviewWatch

HEARTBEAT_S = 15.0
"""After this long without anything else a stream says that it lives, so that proxies keep the connection."""

AHEAD = 64
"""Events that are read before their watcher has asked for them, at most."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """There was nothing else to say for a while."""


Update = JobEvent | Preview | Heartbeat


async def merge(
    events: AsyncIterator[JobEvent], job: Job, *, after: int, previews: Previews | None, heartbeat_s: float | None
) -> AsyncGenerator[Update, None]:
    """Yield the events of a job to their end and, where asked for, the latest previews and heartbeats in between.

    Events come first: a preview is yielded only while no event is there, and never after the last one, nor when it is
    of an attempt before the one that the events tell of. `job` is where the job stood when the reader came, who had seen
    the events to `after`.
    """
    attempt = 0
    watch: PreviewWatch | None = None
    coming = _Coming(events)
    with ExitStack() as stack:
        try:
            # Before it is rendered there is nothing to see, and no gateway need be asked for it. To one who has seen
            # nothing yet, the events tell when that begins; one who goes on may not hear of it again.
            if previews and after and _is_rendered(job):
                watch = stack.enter_context(previews.watching(job.id))
            while True:
                # Before we look: what comes while the reader is busy then wakes us at once.
                coming.something.clear()
                while event := coming.take():
                    attempt = event.attempt
                    if previews and not watch and _is_rendered(event):
                        watch = stack.enter_context(previews.watching(job.id))
                    yield event
                if coming.ended():
                    return
                if watch and coming.preview(watch):
                    preview = watch.take()
                    if preview and preview.attempt >= attempt:
                        yield preview
                    continue
                try:
                    async with asyncio.timeout(heartbeat_s):
                        await coming.something.wait()
                except TimeoutError:
                    yield Heartbeat()
        finally:
            await coming.close()


class _Coming:
    """What comes to a watcher. Events are read a little ahead, so that it need not wait for those that are there.

    When the watcher is slow, no more of them are held than `AHEAD`, and no preview at all.
    """

    def __init__(self, events: AsyncIterator[JobEvent]) -> None:
        self.something = asyncio.Event()
        """Set when there is more of anything, also an end."""
        self._events: deque[JobEvent] = deque()
        self._room = asyncio.Event()
        self._full = False
        """Whether reading waits for room, so that more may be there than is known."""
        self._over = False
        """Whether the last event was taken."""
        self._reading = asyncio.create_task(self._read(events))
        self._preview: asyncio.Task[None] | None = None

    def take(self) -> JobEvent | None:
        """Return the next event, if it is there."""
        if not self._events:
            return None
        if len(self._events) == AHEAD // 2:
            self._room.set()
        event = self._events.popleft()
        self._over = event.state.terminal
        return event

    def ended(self) -> bool:
        """Whether all events were taken and none follows. Raises what went wrong with them."""
        if not self._over and self._reading.done():
            self._reading.result()
            return True
        return self._over

    def preview(self, watch: PreviewWatch) -> bool:
        """Whether a preview may be there that was not taken yet, and no event is; where not, it is waited for."""
        if self._preview is None:
            self._preview = asyncio.create_task(watch.wait())
            self._preview.add_done_callback(lambda _: self.something.set())
        elif self._preview.done() and not self._full:
            self._preview = None
            return True
        return False

    async def close(self) -> None:
        """Wait for nothing any longer."""
        tasks = [task for task in (self._reading, self._preview) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, events: AsyncIterator[JobEvent]) -> None:
        try:
            async for event in events:
                self._events.append(event)
                self.something.set()
                if len(self._events) == AHEAD:
                    self._full = True
                    self._room.clear()
                    await self._room.wait()
                    self._full = False
                    self.something.set()
        finally:
            self.something.set()


def _is_rendered(standing: Job | JobEvent) -> bool:
    return standing.stage in (JobStage.RENDERING, JobStage.UPLOADING)
