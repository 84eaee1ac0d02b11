"""One watcher's stream of a job: its numbered events, and between them previews and heartbeats, which have no number."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass

from ourvidz_gateway.jobs import Job, JobEvent, JobStage
from ourvidz_gateway.previews import Preview, Previews, PreviewWatch

HEARTBEAT_S = 15.0
"""After this long without anything else a stream says that it lives, so that proxies keep the connection."""


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
    event_comes: asyncio.Task[JobEvent | None] | None = None
    preview_comes: asyncio.Task[None] | None = None
    with ExitStack() as stack:
        try:
            # Before it is rendered there is nothing to see, and no gateway need be asked for it. To one who has seen
            # nothing yet, the events tell when that begins; one who goes on may not hear of it again.
            if previews and after and _is_rendered(job):
                watch = stack.enter_context(previews.watching(job.id))
            while True:
                event_comes = event_comes or asyncio.create_task(_next(events))
                if watch:
                    preview_comes = preview_comes or asyncio.create_task(watch.wait())
                waiting = [task for task in (event_comes, preview_comes) if task]
                await asyncio.wait(waiting, timeout=heartbeat_s, return_when=asyncio.FIRST_COMPLETED)
                if event_comes.done():
                    event, event_comes = event_comes.result(), None
                    if event is None:
                        return
                    attempt = event.attempt
                    if previews and not watch and _is_rendered(event):
                        watch = stack.enter_context(previews.watching(job.id))
                    yield event
                elif watch and preview_comes and preview_comes.done():
                    preview_comes = None
                    preview = watch.take()
                    if preview and preview.attempt >= attempt:
                        yield preview
                else:
                    yield Heartbeat()
        finally:
            tasks = [task for task in (event_comes, preview_comes) if task]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _is_rendered(standing: Job | JobEvent) -> bool:
    return standing.stage in (JobStage.RENDERING, JobStage.UPLOADING)


async def _next(events: AsyncIterator[JobEvent]) -> JobEvent | None:
    return await anext(events, None)
