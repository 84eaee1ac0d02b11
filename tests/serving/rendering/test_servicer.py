"""Rendering over gRPC: starting, attaching, replaying, and being refused."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import json_format
from grpc import StatusCode
from PIL import Image

from ourvidz.api.render.v1 import render_pb2
from ourvidz_serving.engines.process import EngineState
from ourvidz_serving.rendering.policy import RenderPolicy
from support.fake_engine import MODEL, paint
from support.renderer import BUCKET, Renderer, ask, failure_of, first_of, serving


async def test_a_render_streams_numbered_events_from_accepted_to_finished(renderer: Renderer) -> None:
    events = await renderer.events(ask(images=2))
    assert [event.index for event in events] == list(range(1, len(events) + 1))
    assert events[0].accepted == render_pb2.Accepted(seed=7, model=MODEL)
    assert [event.step for event in events if event.HasField("step")] == [
        render_pb2.Step(step=step, step_count=2, image_index=image, image_count=2)
        for image in (0, 1)
        for step in (1, 2)
    ]
    assert sorted(event.uploading.output_index for event in events if event.HasField("uploading")) == [0, 1]
    assert events[-1].HasField("finished")


async def test_the_outputs_lie_where_the_request_said_and_are_what_the_engine_made(renderer: Renderer) -> None:
    finished = await renderer.finish(ask(images=3))
    assert [output.key for output in finished.outputs] == [f"user/job/1/{index}.png" for index in range(3)]
    for index, output in enumerate(finished.outputs):
        data = await renderer.store.get(output.bucket, output.key)
        assert (output.size_bytes, output.sha256) == (len(data), hashlib.sha256(data).digest())
        assert (output.mime_type, output.width_px, output.height_px) == ("image/png", 64, 48)
        assert (output.seed, output.frame_count, output.HasField("duration")) == (7 + index, 1, False)
        picture = Image.open(io.BytesIO(data))
        np.testing.assert_array_equal(np.asarray(picture), paint(7 + index, 64, 48))
        parameters = f"a fox\nSteps: 2, CFG scale: 7.5, Seed: {7 + index}, Size: 64x48, Model: {MODEL}"
        assert picture.text == {"Software": "OurVidz", "parameters": parameters}
    assert (await renderer.store.stat(BUCKET, "user/job/1/0.png")).content_type == "image/png"


async def test_finished_tells_warnings_timings_memory_and_model(renderer: Renderer) -> None:
    finished = await renderer.finish(ask())
    assert list(finished.warnings) == ["painted, not rendered"]
    assert [timing.stage for timing in finished.timings] == ["denoise", "encode", "upload"]
    assert finished.timings[0].duration.ToMilliseconds() == 500
    assert all(timing.duration.ToNanoseconds() > 0 for timing in finished.timings)
    assert (finished.peak_memory_bytes, finished.memory_rung, finished.model) == (12_345, "vae_tiling", MODEL)


async def test_the_manifest_lies_beside_the_outputs(renderer: Renderer) -> None:
    events = await renderer.events(ask())
    data = await renderer.store.get(BUCKET, "user/job/1/manifest.json")
    manifest = json_format.Parse(data, render_pb2.Manifest())
    assert manifest.render_id == "job/1"
    assert (manifest.finished, manifest.finished_index) == (events[-1].finished, events[-1].index)


async def test_seeds_go_around_at_the_top(renderer: Renderer) -> None:
    finished = await renderer.finish(ask(images=2, seed=2**32 - 1))
    assert [output.seed for output in finished.outputs] == [2**32 - 1, 0]


async def test_without_a_seed_one_is_drawn_and_reported(renderer: Renderer) -> None:
    first = await renderer.events(ask(seed=None))
    second = await renderer.events(ask(seed=None, render_id="job/2"))
    assert first[0].accepted.seed == first[-1].finished.outputs[0].seed
    assert first[0].accepted.seed != second[0].accepted.seed


async def test_the_same_seed_gives_the_same_bytes_alone_or_in_a_batch(renderer: Renderer) -> None:
    batch = await renderer.finish(ask(images=3, seed=7))
    alone = await renderer.finish(ask(images=1, seed=9, render_id="job/2"))
    assert batch.outputs[2].sha256 == alone.outputs[0].sha256


async def test_a_second_caller_attaches_and_sees_every_event(renderer: Renderer) -> None:
    request = ask("hold:0:2")
    first = asyncio.create_task(renderer.events(request))
    await renderer.gate.held()
    second = renderer.stub.Render(request)
    assert (await first_of(second)).index == 1
    renderer.gate.release()
    assert [1] + [event.index async for event in second] == [event.index for event in await first]


async def test_a_caller_that_comes_back_gets_only_what_it_has_not_seen(renderer: Renderer) -> None:
    first = asyncio.create_task(renderer.events(ask("hold:0:2")))
    await renderer.gate.held()
    second = asyncio.create_task(renderer.events(ask("hold:0:2", resume_from=2, attach_only=True)))
    renderer.gate.release()
    assert await second == (await first)[2:]


async def test_equal_calls_that_race_start_one_render(renderer: Renderer) -> None:
    calls = [renderer.events(ask(seed=None, images=2)) for _ in range(8)]
    streams = await asyncio.gather(*calls)
    assert (
        len({stream[0].accepted.seed if stream[0].HasField("accepted") else None for stream in streams} - {None}) == 1
    )
    assert all(stream[-1] == streams[0][-1] for stream in streams)
    assert renderer.metric("ourvidz_renders_total", outcome="finished") == 1


async def test_a_finished_render_is_replayed_from_its_manifest(renderer: Renderer) -> None:
    events = await renderer.events(ask())
    assert await renderer.events(ask(attach_only=True)) == events[-1:]
    assert await renderer.events(ask(resume_from=events[-1].index)) == []
    assert renderer.metric("ourvidz_renders_total", outcome="finished") == 1


async def test_another_server_replays_a_finished_render_even_without_a_model(tmp_path: Path) -> None:
    async with serving(tmp_path) as renderer:
        await renderer.ready()
        events = await renderer.events(ask())
    async with serving(tmp_path, config={"broken": True}) as renderer:
        assert await renderer.events(ask()) == events[-1:]


@pytest.mark.parametrize("when", ["running", "failed", "finished", "restarted"])
async def test_another_request_under_the_same_id_is_refused(tmp_path: Path, when: str) -> None:
    prompt = {"running": "hold:0:1", "failed": "invalid"}.get(when, "a fox")
    async with serving(tmp_path) as renderer:
        await renderer.ready()
        if when == "running":
            first = renderer.stub.Render(ask(prompt))
            await renderer.gate.held()
        elif when == "failed":
            await renderer.failure(ask(prompt))
        else:
            await renderer.finish(ask(prompt))
        if when != "restarted":
            error = await renderer.failure(ask(prompt, seed=8))
    if when == "restarted":
        async with serving(tmp_path) as renderer:
            error = await renderer.failure(ask(prompt, seed=8))
    elif when == "running":
        first.cancel()
    assert (error.code, error.reason) == (StatusCode.ALREADY_EXISTS, "RENDER_EXISTS")


async def test_how_a_caller_watches_does_not_make_it_another_request(renderer: Renderer) -> None:
    events = await renderer.events(ask())
    keep = ask(on_disconnect=render_pb2.ON_DISCONNECT_KEEP, previews=True)
    keep.keep.FromSeconds(5)
    assert await renderer.events(keep) == events[-1:]


async def test_attach_only_starts_nothing(renderer: Renderer) -> None:
    error = await renderer.failure(ask(attach_only=True))
    assert (error.code, error.reason) == (StatusCode.NOT_FOUND, "RENDER_NOT_FOUND")
    assert renderer.renders.busy_slot_count == 0


async def test_the_place_of_another_render_is_never_written_to(renderer: Renderer) -> None:
    first = asyncio.create_task(renderer.finish(ask("hold:0:1", prefix="shared")))
    await renderer.gate.held()
    while_it_runs = await renderer.failure(ask(render_id="job/2", prefix="shared"))
    renderer.gate.release()
    await first
    when_it_is_done = await renderer.failure(ask(render_id="job/2", prefix="shared"))
    assert while_it_runs.reason == when_it_is_done.reason == "RENDER_EXISTS"


async def test_a_place_with_a_manifest_that_cannot_be_read_is_refused(renderer: Renderer) -> None:
    await renderer.store.put(BUCKET, "user/job/1/manifest.json", b"\xff{", content_type="application/json")
    assert (await renderer.failure(ask())).reason == "RENDER_EXISTS"


async def test_what_a_crashed_server_left_of_the_same_render_is_written_over(renderer: Renderer) -> None:
    await renderer.store.put(BUCKET, "user/job/1/0.png", b"half a picture", content_type="image/png")
    finished = await renderer.finish(ask())
    data = await renderer.store.get(BUCKET, "user/job/1/0.png")
    assert hashlib.sha256(data).digest() == finished.outputs[0].sha256


async def test_a_busy_renderer_says_when_to_ask_again(renderer: Renderer) -> None:
    running = asyncio.create_task(renderer.finish(ask("hold:0:2", steps=4)))
    await renderer.gate.held()
    error = await renderer.failure(ask(render_id="job/2"))
    assert (error.code, error.reason) == (StatusCode.RESOURCE_EXHAUSTED, "BUSY")
    assert error.retry_after_s is not None
    assert 0 < error.retry_after_s <= 60
    renderer.gate.release()
    await running
    await renderer.finish(ask(render_id="job/2"))


async def test_a_bad_request_is_refused_with_its_fields_even_by_a_busy_renderer(renderer: Renderer) -> None:
    running = asyncio.create_task(renderer.finish(ask("hold:0:1")))
    await renderer.gate.held()
    request = ask(render_id="job/2", steps=51)
    request.images.width_px = 65
    error = await renderer.failure(request)
    assert (error.code, error.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert [each.field for each in error.fields] == ["images.sampling.step_count", "images.width_px"]
    renderer.gate.release()
    await running


async def test_a_prefix_that_storage_cannot_take_is_the_callers_fault(renderer: Renderer) -> None:
    error = await renderer.failure(ask(prefix="𝄞" * 500))
    assert error.code is StatusCode.INVALID_ARGUMENT
    assert [each.field for each in error.fields] == ["output.prefix"]


async def test_before_the_model_is_loaded_nothing_starts(tmp_path: Path) -> None:
    async with serving(tmp_path, config={"hold_load": True}) as renderer:
        await renderer.gate.held()
        error = await renderer.failure(ask())
        assert (error.code, error.reason) == (StatusCode.UNAVAILABLE, "MODEL_NOT_LOADED")
        assert error.retry_after_s
        renderer.gate.release()
        await renderer.ready()
        await renderer.finish(ask())


@pytest.mark.parametrize(
    ("prompt", "code", "reason"),
    [
        ("oom", StatusCode.ABORTED, "OUT_OF_MEMORY"),
        ("bug", StatusCode.ABORTED, "ENGINE_FAILED"),
        ("few", StatusCode.ABORTED, "ENGINE_FAILED"),
        ("invalid", StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
    ],
)
async def test_an_engines_failure_is_told_and_the_next_render_works(
    renderer: Renderer, prompt: str, code: StatusCode, reason: str
) -> None:
    error = await renderer.failure(ask(prompt))
    assert (error.code, error.reason) == (code, reason)
    assert renderer.metric("ourvidz_renders_total", outcome=reason.lower()) == 1
    await renderer.ready()
    await renderer.finish(ask(render_id="job/2"))


async def test_an_engine_killed_in_the_middle_of_a_step_costs_only_its_render(renderer: Renderer) -> None:
    call = renderer.stub.Render(ask("hold:0:2"))
    os.kill(await renderer.gate.held(), signal.SIGKILL)
    error = await failure_of(call)
    assert (error.code, error.reason) == (StatusCode.ABORTED, "ENGINE_DIED")
    await renderer.ready()
    await renderer.finish(ask(render_id="job/2"))
    assert (await renderer.stub.GetRenderer(render_pb2.GetRendererRequest())).engine_generation == 2


async def test_how_a_render_failed_is_told_again_to_who_asks_again(renderer: Renderer) -> None:
    first = await renderer.failure(ask("oom"))
    await renderer.ready()
    assert await renderer.failure(ask("oom")) == await renderer.failure(ask("oom", attach_only=True)) == first
    assert renderer.metric("ourvidz_renders_total", outcome="out_of_memory") == 1


@pytest.mark.parametrize(
    "policy", [RenderPolicy(remember_s=0), RenderPolicy(remembered_renders=0)], ids=["too old", "too many"]
)
async def test_how_a_render_failed_is_forgotten_in_the_end(tmp_path: Path, policy: RenderPolicy) -> None:
    async with serving(tmp_path, policy=policy) as renderer:
        await renderer.ready()
        await renderer.failure(ask("invalid"))
        assert (await renderer.failure(ask("invalid", attach_only=True))).reason == "RENDER_NOT_FOUND"


async def test_previews_go_only_to_who_asked_and_have_no_number(renderer: Renderer) -> None:
    with_previews = renderer.stub.Render(ask("hold:0:2", steps=2, previews=True))
    await renderer.gate.held()
    without = asyncio.create_task(renderer.events(ask("hold:0:2", steps=2)))
    await renderer.until(lambda: renderer.metric("grpc_server_started_total", **RENDER_METHOD) == 2)
    renderer.gate.release()
    events = [event async for event in with_previews]
    previews = [event for event in events if event.HasField("preview")]
    assert previews
    for preview in previews:
        assert preview.index == 0
        assert Image.open(io.BytesIO(preview.preview.jpeg)).size == (128, 256)
    assert not any(event.HasField("preview") for event in await without)
    numbers = [event.index for event in events if event.index]
    assert numbers == list(range(1, len(numbers) + 1))


RENDER_METHOD = {"grpc_service": "ourvidz.api.render.v1.RenderService", "grpc_method": "Render"}


async def test_a_watcher_that_does_not_read_holds_nobody_up_and_misses_nothing(renderer: Renderer) -> None:
    request = ask("chatty hold:0:1", images=2, steps=50)
    slow = renderer.stub.Render(request)
    await renderer.gate.held()
    fast = asyncio.create_task(renderer.events(request))
    renderer.gate.release()
    assert (await fast)[-1].HasField("finished")
    assert [event async for event in slow] == await fast


async def test_a_renderer_describes_itself(renderer: Renderer) -> None:
    described = await renderer.stub.GetRenderer(render_pb2.GetRendererRequest())
    assert (described.kind, described.model, described.model_error) == ("sdxl", MODEL, "")
    assert described.model_state == render_pb2.GetRendererResponse.MODEL_STATE_READY
    assert (described.slot_count, described.busy_slot_count, described.draining) == (1, 0, False)
    assert [(size.width_px, size.height_px) for size in described.limits.sizes] == [(64, 48), (128, 48), (128, 96)]
    assert (described.limits.max_image_count, described.limits.max_frame_count) == (6, 0)
    assert described.limits.max_step_count == 50
    assert described.engine_generation == 1
    running = asyncio.create_task(renderer.finish(ask("hold:0:1")))
    await renderer.gate.held()
    busy = await renderer.stub.GetRenderer(render_pb2.GetRendererRequest())
    assert (busy.busy_slot_count, busy.instance_id) == (1, described.instance_id)
    assert renderer.metric("ourvidz_render_busy_slots") == 1
    renderer.gate.release()
    await running
    assert renderer.metric("ourvidz_render_busy_slots") == 0


async def test_a_renderer_whose_model_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    async with serving(tmp_path, config={"broken": True}) as renderer:
        await renderer.reach(EngineState.FAILED)
        described = await renderer.stub.GetRenderer(render_pb2.GetRendererRequest())
        assert described.model_state == render_pb2.GetRendererResponse.MODEL_STATE_FAILED
        assert described.model_error == "there are no weights"
        assert renderer.metric("ourvidz_render_model_state", state="failed") == 1
        assert renderer.metric("ourvidz_render_model_state", state="ready") == 0
        assert "there are no weights" in (await renderer.failure(ask())).message


async def test_a_finished_render_is_measured(renderer: Renderer) -> None:
    await renderer.finish(ask())
    for stage in ("denoise", "encode", "upload"):
        assert renderer.metric("ourvidz_render_stage_seconds_count", stage=stage) == 1
    assert renderer.metric("ourvidz_render_peak_memory_bytes") == 12_345


async def test_a_prompt_below_the_floor_is_refused_before_anything_is_rendered(renderer: Renderer) -> None:
    error = await renderer.failure(ask("naked child"))
    assert (error.code, error.reason) == (StatusCode.INVALID_ARGUMENT, "PROMPT_REFUSED")
    assert error.message == "The prompt is not allowed here."
    assert [violation.field for violation in error.fields] == ["images.sampling.prompt"]
    again = await renderer.finish(ask("a fox"))
    assert len(again.outputs) == 1
