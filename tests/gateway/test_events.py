"""The event log and its watchers."""

import asyncio
from contextlib import aclosing
from uuid import UUID

import pytest

from ourvidz_gateway.database import Database, open_database
from ourvidz_gateway.errors import DatabaseUnavailable
from ourvidz_gateway.events import EventWriter, Progress, prune_steps, read_events
from ourvidz_gateway.feeds import Feeds
from ourvidz_gateway.jobs import JobEvent, JobStage, StepDetail
from ourvidz_gateway.queue import Claim
from support.jobs import Bench


def step_of(claim: Claim, number: int) -> Progress:
    return Progress(claim.job_id, claim.attempt, JobStage.RENDERING, number, number, StepDetail(number, 20, 0, 1))


async def running_job(bench: Bench) -> tuple[Claim, UUID]:
    session_id = await bench.add_session()
    await bench.add_slots()
    await bench.add_job()
    claim = await bench.claim(session_id)
    assert claim
    return claim, session_id


async def test_what_is_told_together_is_stored_in_order_and_numbered_without_gaps(database: Database, bench: Bench):
    claim, session_id = await running_job(bench)
    shown: list[JobEvent] = []
    writer = EventWriter(database, lambda: session_id, shown.extend)

    for number in range(1, 6):
        writer.tell(step_of(claim, number))
    await writer.flush()
    writer.tell(step_of(claim, 6))
    await writer.flush()

    assert [(event.sequence, event.step.step) for event in shown if event.step] == [(2 + n, n) for n in range(1, 7)]
    assert [event.sequence for event in await read_events(database, {claim.job_id: 0})] == list(range(1, 9))


async def test_what_is_told_again_is_not_stored_again(database: Database, bench: Bench):
    claim, session_id = await running_job(bench)
    shown: list[JobEvent] = []
    writer = EventWriter(database, lambda: session_id, shown.extend)
    for numbers in ([1, 2, 3], [1, 2, 3, 4], [2]):
        for number in numbers:
            writer.tell(step_of(claim, number))
        await writer.flush()

    assert [event.step.step for event in shown if event.step] == [1, 2, 3, 4]


async def test_what_can_not_be_stored_is_kept_and_stored_later(dsn: str, database: Database, bench: Bench):
    claim, session_id = await running_job(bench)
    shown: list[JobEvent] = []
    async with open_database(dsn, max_connections=1) as closed:
        writer = EventWriter(closed, lambda: session_id, shown.extend)
    writer.tell(step_of(claim, 1))
    with pytest.raises(DatabaseUnavailable):
        await writer.flush()
    assert shown == []

    writer._database = database
    writer.tell(step_of(claim, 2))
    await writer.flush()

    assert [event.step.step for event in shown if event.step] == [1, 2]


async def test_steps_are_pruned_some_time_after_the_end_and_milestones_stay(database: Database, bench: Bench):
    claim, session_id = await running_job(bench)
    writer = EventWriter(database, lambda: session_id, lambda _: None)
    writer.tell(step_of(claim, 1))
    await writer.flush()
    await prune_steps(database, age_s=0)
    assert await bench.value("SELECT count(*) FROM job_events WHERE NOT milestone") == 1
    await bench.attempts.complete(claim, session_id, outputs=[], result={}, warnings=[])

    await prune_steps(database, age_s=60)
    assert await bench.value("SELECT count(*) FROM job_events WHERE NOT milestone") == 1
    await prune_steps(database, age_s=0)

    assert [event.sequence for event in await read_events(database, {claim.job_id: 0})] == [1, 2, 4]


async def test_a_watcher_elsewhere_reads_the_log_and_ends_with_the_job(database: Database, bench: Bench):
    claim, session_id = await running_job(bench)
    feeds = Feeds(database)
    tail = asyncio.create_task(feeds.run())
    writer = EventWriter(database, lambda: session_id, lambda _: None)
    watch = feeds.watch(claim.job_id, after=0)

    first = [await anext(watch), await anext(watch)]
    writer.tell(step_of(claim, 1))
    await writer.flush()
    step = await anext(watch)
    await bench.attempts.complete(claim, session_id, outputs=[], result={}, warnings=[])
    rest = [event async for event in watch]

    assert [event.sequence for event in [*first, step, *rest]] == [1, 2, 3, 4]
    assert rest[-1].state.terminal
    assert feeds._feeds == {}
    tail.cancel()


async def test_a_watcher_that_stops_reading_holds_up_nobody(database: Database, bench: Bench):
    claim, session_id = await running_job(bench)
    feeds = Feeds(database)
    tail = asyncio.create_task(feeds.run())
    writer = EventWriter(database, lambda: session_id, feeds.publish)
    async with aclosing(feeds.watch(claim.job_id, after=0)) as lazy:
        await anext(lazy)
        eager = feeds.watch(claim.job_id, after=0)
        for number in range(1, 301):
            writer.tell(step_of(claim, number))
            await writer.flush()
        event = await bench.attempts.complete(claim, session_id, outputs=[], result={}, warnings=[])
        assert event
        feeds.publish([event])

        assert [event.sequence async for event in eager] == list(range(1, 304))
        assert [event.sequence async for event in lazy] == list(range(2, 304))
    tail.cancel()


async def test_an_event_that_leaves_a_gap_waits_for_the_log(database: Database, bench: Bench):
    claim, session_id = await running_job(bench)
    feeds = Feeds(database)
    tail = asyncio.create_task(feeds.run())
    told: list[JobEvent] = []
    writer = EventWriter(database, lambda: session_id, told.extend)
    with feeds.owning(claim.job_id):
        watch = feeds.watch(claim.job_id, after=0)
        await anext(watch)
        for number in (1, 2):
            writer.tell(step_of(claim, number))
        await writer.flush()
        feeds.publish(told[1:])

        assert [(await anext(watch)).sequence for _ in range(3)] == [2, 3, 4]
        await watch.aclose()
    tail.cancel()


async def test_draining_ends_every_watch(database: Database, bench: Bench):
    claim, _ = await running_job(bench)
    feeds = Feeds(database)
    tail = asyncio.create_task(feeds.run())
    watching = asyncio.create_task(_collect(feeds, claim.job_id))
    await anext(watch := feeds.watch(claim.job_id, after=0))

    feeds.close()

    assert [event.sequence for event in await watching] in ([], [1], [1, 2])
    await watch.aclose()
    tail.cancel()


async def _collect(feeds: Feeds, job_id: UUID) -> list[JobEvent]:
    return [event async for event in feeds.watch(job_id, after=0)]
