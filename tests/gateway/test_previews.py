"""Previews: the latest picture of a job, at the gateway that renders it and at others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest

from ourvidz_gateway import previews as previews_module
from ourvidz_gateway.database import Database, open_database
from ourvidz_gateway.previews import Preview, Previews, PreviewWatch
from support.jobs import Bench

JOB = UUID("0b6f1c9e-6d0c-4a67-9a39-6f1f3a1f0c53")
WRITTEN = "SELECT step FROM job_previews WHERE job_id = $1"


def preview(step: int, *, job_id: UUID = JOB, attempt: int = 1, image: int = 0) -> Preview:
    return Preview(job_id, attempt, image, step, b"\xff\xd8 a picture of step %d" % step)


async def next_of(watch: PreviewWatch) -> Preview | None:
    async with asyncio.timeout(30):
        await watch.wait()
    return watch.take()


@asynccontextmanager
async def running(*gateways: Previews) -> AsyncIterator[None]:
    """Let gateways bring previews to each other; one that breaks fails the test."""
    tasks = [asyncio.create_task(each.run()) for each in gateways]
    try:
        yield
        assert not [task for task in tasks if task.done()]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Untouched:
    """A database that nobody may ask."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the database was asked to {name}")


@pytest.fixture
def alone() -> Previews:
    """A gateway that has nobody to share with."""
    return Previews(Untouched())  # type: ignore[arg-type]


@pytest.fixture
def two(database: Database) -> tuple[Previews, Previews]:
    """The gateway that renders, and another one whose signals reach it."""
    here = Previews(database)
    return here, Previews(database, ask_others=here.wanted)


async def test_a_watcher_gets_the_latest_at_once_and_then_what_comes(alone: Previews):
    async with running(alone):
        with alone.rendering(JOB):
            alone.show(preview(1))
            with alone.watching(JOB) as watch:
                assert await next_of(watch) == preview(1)
                assert watch.take() is None
                coming = asyncio.create_task(next_of(watch))
                await asyncio.sleep(0)
                alone.show(preview(2))
                assert await coming == preview(2)


async def test_a_slow_watcher_only_misses_previews(alone: Previews):
    with alone.rendering(JOB), alone.watching(JOB) as slow, alone.watching(JOB) as eager:
        for step in range(1, 6):
            alone.show(preview(step))
            assert await next_of(eager) == preview(step)

        assert await next_of(slow) == preview(5)
        assert slow.take() is None


async def test_nothing_is_kept_once_the_render_is_over_and_nobody_watches(alone: Previews):
    with alone.rendering(JOB):
        alone.show(preview(1))
    with alone.watching(JOB) as watch:
        assert watch.take() is None
    alone.show(preview(2))

    assert alone._pictures == {}


async def test_the_next_attempt_may_begin_before_the_last_has_quite_ended(alone: Previews):
    with alone.rendering(JOB):
        with alone.rendering(JOB):
            alone.show(preview(1, attempt=2))
        with alone.watching(JOB) as watch:
            assert watch.take() == preview(1, attempt=2)


async def test_what_nobody_elsewhere_asks_for_is_never_written(alone: Previews):
    async with running(alone):
        with alone.rendering(JOB), alone.watching(JOB) as watch:
            for step in range(1, 4):
                alone.show(preview(step))
                await next_of(watch)
                await asyncio.sleep(previews_module.TAIL_INTERVAL_S / 5)


async def test_a_watcher_at_another_gateway_gets_them_too(two, bench: Bench):
    here, there = two
    async with running(here, there):
        with here.rendering(JOB):
            here.show(preview(1))
            with there.watching(JOB) as watch:
                assert await next_of(watch) == preview(1)
                here.show(preview(2, image=1))
                assert await next_of(watch) == preview(2, image=1)
                # An engine that ran out of memory begins its picture anew.
                here.show(preview(1, image=1))
                assert await next_of(watch) == preview(1, image=1)
                # Whatever a renderer counts, it is the contract's uint32.
                here.show(preview(2**32 - 1, image=2**32 - 1))
                assert await next_of(watch) == preview(2**32 - 1, image=2**32 - 1)
        await bench.until("count(*) = 0 FROM job_previews")


async def test_one_look_at_the_database_serves_all_watchers_of_all_jobs(two):
    here, there = two
    jobs = [uuid4() for _ in range(3)]
    async with running(here, there):
        with ExitStack() as stack:
            watches = []
            for job_id in jobs:
                stack.enter_context(here.rendering(job_id))
                here.show(preview(1, job_id=job_id))
                watches += [stack.enter_context(there.watching(job_id)) for _ in range(2)]

            seen = await asyncio.gather(*(next_of(watch) for watch in watches))

    assert [each.job_id for each in seen if each] == [job_id for job_id in jobs for _ in range(2)]


async def test_what_is_no_longer_asked_for_is_deleted(two, bench: Bench, monkeypatch):
    monkeypatch.setattr(previews_module, "ASKED_FOR_S", 0.3)
    here, there = two
    async with running(here, there):
        with here.rendering(JOB):
            here.show(preview(1))
            with there.watching(JOB) as watch:
                await next_of(watch)
            await bench.until("count(*) = 0 FROM job_previews")

            # Whoever comes later gets the latest all the same.
            here.show(preview(2))
            with there.watching(JOB) as watch:
                assert await next_of(watch) == preview(2)


async def test_a_job_is_written_at_most_so_often(two, bench: Bench, monkeypatch):
    monkeypatch.setattr(previews_module, "WRITE_EVERY_S", 1000)
    here, there = two
    other = uuid4()
    async with running(here, there):
        with here.rendering(JOB), here.rendering(other), there.watching(JOB) as watch, there.watching(other) as second:
            here.show(preview(1))
            await next_of(watch)
            here.show(preview(2))
            # By the time that this one is there, the second would be, too.
            here.show(preview(1, job_id=other))
            await next_of(second)

            assert await bench.value(WRITTEN, JOB) == 1


async def test_a_gateway_does_not_delete_what_a_later_attempt_elsewhere_has_written(two, database, bench: Bench):
    here, there = two
    successor = Previews(database)
    async with running(here, there):
        with there.watching(JOB) as watch:
            with here.rendering(JOB):
                here.show(preview(1))
                await next_of(watch)
                with successor.rendering(JOB):
                    successor.show(preview(3, attempt=2))
                    successor.wanted(JOB)
                    await successor._write()
            assert await next_of(watch) == preview(3, attempt=2)
            await here._delete()

            assert await bench.value(WRITTEN, JOB) == 3


async def test_they_go_on_after_the_database_was_away(dsn: str, database: Database, monkeypatch):
    monkeypatch.setattr(previews_module, "OUTAGE_PAUSE_S", 0.01)
    async with open_database(dsn, max_connections=1) as closed:
        here = Previews(database)
        there = Previews(closed, ask_others=here.wanted)
    async with running(here, there):
        with here.rendering(JOB), there.watching(JOB) as watch:
            here.show(preview(1))
            await asyncio.sleep(0.1)
            assert watch.take() is None
            there._database = database

            assert await next_of(watch) == preview(1)
