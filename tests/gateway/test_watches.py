"""One watcher's stream: events, and previews and heartbeats between them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from ourvidz_gateway.errors import DatabaseUnavailable
from ourvidz_gateway.jobs import Job, JobEvent, JobStage, JobState
from ourvidz_gateway.previews import Preview, Previews
from ourvidz_gateway.watches import AHEAD, Heartbeat, Update, merge
from support.fronts import NoRows

JOB = UUID("0b6f1c9e-6d0c-4a67-9a39-6f1f3a1f0c53")
NOW = datetime(2026, 1, 27, tzinfo=UTC)
WAITING: Any = Job(
    id=JOB,
    user_id="alice",
    job_type="sdxl_image_fast",
    state=JobState.QUEUED,
    stage=JobStage.QUEUED,
    progress=0,
    queue_position=0,
    created_at=NOW,
    started_at=None,
    completed_at=None,
    metadata={},
    error_message=None,
    credits=1,
    warnings=[],
    project_id=None,
    video_id=None,
    image_id=None,
    retry_of=None,
)
RENDERED = replace(WAITING, state=JobState.PROCESSING, stage=JobStage.RENDERING, attempt=1)
LONG_S = 1000.0


class Source:
    """Events that a test lets come."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[JobEvent | Exception | None] = asyncio.Queue()
        self.closed = False

    async def __call__(self) -> AsyncIterator[JobEvent]:
        try:
            while event := await self.queue.get():
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            self.closed = True

    def event(self, sequence: int, stage: JobStage | None = JobStage.RENDERING, attempt: int = 1) -> JobEvent:
        event = JobEvent(JOB, sequence, NOW, JobState.PROCESSING, stage, 0, attempt)
        self.queue.put_nowait(event)
        return event


def preview(step: int, attempt: int = 1) -> Preview:
    return Preview(JOB, attempt, 0, step, b"jpeg")


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def previews() -> Previews:
    return Previews(NoRows())  # type: ignore[arg-type]


async def next_of(updates: AsyncIterator[Update]) -> Update:
    async with asyncio.timeout(30):
        return await anext(updates)


async def test_previews_come_between_the_events_and_never_after_the_last(source: Source, previews: Previews):
    with previews.rendering(JOB):
        async with aclosing(merge(source(), RENDERED, after=2, previews=previews, heartbeat_s=None)) as updates:
            first = source.event(3)
            assert await next_of(updates) == first
            previews.show(preview(1))
            assert await next_of(updates) == preview(1)
            last = source.event(4)
            source.queue.put_nowait(None)
            previews.show(preview(2))

            assert [update async for update in updates] == [last]


async def test_events_that_are_there_come_before_a_preview(source: Source, previews: Previews):
    with previews.rendering(JOB):
        previews.show(preview(9))
        events = [source.event(number) for number in range(1, 30)]
        async with aclosing(merge(source(), RENDERED, after=2, previews=previews, heartbeat_s=None)) as updates:
            assert [await next_of(updates) for _ in events] == events
            assert await next_of(updates) == preview(9)


@pytest.mark.parametrize("count", [AHEAD, 4 * AHEAD])
async def test_events_that_are_there_come_before_a_preview_however_many_there_are(
    source: Source, previews: Previews, count: int
):
    with previews.rendering(JOB):
        async with aclosing(merge(source(), RENDERED, after=2, previews=previews, heartbeat_s=None)) as updates:
            source.event(1)
            await next_of(updates)
            coming = asyncio.create_task(next_of(updates))
            await asyncio.sleep(0)
            previews.show(preview(9))
            events = [source.event(number) for number in range(2, 2 + count)]
            assert [await coming, *[await next_of(updates) for _ in events[1:]]] == events
            assert await next_of(updates) == preview(9)


async def test_no_more_than_a_few_events_are_held_for_a_reader_who_does_not_read(source: Source):
    events = [source.event(number) for number in range(1, 4 * AHEAD)]
    source.queue.put_nowait(None)
    async with aclosing(merge(source(), RENDERED, after=2, previews=None, heartbeat_s=None)) as updates:
        first = await next_of(updates)
        for _ in range(5 * AHEAD):
            await asyncio.sleep(0)

        assert source.queue.qsize() == len(events) + 1 - AHEAD
        assert [first, *[update async for update in updates]] == events


async def test_no_preview_comes_after_the_end_of_a_job(source: Source, previews: Previews):
    with previews.rendering(JOB):
        async with aclosing(merge(source(), RENDERED, after=2, previews=previews, heartbeat_s=None)) as updates:
            events = [source.event(number) for number in range(1, AHEAD)]
            assert await next_of(updates) == events[0]
            previews.show(preview(9))
            source.queue.put_nowait(replace(events[0], sequence=AHEAD, state=JobState.COMPLETED, stage=None))

            assert [update.sequence async for update in updates] == list(range(2, AHEAD + 1))


async def test_a_slow_reader_gets_only_the_latest_preview(source: Source, previews: Previews):
    with previews.rendering(JOB):
        async with aclosing(merge(source(), RENDERED, after=2, previews=previews, heartbeat_s=None)) as updates:
            previews.show(preview(1))
            assert await next_of(updates) == preview(1)
            for step in range(2, 7):
                previews.show(preview(step))
                await asyncio.sleep(0)

            assert await next_of(updates) == preview(6)


async def test_a_preview_of_an_attempt_that_is_over_is_not_sent(source: Source, previews: Previews):
    with previews.rendering(JOB):
        previews.show(preview(19, attempt=1))
        async with aclosing(merge(source(), RENDERED, after=2, previews=previews, heartbeat_s=None)) as updates:
            event = source.event(30, attempt=2)
            assert await next_of(updates) == event
            coming = asyncio.create_task(next_of(updates))
            for _ in range(20):
                await asyncio.sleep(0)
            assert not coming.done()
            previews.show(preview(1, attempt=2))

            assert await coming == preview(1, attempt=2)


async def test_nobody_is_asked_for_previews_before_the_job_is_rendered(source: Source, previews: Previews):
    async with aclosing(merge(source(), WAITING, after=0, previews=previews, heartbeat_s=None)) as updates:
        for stage in (JobStage.QUEUED, JobStage.ENHANCING):
            source.event(1, stage)
            await next_of(updates)
            assert previews._pictures == {}
        source.event(3, JobStage.RENDERING)
        await next_of(updates)
        assert list(previews._pictures) == [JOB]
    assert previews._pictures == {}


async def test_a_quiet_stream_says_that_it_lives_and_misses_nothing_by_it(source: Source):
    async with aclosing(merge(source(), WAITING, after=0, previews=None, heartbeat_s=0.01)) as updates:
        assert [await next_of(updates) for _ in range(3)] == [Heartbeat()] * 3
        event = source.event(1)
        source.queue.put_nowait(None)

        assert [update async for update in updates if update != Heartbeat()] == [event]


async def test_a_watch_that_is_left_lets_go_of_all(source: Source, previews: Previews):
    with previews.rendering(JOB):
        async with aclosing(merge(source(), RENDERED, after=2, previews=previews, heartbeat_s=LONG_S)) as updates:
            source.event(1)
            await next_of(updates)
        assert previews._pictures[JOB].watchers == 0

        leaving = merge(source(), RENDERED, after=2, previews=previews, heartbeat_s=LONG_S)
        waiting = asyncio.ensure_future(anext(leaving))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert source.closed
    assert previews._pictures == {}


async def test_what_goes_wrong_with_the_events_is_raised(source: Source):
    source.event(1)
    source.queue.put_nowait(DatabaseUnavailable("The database is out of reach."))
    async with aclosing(merge(source(), WAITING, after=0, previews=None, heartbeat_s=LONG_S)) as updates:
        await next_of(updates)
        with pytest.raises(DatabaseUnavailable):
            await next_of(updates)
