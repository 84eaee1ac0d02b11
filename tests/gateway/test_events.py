"""The event log and its watchers."""

import asyncio
from contextlib import aclosing
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from ourvidz_gateway.database import Database, open_database
from ourvidz_gateway.errors import DatabaseUnavailable
from ourvidz_gateway.events import EventWriter, Progress, read_events
from ourvidz_gateway.feeds import Feeds
from ourvidz_gateway.jobs import JobEvent, JobStage, JobState, StepDetail
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


async def test_draining_ends_also_the_watch_of_one_who_was_busy_with_an_event(database: Database, bench: Bench):
    claim, _ = await running_job(bench)
    feeds = Feeds(database)
    tail = asyncio.create_task(feeds.run())
    watch = feeds.watch(claim.job_id, after=0)
    assert [(await anext(watch)).sequence for _ in range(2)] == [1, 2]

    feeds.close()

    async with asyncio.timeout(30):
        assert [event async for event in watch] == []
    tail.cancel()


async def _collect(feeds: Feeds, job_id: UUID) -> list[JobEvent]:
    return [event async for event in feeds.watch(job_id, after=0)]


async def test_progress_that_can_not_be_stored_holds_up_nothing(database: Database, bench: Bench):
    session_id = await bench.add_session()
    claim = await bench.running_job(session_id)
    shown: list[JobEvent] = []
    writer = EventWriter(database, lambda: session_id, shown.extend)

    for step in (2**31, 2):
        writer.tell(Progress(claim.job_id, 1, JobStage.RENDERING, 5, step, StepDetail(step, 20, 0, 1)))
        await writer.flush()

    assert [event.step.step for event in shown if event.step] == [2]


class SlowAnswers(Database):
    """The database, over a slow network: answers stay on the way while `gate` is closed."""

    def __init__(self, database: Database) -> None:
        super().__init__(database._pool)
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = asyncio.Event()

    async def fetch(self, query: str, *args: Any) -> list[asyncpg.Record]:
        rows = await super().fetch(query, *args)
        if not self.gate.is_set():
            self.waiting.set()
            await self.gate.wait()
        return rows


async def test_a_watcher_that_comes_as_the_last_one_leaves_misses_nothing(database: Database, bench: Bench):
    session_id = await bench.add_session()
    claim = await bench.running_job(session_id)
    slow = SlowAnswers(database)
    feeds = Feeds(slow)
    tail = asyncio.create_task(feeds.run())
    leaving = feeds.watch(claim.job_id, after=0)
    assert [(await anext(leaving)).sequence for _ in range(2)] == [1, 2]

    slow.gate.clear()
    await slow.waiting.wait()
    await bench.attempts.complete(claim, session_id, outputs=[], result={}, warnings=[])
    # The answer on its way was asked for before the job ended; the next one tells of it.
    slow.waiting.clear()
    slow.gate.set()
    slow.gate.clear()
    await slow.waiting.wait()
    await leaving.aclose()
    coming = feeds.watch(claim.job_id, after=0)
    first = asyncio.create_task(anext(coming))
    await asyncio.sleep(0)
    slow.gate.set()

    assert [(await first).sequence, *[event.sequence async for event in coming]] == [1, 2, 3]
    tail.cancel()


async def test_a_job_ends_for_its_watchers_though_its_last_steps_were_lost_with_the_databases_host(
    database: Database, bench: Bench
):
    session_id = await bench.add_session()
    claim = await bench.running_job(session_id)
    feeds = Feeds(database)
    tail = asyncio.create_task(feeds.run())
    writer = EventWriter(database, lambda: session_id, feeds.publish)
    with feeds.owning(claim.job_id):
        async with aclosing(feeds.watch(claim.job_id, after=0)) as watch:
            await anext(watch)
            for step in (1, 2, 3):
                writer.tell(Progress(claim.job_id, 1, JobStage.RENDERING, 5, step, StepDetail(step, 20, 0, 1)))
            await writer.flush()
            await database.execute("DELETE FROM job_events WHERE NOT milestone")
            event = await bench.attempts.complete(claim, session_id, outputs=[], result={}, warnings=[])
            assert event
            feeds.publish([event])
            async with asyncio.timeout(10):
                seen = [event async for event in watch]
    assert seen[-1].state == JobState.COMPLETED
    tail.cancel()


async def test_a_watcher_elsewhere_learns_of_an_end_under_a_number_that_it_has_seen(database: Database, bench: Bench):
    claim, session_id = await running_job(bench)
    feeds = Feeds(database)
    tail = asyncio.create_task(feeds.run())
    writer = EventWriter(database, lambda: session_id, lambda _: None)
    first, resumed = feeds.watch(claim.job_id, after=0), feeds.watch(claim.job_id, after=3)
    for step in range(1, 5):
        writer.tell(step_of(claim, step))
    await writer.flush()
    async with asyncio.timeout(30):
        assert [(await anext(first)).sequence for _ in range(6)] == [1, 2, 3, 4, 5, 6]
        assert [(await anext(resumed)).sequence for _ in range(3)] == [4, 5, 6]

        # The database's host crashes, and so does the gateway that ran the job: nobody knows of the steps any more.
        await database.execute("DELETE FROM job_events WHERE NOT milestone")
        await bench.attempts.complete(claim, session_id, outputs=[], result={}, warnings=[])
        ends = [event async for event in first] + [event async for event in resumed]

    assert [(event.sequence, event.state, event.progress) for event in ends] == [(3, JobState.COMPLETED, 100)] * 2
    tail.cancel()


async def test_no_number_is_given_twice_though_steps_were_lost_with_the_databases_host(
    database: Database, bench: Bench
):
    claim, session_id = await running_job(bench)
    shown: list[JobEvent] = []
    writer = EventWriter(database, lambda: session_id, shown.extend)
    with writer.following(claim.job_id):
        for step in (1, 2, 3):
            writer.tell(step_of(claim, step))
        await writer.flush()
        await database.execute("DELETE FROM job_events WHERE NOT milestone")
        writer.tell(step_of(claim, 4))
        await writer.flush()
        await database.execute("DELETE FROM job_events WHERE NOT milestone")
        await writer.settle(claim.job_id)
    end = await bench.attempts.complete(claim, session_id, outputs=[], result={}, warnings=[])

    assert [event.sequence for event in shown] == [3, 4, 5, 6]
    assert end
    assert end.sequence == 7
    assert await read_events(database, {claim.job_id: 5}) == [shown[-1], end]
    assert writer._shown == {}


async def test_a_job_that_ended_so_long_ago_that_its_events_are_gone_still_tells_how(database: Database, bench: Bench):
    claim, session_id = await running_job(bench)
    await bench.attempts.fail(claim, session_id, reason="BUG", message="It broke.")
    await database.execute("DELETE FROM job_events")
    feeds = Feeds(database)
    tail = asyncio.create_task(feeds.run())

    async with asyncio.timeout(30):
        [end] = [event async for event in feeds.watch(claim.job_id, after=0)]
        seen_all = [event async for event in feeds.watch(claim.job_id, after=end.sequence)]

    assert (end.sequence, end.state, end.stage, end.error_message) == (1, JobState.FAILED, None, "It broke.")
    assert (end.attempt, seen_all) == (1, [])
    tail.cancel()
