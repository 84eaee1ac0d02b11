"""Enhanced jobs: the prompt goes to an enhancer and then to a renderer, both on real channels."""

import asyncio
import os
import signal

import pytest

from ourvidz.api.enhance.v1 import enhance_pb2, enhance_pb2_grpc
from ourvidz_gateway import runs
from ourvidz_gateway.enhances import CUT_WARNING
from ourvidz_gateway.errors import QueueFull
from ourvidz_gateway.gateway import Gateway
from ourvidz_gateway.jobs import JobStage, JobState, Kind
from ourvidz_serving.errors import Aborted, Busy
from support.enhanced_jobs import ENHANCED, PROMPT, Open, PromptRefused, enhanced_job
from support.jobs import Bench, ended, events_of, painted_job, until_stage
from support.renderer import Renderer
from support.scripted_enhancer import HOLD, ScriptedEnhancer, enhancing, finished
from support.wire import wire_to


class EngineDied(Aborted):
    """What an enhancer says whose engine process is gone."""

    reason = "ENGINE_DIED"


async def reached(event: asyncio.Event) -> None:
    async with asyncio.timeout(30):
        await event.wait()


async def test_a_prompt_is_enhanced_and_what_comes_back_is_rendered(
    gateway: Gateway, enhancer: ScriptedEnhancer, wan: Renderer
):
    enhancer.answer("hold:0:1 ", finished(f"hold:0:1 {ENHANCED}"))
    job = enhanced_job()
    await gateway.accept(job)
    await wan.gate.held()  # only the enhanced prompt holds the engine
    wan.gate.release()

    events = await events_of(gateway, job.id)

    assert [(event.state, event.stage) for event in events if not event.step] == [
        (JobState.QUEUED, JobStage.QUEUED),
        (JobState.PROCESSING, JobStage.ENHANCING),
        (JobState.QUEUED, JobStage.QUEUED),
        (JobState.PROCESSING, JobStage.RENDERING),
        (JobState.PROCESSING, JobStage.UPLOADING),
        (JobState.COMPLETED, None),
    ]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert [event.attempt for event in events if event.step] == [2, 2]
    done = await gateway.get("alice", job.id)
    assert done.metadata["enhanced_prompt"] == f"hold:0:1 {ENHANCED}"
    assert done.metadata["original_prompt"] == PROMPT
    assert done.metadata["prompt"] == job.metadata["prompt"]
    assert len(done.assets) == 1


async def test_an_enhancer_is_asked_for_what_the_renderer_can_read(gateway: Gateway, enhancer: ScriptedEnhancer):
    refusal = PromptRefused("not this")
    for job_type in ("image7b_high_enhanced", "video7b_high_enhanced"):
        enhancer.answer(refusal)
        job = enhanced_job(job_type)
        await gateway.accept(job)
        assert (await ended(gateway, job.id)).state == JobState.FAILED

    assert [request.medium for request in enhancer.requests] == [enhance_pb2.MEDIUM_IMAGE, enhance_pb2.MEDIUM_VIDEO]
    assert enhancer.requests[0] == enhance_pb2.EnhanceRequest(
        prompt=PROMPT,
        medium=enhance_pb2.MEDIUM_IMAGE,
        language=enhance_pb2.LANGUAGE_CHINESE,
        max_token_count=512,
        max_character_count=2600,
        seed=7,
    )


@pytest.mark.parametrize(
    ("setting", "language"), [("en", enhance_pb2.LANGUAGE_ENGLISH), ("prompt", enhance_pb2.LANGUAGE_UNSPECIFIED)]
)
async def test_the_language_is_a_setting(database, open_both: Open, enhancer: ScriptedEnhancer, setting, language):
    enhancer.answer(finished(ENHANCED))
    async with open_both(enhance_language=setting) as gateway:
        job = enhanced_job()
        await gateway.accept(job)
        assert (await ended(gateway, job.id)).state == JobState.COMPLETED

    assert [request.language for request in enhancer.requests] == [language]


async def test_what_the_enhancer_warns_of_stands_in_the_job(gateway: Gateway, enhancer: ScriptedEnhancer):
    enhancer.answer(finished(ENHANCED, truncated=True, warnings=["the prompt was long"]))
    job = enhanced_job()
    await gateway.accept(job)
    await ended(gateway, job.id)

    done = await gateway.get("alice", job.id)

    assert done.warnings == ["the prompt was long", CUT_WARNING, "painted, not rendered"]


async def test_no_renderer_waits_while_a_prompt_is_enhanced(gateway: Gateway, enhancer: ScriptedEnhancer, bench: Bench):
    enhancer.answer(HOLD, finished(ENHANCED))
    slow, plain = enhanced_job(), painted_job(job_type="image_fast")
    await gateway.accept(slow)
    await reached(enhancer.held)

    await gateway.accept(plain)

    assert (await ended(gateway, plain.id)).state == JobState.COMPLETED
    shown = await gateway.get("alice", slow.id)
    assert (shown.state, shown.stage, shown.progress) == (JobState.PROCESSING, JobStage.ENHANCING, 0)
    assert "enhanced_prompt" not in shown.metadata
    assert await bench.value("SELECT deadline_at FROM jobs WHERE id = $1", slow.id) is None
    enhancer.release()
    assert (await ended(gateway, slow.id)).state == JobState.COMPLETED


async def test_a_job_waits_for_an_enhancer_that_is_down(database, bench: Bench, open_both: Open):
    async with enhancing() as first:
        address = first.address
    async with open_both(renderers_enhancer=address) as gateway:
        job = enhanced_job()
        await gateway.accept(job)
        waiting = await gateway.get("alice", job.id)
        assert (waiting.state, waiting.stage, waiting.queue_position) == (JobState.QUEUED, JobStage.QUEUED, 0)
        assert await bench.value("SELECT kind FROM queue") == "enhancer"
        async with enhancing(port=int(address.rsplit(":", 1)[1])) as second:
            second.answer(finished(ENHANCED))
            assert (await ended(gateway, job.id)).state == JobState.COMPLETED

    assert await bench.value("SELECT array_agg(stage ORDER BY attempt) FROM attempts") == ["enhancing", "rendering"]


async def test_an_enhancer_that_dies_in_the_middle_is_asked_again(
    database, bench: Bench, open_both: Open, enhancer: ScriptedEnhancer
):
    async with wire_to(enhancer.address) as wire, open_both(renderers_enhancer=wire.address) as gateway:
        enhancer.answer("A red fox", HOLD)
        enhancer.answer(finished(ENHANCED))
        job = enhanced_job()
        await gateway.accept(job)
        await reached(enhancer.held)
        # What the gateway gets an answer to by the same connection comes after what the enhancer has said until now.
        async with gateway._renderers.channel(Kind.ENHANCER, wire.address) as channel:
            await enhance_pb2_grpc.EnhanceServiceStub(channel).GetEnhancer(enhance_pb2.GetEnhancerRequest())
        wire.cut()
        assert (await ended(gateway, job.id)).state == JobState.COMPLETED
        assert (await gateway.get("alice", job.id)).metadata["enhanced_prompt"] == ENHANCED

    assert await bench.value("SELECT array_agg(outcome ORDER BY attempt) FROM attempts") == [
        "failed",
        "completed",
        "completed",
    ]
    assert await bench.value("SELECT failures FROM jobs") == 1


async def test_an_enhancer_that_is_busy_with_others_costs_no_attempt(
    gateway: Gateway, enhancer: ScriptedEnhancer, bench: Bench
):
    enhancer.answer(Busy("all slots are taken", retry_after_s=0.05))
    enhancer.answer(finished(ENHANCED))
    job = enhanced_job()
    await gateway.accept(job)

    assert (await ended(gateway, job.id)).state == JobState.COMPLETED
    assert await bench.value("SELECT failures FROM jobs") == 0


async def test_attempts_are_counted_over_all_stages(
    gateway: Gateway, enhancer: ScriptedEnhancer, wan: Renderer, bench: Bench
):
    enhancer.answer(EngineDied("the engine died"))
    enhancer.answer(finished("hold:0:1 a fox"))
    job = enhanced_job()
    await gateway.accept(job)
    for _ in range(2):
        os.kill(await wan.gate.held(), signal.SIGKILL)

    event = await ended(gateway, job.id)

    assert event.state == JobState.FAILED
    assert event.error_message == "The job failed 3 times; the last time while rendering: ENGINE_DIED."
    assert await bench.value("SELECT quarantined_at IS NOT NULL FROM jobs")


@pytest.mark.parametrize("text", ["", "a\0fox"])
async def test_an_answer_without_a_prompt_is_never_rendered(
    gateway: Gateway, enhancer: ScriptedEnhancer, bench: Bench, monkeypatch: pytest.MonkeyPatch, text: str
):
    monkeypatch.setattr(runs, "MAX_ATTEMPTS", 1)
    enhancer.answer(finished(text))
    job = enhanced_job()
    await gateway.accept(job)

    assert (await ended(gateway, job.id)).state == JobState.FAILED
    assert await bench.value("SELECT count(*) FROM attempts WHERE stage = 'rendering'") == 0


async def test_a_render_that_is_tried_again_is_not_enhanced_again(
    gateway: Gateway, enhancer: ScriptedEnhancer, wan: Renderer, bench: Bench
):
    enhancer.answer(finished("hold:0:2 a fox"))
    job = enhanced_job(steps=3)
    await gateway.accept(job)
    os.kill(await wan.gate.held(), signal.SIGKILL)
    await wan.gate.held()
    wan.gate.release()

    assert (await ended(gateway, job.id)).state == JobState.COMPLETED
    assert len(enhancer.requests) == 1
    assert await bench.value("SELECT array_agg(stage ORDER BY attempt) FROM attempts") == [
        "enhancing",
        "rendering",
        "rendering",
    ]


async def test_a_job_that_is_handed_back_for_an_hour_fails(gateway: Gateway, enhancer: ScriptedEnhancer, bench: Bench):
    enhancer.answer(Busy("all slots are taken", retry_after_s=600))
    job = enhanced_job()
    await gateway.accept(job)
    await bench.until("EXISTS (SELECT FROM attempts WHERE outcome = 'handed_back')")
    await bench.database.execute("UPDATE attempts SET started_at = now() - interval '61 minutes'")
    enhancer.answer(Busy("all slots are taken", retry_after_s=600))
    await bench.database.execute("UPDATE renderer_slots SET cool_until = now() WHERE kind = 'enhancer'")

    event = await ended(gateway, job.id)

    assert event.state == JobState.FAILED
    assert event.error_message == "No enhancer was free for 60 minutes."
    assert len(enhancer.requests) == 2


async def test_a_cancel_stops_the_enhancer_and_nothing_is_rendered(
    gateway: Gateway, enhancer: ScriptedEnhancer, bench: Bench
):
    enhancer.answer("A red fox", HOLD)
    job = enhanced_job()
    await gateway.accept(job)
    await reached(enhancer.held)

    found, _ = await gateway.cancel("alice", job.id)

    assert found == JobState.PROCESSING
    assert (await ended(gateway, job.id)).state == JobState.CANCELLED
    await reached(enhancer.cancelled)
    assert await bench.value("SELECT count(*) FROM attempts WHERE stage = 'rendering'") == 0
    assert await bench.value("SELECT count(*) FROM renderer_slots WHERE job_id IS NOT NULL") == 0


async def test_a_cancel_reaches_the_gateway_that_enhances(database, open_both: Open, enhancer: ScriptedEnhancer):
    enhancer.answer(HOLD)
    async with open_both() as runner, open_both(renderers_enhancer="127.0.0.1:1") as other:
        job = enhanced_job()
        await runner.accept(job)
        await until_stage(other, job.id, JobStage.ENHANCING)
        await reached(enhancer.held)
        await other.cancel("alice", job.id)
        assert (await ended(other, job.id)).state == JobState.CANCELLED


async def test_what_a_gateway_was_enhancing_when_it_died_is_enhanced_by_the_next(
    database, bench: Bench, open_both: Open, enhancer: ScriptedEnhancer
):
    dead = await bench.add_session()
    job = enhanced_job()
    await bench.queue.accept(job, renderer=Kind.WAN, stages=[JobStage.ENHANCING, JobStage.RENDERING], cost=1)
    await bench.add_slots(address=enhancer.address, kind=Kind.ENHANCER)
    assert await bench.queue.claim(Kind.ENHANCER, [enhancer.address], dead)
    await database.execute("UPDATE gateway_sessions SET lease_until = now() - interval '1 second'")
    enhancer.answer(finished(ENHANCED))

    async with open_both() as successor:
        assert (await ended(successor, job.id)).state == JobState.COMPLETED

    assert await bench.value("SELECT array_agg(outcome ORDER BY attempt) FROM attempts") == ["completed", "completed"]
    assert await bench.value("SELECT failures FROM jobs") == 0


async def test_a_gateway_that_leaves_stops_its_enhancing_and_the_next_begins_it_anew(
    database, open_both: Open, enhancer: ScriptedEnhancer
):
    enhancer.answer("A red fox", HOLD)
    enhancer.answer(finished(ENHANCED))
    job = enhanced_job()
    async with open_both() as first:
        await first.accept(job)
        await reached(enhancer.held)
    await reached(enhancer.cancelled)

    async with open_both() as second:
        assert (await ended(second, job.id)).state == JobState.COMPLETED


async def test_a_job_is_refused_when_a_queue_further_on_is_full(database, open_both: Open):
    async with open_both(queue_limit=1, renderers_wan="127.0.0.1:1", renderers_enhancer="127.0.0.1:1") as gateway:
        assert (await gateway.accept(painted_job(job_type="image_fast"))).queue_length == 1
        with pytest.raises(QueueFull):
            await gateway.accept(enhanced_job())


async def test_a_job_that_waited_too_long_says_for_what(database, open_both: Open):
    async with open_both(wait_limit_s=0.01, renderers_enhancer="127.0.0.1:1") as gateway:
        job = enhanced_job()
        await gateway.accept(job)
        event = await ended(gateway, job.id)

    assert event.state == JobState.FAILED
    assert (event.error_message or "").startswith("No enhancer was free")
