"""What the dispatcher does with odd jobs, lost answers, races and renderers that come and go."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, cast

import pytest

from ourvidz_gateway import dispatch, sessions
from ourvidz_gateway.acceptance import Terms
from ourvidz_gateway.database import Database
from ourvidz_gateway.gateway import Gateway
from ourvidz_gateway.jobs import JobStage, JobState, Kind
from ourvidz_gateway.queue import Queue
from support.jobs import Bench, ended, painted_job
from support.renderer import Renderer, ask, first_of

Open = Callable[..., AbstractAsyncContextManager[Gateway]]


async def test_a_job_whose_claim_was_never_heard_of_completes(database: Database, bench: Bench, gateway: Gateway):
    await bench.until("EXISTS (SELECT FROM renderer_slots WHERE kind = 'sdxl')")
    address = await bench.value("SELECT address FROM renderer_slots WHERE kind = 'sdxl'")
    session_id = await bench.value("SELECT id FROM gateway_sessions")
    job = painted_job()
    # In one transaction, so that the gateway itself can't claim the job in between.
    async with database.transaction() as connection:
        queue = Queue(cast("Database", connection), Terms(welcome=1))
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


async def test_a_job_that_no_renderer_begins_in_time_fails_when_its_time_is_up(
    database: Database, bench: Bench, open_one: Open, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(dispatch, "SWEEP_S", 1e6)  # nothing is found by the way
    async with open_one(renderers_sdxl="127.0.0.1:1") as gateway:
        patient = painted_job()
        await gateway.accept(patient)
        job = replace(painted_job(), credits=5, start_timeout_s=0.25)
        await gateway.accept(job)

        event = await ended(gateway, job.id)

        assert event.state == JobState.FAILED
        assert event.error_message == "No renderer began the job within 0.25 seconds."
        assert (await gateway.get("alice", patient.id)).state == JobState.QUEUED
    assert await bench.account() == (999, 1, 1)
    assert await bench.lanes_agree_with_queue()


async def test_a_job_that_waits_for_another_try_when_its_time_is_up_fails(
    database: Database, bench: Bench, gateway: Gateway, renderer: Renderer
):
    """The one renderer is busy with somebody else, again and again."""
    direct = renderer.stub.Render(ask("hold:0:1"))
    await first_of(direct)
    await renderer.gate.held()
    job = replace(painted_job(), start_timeout_s=60)
    await gateway.accept(job)
    await bench.until("EXISTS (SELECT FROM attempts WHERE outcome = 'handed_back')")

    # Whether it is tried just now or waits: what is set here is what it is queued with the next time.
    await database.execute("UPDATE jobs SET start_by = now()")

    event = await ended(gateway, job.id)
    assert event.state == JobState.FAILED
    assert (event.error_message or "").startswith("No renderer began the job within")
    renderer.gate.release()
    direct.cancel()


async def test_a_job_that_has_begun_in_time_may_take_its_time(
    bench: Bench, gateway: Gateway, renderer: Renderer, database: Database
):
    job = replace(painted_job(prompt="hold:0:1"), start_timeout_s=60)
    await gateway.accept(job)
    pid = await renderer.gate.held()
    await bench.until("EXISTS (SELECT FROM attempts WHERE accepted_at IS NOT NULL)")
    await database.execute("UPDATE jobs SET start_by = now() - interval '1 second'")

    os.kill(pid, signal.SIGKILL)
    await renderer.gate.held()
    renderer.gate.release()

    assert (await ended(gateway, job.id)).state == JobState.COMPLETED
