"""What the dispatcher does with odd jobs, lost answers, races and renderers that come and go."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

import pytest

from ourvidz_gateway import sessions
from ourvidz_gateway.database import Database
from ourvidz_gateway.gateway import Gateway
from ourvidz_gateway.jobs import JobStage, JobState, Kind
from ourvidz_gateway.queue import Queue
from support.jobs import Bench, ended, painted_job
from support.renderer import Renderer

Open = Callable[..., AbstractAsyncContextManager[Gateway]]


async def test_a_job_whose_claim_was_never_heard_of_completes(database: Database, bench: Bench, gateway: Gateway):
    await bench.until("EXISTS (SELECT FROM renderer_slots WHERE kind = 'sdxl')")
    address = await bench.value("SELECT address FROM renderer_slots WHERE kind = 'sdxl'")
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


async def test_what_begins_between_two_sessions_of_a_gateway_is_run_on_by_the_second(
    database: Database, bench: Bench, gateway: Gateway, renderer: Renderer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sessions, "LOST_ANSWER_S", 1e6)  # nobody looks for attempts that nobody runs
    await database.execute(
        """CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END $$"""
    )
    await database.execute("CREATE TRIGGER wait BEFORE INSERT ON gateway_sessions FOR EACH ROW EXECUTE FUNCTION wait()")
    first = await bench.value("SELECT id FROM gateway_sessions")
    job = painted_job(prompt="hold:0:1")
    async with database.transaction() as connection:
        await connection.execute("SELECT pg_advisory_xact_lock(1)")
        await database.execute("UPDATE gateway_sessions SET ended_at = now(), lease_until = '-infinity'")
        await bench.until("EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)")
        await gateway.accept(job)
        await renderer.gate.held()
    await bench.until("EXISTS (SELECT FROM attempts WHERE session_id <> $1)", first)
    renderer.gate.release()

    assert (await ended(gateway, job.id)).state == JobState.COMPLETED
    assert await bench.value("SELECT max(attempt) FROM attempts") == 1


async def test_a_renderer_that_could_not_be_registered_is_tried_again(database: Database, bench: Bench, open_one: Open):
    await database.execute("CREATE SEQUENCE refusals")
    await database.execute(
        """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN PERFORM nextval('refusals'); RAISE EXCEPTION 'refused'; END $$"""
    )
    await database.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON renderer_slots FOR EACH ROW WHEN (NEW.kind = 'sdxl') EXECUTE FUNCTION refuse()"
    )
    async with open_one() as gateway:
        await bench.until("is_called FROM refusals")
        await database.execute("DROP TRIGGER refuse ON renderer_slots")
        job = painted_job()
        await gateway.accept(job)
        assert (await ended(gateway, job.id)).state == JobState.COMPLETED
