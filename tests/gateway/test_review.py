"""Races, lost answers and odd input: what must not lose a job, hang a watcher or stop a gateway."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast
from uuid import UUID, uuid4

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from ourvidz_gateway.database import Database, open_database
from ourvidz_gateway.errors import DatabaseUnavailable, InvalidRequest
from ourvidz_gateway.events import EventWriter, Progress, prune_steps
from ourvidz_gateway.feeds import Feeds
from ourvidz_gateway.gateway import Gateway, open_gateway
from ourvidz_gateway.jobs import JobEvent, JobFilter, JobStage, JobState, Kind, StepDetail
from ourvidz_gateway.queue import Claim, Queue
from ourvidz_gateway.records import Records
from ourvidz_gateway.rest.observe import Observed
from ourvidz_gateway.sessions import Session, SessionCallbacks
from ourvidz_serving.server import StartError
from ourvidz_serving.tracing import open_provider
from support import fronts
from support.jobs import Bench, painted_job
from support.renderer import Renderer

GATE = 4711
"""The advisory lock at which gated statements wait."""


@pytest.fixture
async def gateway(dsn: str, database: Database, renderer: Renderer) -> AsyncIterator[Gateway]:
    stated = {"database_url": dsn, "renderers_sdxl": f"127.0.0.1:{renderer.server.port}", "lease_s": 1}
    async with open_gateway(fronts.settings(**stated)) as gateway:
        yield gateway


async def ended(gateway: Gateway, job_id: UUID) -> JobEvent:
    async with asyncio.timeout(30):
        return [event async for event in gateway.watch("alice", job_id)][-1]


async def begin(database: Database, *, running: tuple[UUID, ...] = ()) -> tuple[Session, list[Claim]]:
    taken: list[Claim] = []
    callbacks = SessionCallbacks(
        take_over=taken.extend, cancel=lambda _: None, lost=lambda: None, running=lambda: running
    )
    session = Session(database, name="test", lease_s=60, callbacks=callbacks)
    await session.begin()
    return session, taken


async def until(bench: Bench, condition: str) -> None:
    async with asyncio.timeout(30):
        while not await bench.value(f"SELECT {condition}"):  # there is no event to wait for
            await asyncio.sleep(0.01)


# --- the queue


async def test_a_job_that_enters_a_lane_while_it_is_claimed_from_is_claimed_in_its_turn(dsn: str, bench: Bench):
    """Of two jobs that are accepted at once, the first to take its number may be the last to commit."""
    await bench.add_slots(3)
    session_id = await bench.add_session()
    await bench.database.execute("SELECT setval('job_positions', 10)")
    visible = [await bench.add_job() for _ in range(2)]
    # A claim that has its snapshot, but no lane yet, waits at the gate.
    for statement in (
        f"""CREATE FUNCTION pass() RETURNS boolean LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_advisory_xact_lock_shared({GATE}); RETURN true; END $$""",
        "ALTER TABLE renderer_slots RENAME TO gated_slots",
        "CREATE VIEW renderer_slots AS SELECT * FROM gated_slots WHERE pass()",
    ):
        await bench.database.execute(statement)
    gatekeeper = await asyncpg.connect(dsn)
    await gatekeeper.execute(f"SELECT pg_advisory_lock({GATE})")

    claiming = asyncio.create_task(bench.claim(session_id))
    await until(bench, f"EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = {GATE} AND NOT granted)")
    await bench.database.execute("SELECT setval('job_positions', 1)")
    late = await bench.add_job()
    await gatekeeper.close()

    claims = [await claiming, await bench.claim(session_id), await bench.claim(session_id)]
    assert {claim.job_id for claim in claims if claim} == {late, *visible}
    assert await bench.lanes_agree_with_queue()


async def test_a_job_whose_withdrawal_was_rolled_back_is_still_claimed(dsn: str, bench: Bench):
    await bench.add_slots(2)
    session_id = await bench.add_session()
    first, second = await bench.add_job(), await bench.add_job()
    withdrawing = await asyncpg.connect(dsn)
    transaction = withdrawing.transaction()
    await transaction.start()
    await withdrawing.execute("DELETE FROM queue WHERE job_id = $1", first)

    passed_by = await bench.claim(session_id)
    await transaction.rollback()
    await withdrawing.close()
    claim = await bench.claim(session_id)

    assert passed_by
    assert passed_by.job_id == second
    assert claim
    assert claim.job_id == first


async def test_a_job_that_is_cancelled_as_it_is_retried_ends(bench: Bench):
    session_id = await bench.add_session()
    claim = await bench.running_job(session_id)
    await bench.database.execute("UPDATE jobs SET cancel_requested_at = now()")

    event = await bench.attempts.retry(claim, session_id, reason="BUSY", counts=False, delay_s=0, cost=1)

    assert event
    assert (event.state, event.stage, event.error_message) == (JobState.CANCELLED, None, "The job was cancelled.")
    assert await bench.value("SELECT count(*) FROM queue") == 0
    assert await bench.value("SELECT state FROM jobs WHERE completed_at IS NOT NULL") == "cancelled"
    assert await bench.lanes_agree_with_queue()


async def test_waiting_for_another_attempt_takes_nothing_from_the_time_to_render(bench: Bench):
    session_id = await bench.add_session()
    claim = await bench.running_job(session_id)
    await bench.attempts.retry(claim, session_id, reason="BUSY", counts=False, delay_s=0, cost=1)
    await bench.database.execute("UPDATE jobs SET deadline_at = deadline_at - interval '30 minutes'")
    await bench.database.execute("UPDATE queue SET enqueued_at = enqueued_at - interval '30 minutes'")

    again = await bench.claim(session_id)

    assert again
    assert again.remaining_s == pytest.approx(900, abs=5)


# --- sessions


async def test_an_attempt_of_ours_that_nobody_runs_is_adopted(database: Database, bench: Bench):
    """The answer to a claim, or to a take-over, can be lost after it was committed."""
    session, taken = await begin(database)
    claim = await bench.running_job(session.id)
    await session._beat()
    assert taken == [], "its answer may still be on the way"
    await database.execute("UPDATE attempts SET started_at = now() - interval '1 minute'")

    await session._beat()

    assert [each.render_id for each in taken] == [claim.render_id]


async def test_an_attempt_that_runs_here_is_not_adopted(database: Database, bench: Bench):
    elsewhere = await bench.add_session()
    claim = await bench.running_job(elsewhere)
    session, taken = await begin(database, running=(claim.job_id,))
    await database.execute("UPDATE attempts SET session_id = $1, started_at = now() - interval '1 minute'", session.id)

    await session._beat()

    assert taken == []


async def test_a_job_whose_claim_was_never_heard_of_completes(database: Database, bench: Bench, gateway: Gateway):
    await until(bench, "EXISTS (SELECT FROM renderer_slots)")
    address = await bench.value("SELECT address FROM renderer_slots")
    session_id = await bench.value("SELECT id FROM gateway_sessions")
    job = painted_job()
    # In one transaction, so that the gateway itself can't claim the job in between.
    async with database.transaction() as connection:
        queue = Queue(cast("Database", connection))
        await queue.accept(job, renderer=Kind.SDXL, stages=[JobStage.RENDERING], cost=1)
        assert await queue.claim(Kind.SDXL, [address], session_id)
        await connection.execute("UPDATE attempts SET started_at = now() - interval '1 minute'")

    assert (await ended(gateway, job.id)).state == JobState.COMPLETED
    assert await bench.value("SELECT count(*) FROM renderer_slots WHERE job_id IS NOT NULL") == 0


async def test_what_ran_when_all_gateways_left_is_taken_over_days_later(database: Database, bench: Bench):
    left = await bench.add_session()
    await bench.running_job(left)
    await database.execute(
        "UPDATE gateway_sessions SET ended_at = now() - interval '3 days', lease_until = '-infinity'"
    )

    session, taken = await begin(database)
    await session._beat()

    assert len(taken) == 1


async def test_a_session_that_could_not_begin_is_nobodys(dsn: str, database: Database, bench: Bench):
    session, _ = await begin(database)
    async with open_database(dsn, max_connections=1) as closed:
        session._database = closed
    with pytest.raises(DatabaseUnavailable):
        await session.begin()

    assert await bench.value("SELECT count(*) FROM gateway_sessions WHERE id = $1", session.id) == 1


# --- the database


@pytest.mark.parametrize("code", ["40P01", "40001", "53100", "57014", "58030", "25006"])
async def test_errors_that_pass_are_an_absent_database(database: Database, code: str):
    with pytest.raises(DatabaseUnavailable):
        await database.execute(f"DO $$ BEGIN RAISE EXCEPTION 'passes' USING ERRCODE = '{code}'; END $$")


async def test_a_value_that_no_column_takes_is_not_an_absent_database(database: Database):
    with pytest.raises(asyncpg.DataError):
        await database.fetch("SELECT $1::integer", 2**40)


async def test_progress_that_can_not_be_stored_holds_up_nothing(database: Database, bench: Bench):
    session_id = await bench.add_session()
    claim = await bench.running_job(session_id)
    shown: list[JobEvent] = []
    writer = EventWriter(database, lambda: session_id, shown.extend)

    for step in (2**31, 2):
        writer.tell(Progress(claim.job_id, 1, JobStage.RENDERING, 5, step, StepDetail(step, 20, 0, 1)))
        await writer.flush()

    assert [event.step.step for event in shown if event.step] == [2]


async def test_all_steps_of_ended_jobs_are_pruned_however_many(database: Database, bench: Bench):
    session_id = await bench.add_session()
    claim = await bench.running_job(session_id)
    await database.execute(
        """INSERT INTO job_events (job_id, sequence, milestone, state, progress, attempt)
           SELECT $1, 2 + n, false, 'processing', 0, 1 FROM generate_series(1, 10001) n""",
        claim.job_id,
    )
    await bench.attempts.complete(claim, session_id, outputs=[], result={}, warnings=[])

    await prune_steps(database, age_s=0)

    assert await bench.value("SELECT count(*) FROM job_events WHERE NOT milestone") == 0


# --- watchers


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


# --- runs and renderers


async def test_a_job_that_this_version_can_not_read_fails_alone(bench: Bench, gateway: Gateway):
    odd, next_one = painted_job(), painted_job()
    odd.request["from_the_future"] = True
    await bench.queue.accept(odd, renderer=Kind.SDXL, stages=[JobStage.RENDERING], cost=1)
    await gateway.accept(next_one)

    assert (await ended(gateway, odd.id)).state == JobState.FAILED
    assert (await ended(gateway, next_one.id)).state == JobState.COMPLETED
    assert await bench.value("SELECT count(*) FROM renderer_slots WHERE job_id IS NOT NULL") == 0


async def test_a_cancel_that_overtakes_the_start_of_the_render_stops_it(
    gateway: Gateway, renderer: Renderer, monkeypatch: pytest.MonkeyPatch
):
    looking, look, cancelled = asyncio.Event(), asyncio.Event(), asyncio.Event()
    get, cancel = renderer.store.get, renderer.renders.cancel

    async def slow_get(bucket: str, key: str) -> bytes:
        looking.set()
        await look.wait()
        return await get(bucket, key)

    def noted_cancel(render_id: str) -> Any:
        cancelled.set()
        return cancel(render_id)

    monkeypatch.setattr(renderer.store, "get", slow_get)
    monkeypatch.setattr(renderer.renders, "cancel", noted_cancel)
    job = painted_job(prompt="endless")
    await gateway.accept(job)
    await looking.wait()
    await gateway.cancel("alice", job.id)
    await cancelled.wait()
    look.set()

    assert (await ended(gateway, job.id)).state == JobState.CANCELLED


async def test_a_renderer_that_could_not_be_registered_is_tried_again(
    dsn: str, database: Database, bench: Bench, renderer: Renderer
):
    await database.execute("CREATE SEQUENCE refusals")
    await database.execute(
        """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN PERFORM nextval('refusals'); RAISE EXCEPTION 'refused'; END $$"""
    )
    await database.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON renderer_slots FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    stated = {"database_url": dsn, "renderers_sdxl": f"127.0.0.1:{renderer.server.port}", "lease_s": 1}
    async with open_gateway(fronts.settings(**stated)) as gateway:
        await until(bench, "is_called FROM refusals")
        await database.execute("DROP TRIGGER refuse ON renderer_slots")
        job = painted_job()
        await gateway.accept(job)
        assert (await ended(gateway, job.id)).state == JobState.COMPLETED


# --- the process


async def test_what_goes_wrong_around_a_gateway_is_told_as_it_is(dsn: str, database: Database):
    with pytest.raises(StartError, match="in use"):
        async with open_gateway(fronts.settings(database_url=dsn, renderers_sdxl="127.0.0.1:1")):
            raise StartError("the port is in use")


async def test_methods_that_callers_make_up_are_one_in_the_metrics():
    registry = CollectorRegistry()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["route"] = type("Route", (), {"path": "/api/jobs"})()
        await send({"type": "http.response.start", "status": 405, "headers": []})

    observed = Observed(app, registry=registry, traces=open_provider("test"))

    async def send(_: Any) -> None:
        pass

    for method in ("GET", "MADE", "UP"):
        await observed({"type": "http", "method": method, "path": "/api/jobs", "headers": []}, None, send)  # type: ignore[arg-type]

    methods = {sample.labels["method"] for family in registry.collect() for sample in family.samples}
    assert methods == {"GET", "unknown"}


# --- records


async def test_a_token_of_a_moment_that_never_was_is_a_bad_request(database: Database):
    for moment in ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"):
        token = base64.urlsafe_b64encode(json.dumps([moment, str(uuid4())]).encode()).decode()
        with pytest.raises(InvalidRequest):
            await Records(database).page("alice", JobFilter(), page_size=2, page_token=token)
