"""PostgreSQL dies under load and stays away for a minute: nothing that was accepted is lost, and nobody steals."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count

import pytest

from ourvidz import JobEvent
from support.cluster.asking import FRONTS, Answer, Request, ask
from support.cluster.audit import audit, rendered_once
from support.cluster.cluster import LEASE_S, Cluster, Gateway, running_cluster
from support.cluster.sse import listen_everywhere
from support.postgres import Postgres, running_postgres

OUTAGE_S = 60.0
ANSWER_S = 10.0
"""A request is answered within this time, whatever the database does not do."""
RECOVERY_S = 10.0
STEPS = 20
"""Of each job type."""
READY, NOT_READY, WELL = (200, False), (503, True), (200, False)


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[Postgres]:
    """A server that the tests of this file may kill."""
    with running_postgres() as postgres:
        yield postgres


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory, own_postgres: Postgres) -> Iterator[Cluster]:
    """The usual cluster on that server."""
    with own_postgres.database() as dsn, running_cluster(tmp_path_factory.mktemp("cluster"), dsn) as cluster:
        yield cluster


@asynccontextmanager
async def asking_on(cluster: Cluster, pause_s: float) -> AsyncIterator[dict[Request, asyncio.Task[Answer]]]:
    """Ask for jobs to the end of the block, at both gateways and over both fronts; give what came of each."""
    asked: dict[Request, asyncio.Task[Answer]] = {}

    async def go_on() -> None:
        for number in count():
            request = Request(FRONTS[number // 2 % 2], f"key-{number}", f"user-{number % 5}")
            asked[request] = asyncio.create_task(ask(cluster.gateways[number % 2], request))
            await asyncio.sleep(pause_s)

    going_on = asyncio.create_task(go_on())
    try:
        yield asked
    finally:
        going_on.cancel()
        await asyncio.gather(going_on, *asked.values(), return_exceptions=True)


async def watch(gateway: Gateway, job_id: str) -> list[JobEvent]:
    """Follow a job to its end with our own client."""
    async with gateway.client() as client:
        return [event async for event in client.watch(job_id, patience_s=2 * OUTAGE_S)]


async def test_nothing_is_lost_or_stolen_while_the_database_is_away_for_a_minute(
    cluster: Cluster, own_postgres: Postgres
):
    first, second = cluster.gateways
    # One ends while the database is away. Another goes on beyond that, as does a clip.
    short, long = [await cluster.ask(first, f"a fox pace:{pace}") for pace in (1000, 3400)]
    clip = await cluster.ask(second, "a fox pace:3400", job_type="clip")
    runs = {job_id: await cluster.until_running(job_id, steps=1) for job_id in (short, long, clip)}
    waiting = await cluster.ask(first, "a fox", job_type="enhanced_clip")
    listening = [asyncio.create_task(listen_everywhere(cluster.gateways, job_id)) for job_id in runs]
    watching = [asyncio.create_task(watch(second, job_id)) for job_id in runs]
    sessions = await cluster.sessions()

    async with asking_on(cluster, pause_s=0.4) as asked:
        # Amid a burst: some of these are stored, and the answers of some are lost.
        burst = {
            request: asyncio.create_task(ask(cluster.gateways[number // 2 % 2], request))
            for number in range(80)
            if (request := Request(FRONTS[number % 2], f"burst-{number}", "dave"))
        }
        while sum(answer.done() for answer in burst.values()) < 10:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(own_postgres.kill)
        gone_at = time.monotonic()
        await asyncio.sleep(2)  # gateways count their queues once a second
        while time.monotonic() < gone_at + OUTAGE_S:
            assert [await gateway.probe("/readyz") for gateway in cluster.gateways] == [NOT_READY] * 2
            assert [await gateway.probe("/healthz") for gateway in cluster.gateways] == [WELL] * 2
            await asyncio.sleep(1)
        assert cluster.steps(short).total() == STEPS, "it was rendered while the database was away"
        assert cluster.steps(long).total() < STEPS, "it is rendered still"
        await asyncio.to_thread(own_postgres.start)
        async with asyncio.timeout(RECOVERY_S):
            while [await gateway.probe("/readyz") for gateway in cluster.gateways] != [READY] * 2:
                await asyncio.sleep(0.1)

    answers = {request: answer.result() for request, answer in {**asked, **burst}.items()}
    assert max(answer.took_s for answer in answers.values()) < ANSWER_S
    refusals = {(answer.reason, bool(answer.retry_after_s)) for answer in answers.values() if not answer.job_id}
    assert refusals == {("DATABASE_UNAVAILABLE", True)}
    # Whoever has no answer asks again under the same key, and whoever has one gets the same again.
    again = {request: (await ask(second, request)).job_id for request in answers}
    assert all(again.values())
    assert all(answer.job_id in (None, again[request]) for request, answer in answers.items())
    assert len(set(again.values())) == len(again)
    cluster.accepted += again.values()

    await audit(cluster)
    assert await cluster.sessions() == sessions
    for job_id, run in runs.items():
        assert await rendered_once(cluster, job_id)
        (attempt,) = await cluster.attempts(job_id)
        assert (attempt["attempt"], attempt["session_id"]) == (run.attempt, run.session_id)
    assert await rendered_once(cluster, waiting)
    for events in await asyncio.gather(*listening):
        assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
        assert [event["step"] for event in events if "step" in event] == list(range(1, STEPS + 1))
    for seen in await asyncio.gather(*watching):
        assert [event.sequence for event in seen] == list(range(1, len(seen) + 1))
        assert seen[-1].state == "completed"


async def test_after_a_time_in_which_the_database_stood_still_nobody_steals_either(
    cluster: Cluster, own_postgres: Postgres
):
    job_id = await cluster.ask(cluster.gateways[0], "a fox pace:500")
    run = await cluster.until_running(job_id, steps=1)
    sessions = await cluster.sessions()

    own_postgres.freeze()
    try:
        await asyncio.sleep(1.5 * LEASE_S)
    finally:
        own_postgres.thaw()

    await audit(cluster)
    assert await cluster.sessions() == sessions
    assert await rendered_once(cluster, job_id)
    assert [attempt["session_id"] for attempt in await cluster.attempts(job_id)] == [run.session_id]
