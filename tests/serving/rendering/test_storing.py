"""What happens to finished pictures when object storage is slow, away, or in the way."""

from __future__ import annotations

import asyncio
from pathlib import Path

from grpc import StatusCode
from prometheus_client import CollectorRegistry

from ourvidz.api.render.v1 import render_pb2
from ourvidz_serving.errors import ServiceError
from ourvidz_serving.rendering.metrics import RenderMetrics
from ourvidz_serving.rendering.outputs import OutputWriter
from ourvidz_serving.rendering.policy import RenderPolicy
from ourvidz_serving.rendering.uploads import Uploads
from support.fake_engine import paint
from support.renderer import BUCKET, Renderer, SwitchedStore, ask, failure_of, serving


async def go_down(renderer: Renderer) -> None:
    """Take storage away once the engine is held, and let the engine go on."""
    await renderer.gate.held()
    renderer.store.down = True
    renderer.gate.release()
    await renderer.store.failed.wait()


async def test_pictures_wait_for_storage_and_are_not_rendered_again(renderer: Renderer) -> None:
    running = asyncio.create_task(renderer.events(ask("hold:0:1", images=2)))
    await go_down(renderer)
    await renderer.until(lambda: (renderer.metric("ourvidz_render_upload_retries_total") or 0) >= 4)
    assert not running.done()
    renderer.store.down = False
    events = await running
    assert len(events[-1].finished.outputs) == 2
    assert len([event for event in events if event.HasField("step")]) == 4
    assert len([event for event in events if event.HasField("uploading")]) == 2


async def test_the_engine_is_free_for_the_next_render_while_pictures_are_stored(renderer: Renderer) -> None:
    first = asyncio.create_task(renderer.finish(ask("hold:0:1")))
    await renderer.gate.held()
    second_request = ask("hold:0:1", render_id="job/2")
    renderer.store.failed.clear()
    renderer.store.down = True
    renderer.gate.release()
    await renderer.until(lambda: renderer.renders.busy_slot_count == 0)
    assert not first.done()
    renderer.store.down = False
    second = asyncio.create_task(renderer.finish(second_request))
    await renderer.gate.held()
    assert len((await first).outputs) == 1
    renderer.gate.release()
    assert len((await second).outputs) == 1


async def test_the_engine_waits_when_too_many_pictures_wait_for_storage(tmp_path: Path) -> None:
    async with serving(tmp_path, policy=RenderPolicy(first_retry_s=0.01, unfinished_outputs=1)) as renderer:
        await renderer.ready()
        running = asyncio.create_task(renderer.finish(ask("hold:0:1", images=2)))
        await go_down(renderer)
        writer = renderer.renders._running["job/1"]._writer
        await renderer.until(lambda: len(writer._deadlines) == 2)
        assert renderer.renders.busy_slot_count == 1
        renderer.store.down = False
        assert len((await running).outputs) == 2


async def test_a_render_fails_when_storage_stays_away_for_too_long(tmp_path: Path) -> None:
    async with serving(tmp_path, policy=RenderPolicy(first_retry_s=0.01, upload_patience_s=0.1)) as renderer:
        await renderer.ready()
        call = renderer.stub.Render(ask("hold:0:1"))
        await go_down(renderer)
        error = await failure_of(call)
        assert (error.code, error.reason) == (StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE")
        assert error.message == "object storage was out of reach for 0.1 s; the outputs could not be stored"


async def test_a_render_stops_in_the_engine_when_its_first_picture_cannot_be_stored(tmp_path: Path) -> None:
    async with serving(tmp_path, policy=RenderPolicy(first_retry_s=0.01, upload_patience_s=0.1)) as renderer:
        await renderer.ready()
        call = renderer.stub.Render(ask("hold:0:1 hold:1:1", images=6))
        await go_down(renderer)
        await renderer.gate.held()
        await renderer.until(lambda: renderer.renders._running["job/1"]._stop_reason is not None)
        renderer.gate.release()
        assert (await failure_of(call)).reason == "STORAGE_UNAVAILABLE"


async def test_a_render_that_is_cancelled_while_storage_is_away_ends_soon(tmp_path: Path) -> None:
    async with serving(tmp_path, policy=RenderPolicy(first_retry_s=0.01, settle_s=0.1)) as renderer:
        await renderer.ready()
        call = renderer.stub.Render(ask("hold:0:1"))
        await go_down(renderer)
        await renderer.stub.CancelRender(render_pb2.CancelRenderRequest(render_id="job/1"))
        assert (await failure_of(call)).reason == "CANCELLED"


async def test_nothing_starts_while_storage_cannot_tell_whether_it_was_rendered_already(renderer: Renderer) -> None:
    renderer.store.down = True
    error = await renderer.failure(ask())
    assert (error.code, error.reason) == (StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE")
    assert error.retry_after_s
    renderer.store.down = False
    await renderer.finish(ask())


async def test_a_manifest_whose_answer_was_lost_is_recognised_as_our_own(renderer: Renderer) -> None:
    renderer.store.loses_answers_for = "manifest.json"
    assert len((await renderer.finish(ask())).outputs) == 1
    assert renderer.metric("ourvidz_render_upload_retries_total") == 1


async def test_a_manifest_that_another_server_wrote_first_stands(tmp_path: Path) -> None:
    async with serving(tmp_path) as other:
        await other.ready()
        running = other.stub.Render(ask("hold:0:1"))
        await other.gate.held()
        theirs = b'{"renderId": "somebody/1"}'
        await other.store.put(BUCKET, "user/job/1/manifest.json", theirs, content_type="application/json")
        other.gate.release()
        assert (await failure_of(running)).reason == "RENDER_EXISTS"
        assert await other.store.get(BUCKET, "user/job/1/manifest.json") == theirs


async def test_an_output_over_its_limit_fails_the_render_and_names_both_sizes(renderer: Renderer) -> None:
    size = (await renderer.finish(ask())).outputs[0].size_bytes
    request = ask(render_id="job/2", images=3)
    request.output.max_bytes = size - 10
    error = await renderer.failure(request)
    assert (error.code, error.reason) == (StatusCode.FAILED_PRECONDITION, "OUTPUT_TOO_LARGE")
    assert f"{size - 10:,} bytes" in error.message
    assert error.message.startswith("output ")
    request = ask(render_id="job/3")
    request.output.max_bytes = size
    assert (await renderer.finish(request)).outputs[0].size_bytes == size


async def test_uploads_that_run_out_of_time_together_all_fail_in_good_order(tmp_path: Path) -> None:
    store = SwitchedStore(tmp_path)
    store.down = True
    uploads = Uploads(store, RenderPolicy(first_retry_s=0.01), RenderMetrics(CollectorRegistry()))
    failures: list[ServiceError] = []

    def fail(error: ServiceError) -> None:
        failures.append(error)
        writer.hurry(0)

    writer = OutputWriter(
        uploads, ask(images=2), seed=7, model="painter", clip_encoder=None, on_uploading=lambda _: None, on_failure=fail
    )
    for index in range(2):
        await writer.take(index, paint(7 + index, 64, 48))
    while len(writer._deadlines) < 2:  # there is no event to wait for
        await asyncio.sleep(0)
    writer.hurry(0)
    assert await writer.stored() == []
    assert [failure.reason for failure in failures] == ["STORAGE_UNAVAILABLE"] * 2
    await store.close()
