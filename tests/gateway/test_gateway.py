"""The whole gateway behind its fronts, with a real database and a real renderer whose engine only paints."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from uuid import UUID

import pytest

from ourvidz_gateway.errors import IdempotencyConflict, InvalidRequest, JobNotFound, NoRenderer, QueueFull
from ourvidz_gateway.gateway import Gateway
from ourvidz_gateway.jobs import JobFilter, JobStage, JobState
from ourvidz_serving.server import StartError
from support.jobs import Bench, ended, events_of, new_job, painted_job, until_stage
from support.renderer import Renderer, ask, first_of

Open = Callable[..., AbstractAsyncContextManager[Gateway]]


async def test_a_job_is_rendered_and_recorded_with_every_step_in_order(gateway: Gateway, bench: Bench):
    job = painted_job(images=3, steps=4)
    accepted = await gateway.accept(job)
    assert (accepted.job.state, accepted.queue_length) == (JobState.QUEUED, 1)

    events = await events_of(gateway, job.id)

    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert [(event.step.image_index, event.step.step) for event in events if event.step] == [
        (image, step) for image in range(3) for step in range(1, 5)
    ]
    assert [event.state for event in events if not event.step] == [
        JobState.QUEUED,
        JobState.PROCESSING,
        JobState.PROCESSING,
        JobState.COMPLETED,
    ]
    assert events[-2].stage == JobStage.UPLOADING
    assert [event.progress for event in events] == sorted(event.progress for event in events)
    assert events[-1].progress == 100
    done = await gateway.get("alice", job.id)
    assert (done.state, done.stage, done.progress, done.queue_position) == (JobState.COMPLETED, None, 100, None)
    assert [(asset.index, asset.seed, asset.bucket) for asset in done.assets] == [
        (i, 7 + i, "pictures") for i in range(3)
    ]
    assert done.metadata["seed"] == 7
    assert done.metadata["model"] == "painter"
    assert done.metadata["memory_rung"] == "vae_tiling"
    assert done.warnings == ["painted, not rendered"]
    assert done.started_at
    assert done.completed_at
    assert await bench.value("SELECT count(*) FROM renderer_slots WHERE job_id IS NOT NULL") == 0
    assert await bench.value("SELECT count(*) FROM queue") == 0


async def test_a_watch_can_begin_anywhere_and_even_after_the_end(gateway: Gateway):
    job = painted_job(steps=5)
    await gateway.accept(job)
    events = await events_of(gateway, job.id)

    assert await events_of(gateway, job.id, after=4) == events[4:]
    assert await events_of(gateway, job.id, after=10**6) == events[-1:]


async def test_many_watchers_of_one_job_all_see_the_same(gateway: Gateway):
    job = painted_job(steps=20)
    await gateway.accept(job)

    seen = await asyncio.gather(*(events_of(gateway, job.id) for _ in range(50)))

    assert all(events == seen[0] for events in seen)
    assert len(seen[0]) == 24


async def test_other_users_jobs_do_not_exist(gateway: Gateway):
    job = painted_job()
    await gateway.accept(job)

    with pytest.raises(JobNotFound):
        await gateway.get("bob", job.id)
    with pytest.raises(JobNotFound):
        await gateway.cancel("bob", job.id)
    with pytest.raises(JobNotFound):
        await anext(gateway.watch("bob", job.id))
    assert await gateway.page("bob", JobFilter(), page_size=10, page_token=None) == ([], None)
    assert (await ended(gateway, job.id)).state == JobState.COMPLETED


async def test_pages_go_from_the_newest_to_the_oldest_without_gap(gateway: Gateway):
    jobs = [replace(painted_job(), project_id="p" if number % 2 else None) for number in range(5)]
    for job in jobs:
        await gateway.accept(job)

    found, token = [], None
    while True:
        page, token = await gateway.page("alice", JobFilter(), page_size=2, page_token=token)
        found += [job.id for job in page]
        if token is None:
            break
    of_project, _ = await gateway.page("alice", JobFilter(project_id="p"), page_size=10, page_token=None)

    assert found == [job.id for job in reversed(jobs)]
    assert [job.id for job in of_project] == [jobs[3].id, jobs[1].id]
    for bad in ("x", "e30=", "WzEsMl0="):
        with pytest.raises(InvalidRequest):
            await gateway.page("alice", JobFilter(), page_size=2, page_token=bad)


async def test_a_job_whose_kind_has_no_renderer_is_refused_and_not_stored(gateway: Gateway, bench: Bench):
    for job_type in ("video_fast", "image7b_fast_enhanced"):
        with pytest.raises(NoRenderer):
            await gateway.accept(new_job(job_type=job_type))
    assert await bench.value("SELECT count(*) FROM jobs") == 0


async def test_a_full_queue_takes_no_more_but_answers_for_what_it_took(dsn, database, bench: Bench, open_one: Open):
    # Nothing listens there, so that jobs stay.
    async with open_one(queue_limit=2, renderers_sdxl="127.0.0.1:1") as gateway:
        first = replace(painted_job(), idempotency_key="k", fingerprint=b"1")
        await gateway.accept(first)
        assert (await gateway.accept(painted_job())).queue_length == 2
        with pytest.raises(QueueFull) as caught:
            await gateway.accept(painted_job())
        assert caught.value.retry_after_s
        again = await gateway.accept(replace(painted_job(), idempotency_key="k", fingerprint=b"1"))
        assert again.job.id == first.id
        assert await bench.value("SELECT count(*) FROM jobs") == 2


async def test_the_same_request_under_one_key_is_one_job(gateway: Gateway, bench: Bench):
    def request(fingerprint: bytes = b"1"):
        return replace(painted_job(), idempotency_key="k", fingerprint=fingerprint)

    replies = await asyncio.gather(*(gateway.accept(request()) for _ in range(50)))

    assert len({reply.job.id for reply in replies}) == 1
    assert await bench.value("SELECT count(*) FROM jobs") == 1
    with pytest.raises(IdempotencyConflict):
        await gateway.accept(request(b"2"))


async def test_a_waiting_job_knows_its_position_and_is_cancelled_at_once(gateway: Gateway, renderer: Renderer):
    running, waiting, last = painted_job(prompt="hold:0:1"), painted_job(), painted_job()
    for job in (running, waiting, last):
        await gateway.accept(job)
    await renderer.gate.held()
    assert [(await gateway.get("alice", job.id)).queue_position for job in (waiting, last)] == [0, 1]

    found, job = await gateway.cancel("alice", waiting.id)

    assert (found, job.state, job.error_message) == (JobState.QUEUED, JobState.CANCELLED, "The job was cancelled.")
    assert (await gateway.cancel("alice", waiting.id))[0] == JobState.CANCELLED
    renderer.gate.release()
    assert (await ended(gateway, last.id)).state == JobState.COMPLETED
    assert (await gateway.cancel("alice", last.id))[0] == JobState.COMPLETED


async def test_a_running_job_is_cancelled_and_keeps_what_it_had_finished(gateway: Gateway, renderer: Renderer):
    job = painted_job(prompt="hold:1:2", images=3)
    await gateway.accept(job)
    await renderer.gate.held()

    found, _ = await gateway.cancel("alice", job.id)
    # The engine is inside a step until the gate opens; then it must stop.
    while not await _asked_to_stop(renderer, job.id):
        await asyncio.sleep(0.01)
    renderer.gate.release()

    assert found == JobState.PROCESSING
    assert (await ended(gateway, job.id)).state == JobState.CANCELLED
    assert [asset.index for asset in (await gateway.get("alice", job.id)).assets] == [0]
    follower = painted_job()
    await gateway.accept(follower)
    assert (await ended(gateway, follower.id)).state == JobState.COMPLETED


async def _asked_to_stop(renderer: Renderer, job_id: UUID) -> bool:
    return renderer.engine._run is None or renderer.engine._run.cancelled


async def test_a_job_whose_engine_dies_is_tried_again_and_completes(gateway: Gateway, renderer: Renderer, bench: Bench):
    job = painted_job(prompt="hold:0:2", steps=3)
    await gateway.accept(job)

    os.kill(await renderer.gate.held(), signal.SIGKILL)
    await renderer.gate.held()
    renderer.gate.release()

    events = await events_of(gateway, job.id)
    assert events[-1].state == JobState.COMPLETED
    assert [event.state for event in events if not event.step].count(JobState.QUEUED) == 2
    assert await bench.value("SELECT array_agg(outcome ORDER BY attempt) FROM attempts") == ["failed", "completed"]
    assert await bench.value("SELECT failures FROM jobs") == 1


async def test_a_job_that_kills_its_engine_three_times_is_quarantined_and_the_next_runs(
    gateway: Gateway, renderer: Renderer, bench: Bench
):
    poison, next_one = painted_job(prompt="hold:0:1"), painted_job()
    await gateway.accept(poison)
    for _ in range(3):
        os.kill(await renderer.gate.held(), signal.SIGKILL)

    event = await ended(gateway, poison.id)
    await gateway.accept(next_one)

    assert event.state == JobState.FAILED
    assert "3 times" in (event.error_message or "")
    assert await bench.value("SELECT quarantined_at IS NOT NULL FROM jobs WHERE id = $1", poison.id)
    assert (await ended(gateway, next_one.id)).state == JobState.COMPLETED


async def test_a_job_that_the_engine_refuses_fails_at_once_and_says_why(gateway: Gateway, bench: Bench):
    job = painted_job(prompt="invalid")
    await gateway.accept(job)

    event = await ended(gateway, job.id)

    assert event.state == JobState.FAILED
    assert "this engine paints no such thing" in (event.error_message or "")
    assert await bench.value("SELECT count(*) FROM attempts") == 1


async def test_a_job_over_its_deadline_is_stopped_and_says_so(gateway: Gateway, renderer: Renderer):
    job = painted_job(prompt="endless", deadline_s=1)
    await gateway.accept(job)

    event = await ended(gateway, job.id)

    assert event.state == JobState.FAILED
    assert "longer than" in (event.error_message or "")
    await renderer.until(lambda: renderer.engine._run is None)


async def test_a_renderer_that_is_busy_with_a_direct_caller_costs_no_attempt(
    gateway: Gateway, renderer: Renderer, bench: Bench
):
    direct = renderer.stub.Render(ask("hold:0:1"))
    await first_of(direct)
    await renderer.gate.held()
    job = painted_job()
    await gateway.accept(job)
    while await bench.value("SELECT count(*) FROM attempts WHERE outcome = 'handed_back'") == 0:
        await asyncio.sleep(0.01)
    renderer.gate.release()

    assert (await ended(gateway, job.id)).state == JobState.COMPLETED
    assert await bench.value("SELECT failures FROM jobs") == 0
    direct.cancel()


async def test_a_gateway_that_leaves_hands_its_render_to_the_next_one(
    database, bench: Bench, renderer: Renderer, open_one: Open
):
    job = painted_job(prompt="hold:0:3", steps=5)
    async with open_one() as first:
        await first.accept(job)
        await renderer.gate.held()
        await until_stage(first, job.id, JobStage.RENDERING)
    async with open_one() as second:
        taken_over = (
            "SELECT count(*) FROM attempts a JOIN gateway_sessions s ON s.id = a.session_id WHERE s.ended_at IS NULL"
        )
        while await bench.value(taken_over) == 0:
            await asyncio.sleep(0.01)
        renderer.gate.release()
        events = await events_of(second, job.id)

    assert events[-1].state == JobState.COMPLETED
    assert [event.attempt for event in events if event.step] == [1] * 5
    assert [event.step.step for event in events if event.step] == [1, 2, 3, 4, 5]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))


async def test_a_gateway_without_reach_of_the_renderer_leaves_the_job_to_one_that_has_it(database, open_one: Open):
    async with AsyncExitStack() as stack:
        reaching = await stack.enter_async_context(open_one())
        blind = await stack.enter_async_context(open_one(renderers_sdxl="127.0.0.1:1"))
        job = painted_job(steps=6)
        await blind.accept(job)

        seen_there, seen_here = await asyncio.gather(events_of(reaching, job.id), events_of(blind, job.id))

    assert seen_there == seen_here
    assert seen_here[-1].state == JobState.COMPLETED


async def test_a_cancel_reaches_the_gateway_that_runs_the_job(database, renderer: Renderer, open_one: Open):
    async with AsyncExitStack() as stack:
        runner = await stack.enter_async_context(open_one())
        other = await stack.enter_async_context(open_one(renderers_sdxl="127.0.0.1:1"))
        job = painted_job(prompt="endless")
        await runner.accept(job)
        await until_stage(other, job.id, JobStage.RENDERING)

        found, _ = await other.cancel("alice", job.id)

        assert found == JobState.PROCESSING
        assert (await ended(other, job.id)).state == JobState.CANCELLED


async def test_queue_status_tells_depth_running_and_renderers(gateway: Gateway, renderer: Renderer, bench: Bench):
    for prompt in ("hold:0:1", "a fox", "a fox"):
        await gateway.accept(painted_job(prompt=prompt))
    await renderer.gate.held()
    while (status := (await gateway.queue_status())[0]).running == 0:
        await asyncio.sleep(0.05)

    assert (status.kind, status.depth, status.running, status.renderers) == ("sdxl", 2, 1, 1)
    assert status.oldest_seconds is not None
    renderer.gate.release()


async def test_what_goes_wrong_around_a_gateway_is_told_as_it_is(database, open_one: Open):
    with pytest.raises(StartError, match="in use"):
        async with open_one():
            raise StartError("the port is in use")
