"""Lines that fall silent, between gateways and their database and between a gateway and a renderer: every wait has an end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from support.cluster.asking import FRONTS, Request, ask
from support.cluster.audit import audit, rendered_once, until_ended
from support.cluster.cluster import LEASE_S, Cluster, Gateway, Running, running_cluster
from support.line import Line, open_line
from support.postgres import Postgres

ANSWER_S = 20.0
"""A request is answered within this time: 5 s for a connection, 10 s for a statement, and some to spare."""
LEAVE_S = 15.0
"""How long a gateway may take to leave beyond the grace that it gives to what runs."""
FOUND_S = 40.0
"""A server that vanished is found to be gone within half a minute."""
DRAIN_GRACE_S = 3.0
TAKE_OVER_S = 10.0
"""What users are promised."""


@dataclass(frozen=True)
class Lines:
    """What lies between the cluster's servers."""

    database: list[Line]
    """Of each gateway."""
    renderer: Line


@pytest.fixture(scope="module")
def lines(postgres: Postgres) -> Iterator[Lines]:
    """The renderer's leads nowhere yet."""
    socket = f"{parse_qs(urlsplit(postgres.dsn).query)['host'][0]}/.s.PGSQL.5432"
    with ExitStack() as stack:
        yield Lines([stack.enter_context(open_line(socket)) for _ in range(2)], stack.enter_context(open_line()))


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, lines: Lines) -> Iterator[Cluster]:
    """Two gateways and a renderer, with these lines between."""
    with postgres.database() as dsn:
        database = urlsplit(dsn).path
        with running_cluster(
            tmp_path_factory.mktemp("cluster"),
            dsn,
            sdxl=1,
            wan=0,
            enhancers=0,
            gateway_dsns=[
                f"postgresql://postgres@127.0.0.1:{line.port}{database}?sslmode=disable" for line in lines.database
            ],
            drain_grace_s=DRAIN_GRACE_S,
            RENDERERS_SDXL=f"127.0.0.1:{lines.renderer.port}",
        ) as cluster:
            yield cluster


@pytest.fixture(autouse=True)
def flowing(shared_cluster: Cluster, lines: Lines) -> Iterator[None]:
    """Leave all lines as they were. The renderer's is led to it, which has its address by now."""
    lines.renderer.far_end = ("127.0.0.1", int(shared_cluster.sdxl[0].address.rpartition(":")[2]))
    yield
    for line in [*lines.database, lines.renderer]:
        line.flow()


async def run_one(cluster: Cluster, prompt: str) -> tuple[str, Running, Gateway, Gateway]:
    """Let a job run; return its id, where it runs, its gateway and the other one."""
    job_id = await cluster.ask(cluster.gateways[0], prompt)
    run = await cluster.until_running(job_id, steps=1)
    assert run.owner
    (other,) = (each for each in cluster.gateways if each is not run.owner)
    return job_id, run, run.owner, other


async def test_a_silence_that_is_shorter_than_the_lease_costs_nothing(cluster: Cluster, lines: Lines):
    job_id, _, owner, _ = await run_one(cluster, "a fox pace:250")
    sessions = await cluster.sessions()
    line = lines.database[cluster.gateways.index(owner)]

    line.stall()
    await asyncio.sleep(LEASE_S / 2)
    line.flow()

    await audit(cluster)
    assert await cluster.sessions() == sessions
    assert await rendered_once(cluster, job_id)


async def test_a_slow_line_to_the_database_costs_time_and_nothing_else(cluster: Cluster, lines: Lines):
    sessions = await cluster.sessions()
    for line in lines.database:
        line.flow(delay_s=0.03)

    job_ids = [await cluster.ask(gateway, "a fox") for gateway in cluster.gateways]

    await audit(cluster)
    assert await cluster.sessions() == sessions
    for job_id in job_ids:
        assert await rendered_once(cluster, job_id)


async def test_connections_that_die_without_a_word_cost_no_job_its_gateway(cluster: Cluster, lines: Lines):
    job_id, _, owner, _ = await run_one(cluster, "a fox pace:100")
    sessions = await cluster.sessions()

    lines.database[cluster.gateways.index(owner)].cut()

    await audit(cluster)
    assert await cluster.sessions() == sessions
    assert await rendered_once(cluster, job_id)


async def test_after_a_silence_that_all_gateways_met_nobody_steals(cluster: Cluster, lines: Lines):
    job_id, *_ = await run_one(cluster, "a fox pace:500")
    sessions = await cluster.sessions()

    for line in lines.database:
        line.stall()
    await asyncio.sleep(1.5 * LEASE_S)
    for line in lines.database:
        line.flow()

    await audit(cluster)
    assert await cluster.sessions() == sessions
    assert await rendered_once(cluster, job_id)


async def test_a_gateway_that_is_cut_off_for_longer_than_its_lease_answers_and_its_jobs_go_on_elsewhere(
    cluster: Cluster, lines: Lines
):
    job_id, run, cut_off, other = await run_one(cluster, "a fox pace:600")
    line = lines.database[cluster.gateways.index(cut_off)]

    silent_since = await cluster.clock()
    line.stall()
    # More than it has connections.
    requests = [Request(FRONTS[number % 2], f"cut-off-{number}") for number in range(40)]
    asking = [asyncio.create_task(ask(cut_off, request)) for request in requests]
    probing = asyncio.create_task(cut_off.probe("/readyz"))
    assert await cut_off.probe("/healthz") == (200, False)
    async with asyncio.timeout(2 * TAKE_OVER_S):
        while (run_now := await cluster.running(job_id)) and run_now.owner is not other:
            await asyncio.sleep(0.1)
    (ended,) = await cluster.rows("SELECT ended_at FROM gateway_sessions WHERE id = $1", run.session_id)
    assert ended["ended_at"] - silent_since < timedelta(seconds=TAKE_OVER_S)
    assert await probing == (503, True)
    answers = await asyncio.gather(*asking)
    assert {(answer.reason, bool(answer.retry_after_s)) for answer in answers} == {("DATABASE_UNAVAILABLE", True)}
    assert max(answer.took_s for answer in answers) < ANSWER_S
    line.flow()

    # Some may have been stored without anybody having heard of it. It is of use again under a new session.
    cluster.accepted += [(await ask(cut_off, request)).job_id for request in requests]
    await audit(cluster)
    assert len(set(cluster.accepted)) == len(cluster.accepted)
    assert len(await cluster.sessions()) == len(cluster.gateways)
    assert await rendered_once(cluster, job_id)


async def test_a_gateway_leaves_although_its_database_is_silent(cluster: Cluster, lines: Lines):
    job_id, _, leaving, other = await run_one(cluster, "a fox pace:300")
    lines.database[cluster.gateways.index(leaving)].stall()
    requests = [Request("rest", f"leaving-{number}") for number in range(20)]
    asking = [asyncio.create_task(ask(leaving, request)) for request in requests]
    await asyncio.sleep(0.5)  # until they wait for the database

    told_at = time.monotonic()
    leaving.node.terminate()
    await asyncio.to_thread(leaving.node.wait_ended)
    assert time.monotonic() - told_at < DRAIN_GRACE_S + LEAVE_S

    assert not [answer.job_id for answer in await asyncio.gather(*asking) if answer.job_id]
    cluster.accepted += [(await ask(other, request)).job_id for request in requests]
    await audit(cluster)
    assert await rendered_once(cluster, job_id)


async def test_a_renderer_behind_a_dead_connection_is_found_again_and_nothing_is_rendered_twice(
    cluster: Cluster, lines: Lines
):
    job_id, *_ = await run_one(cluster, "a fox pace:100")

    lines.renderer.cut()
    cut_at = time.monotonic()

    await until_ended(cluster, [job_id])
    assert time.monotonic() - cut_at < FOUND_S
    await audit(cluster)
    assert await rendered_once(cluster, job_id)
