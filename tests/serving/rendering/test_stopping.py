"""What ends a render early: a cancel, a lost watcher, a server that leaves."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2
from grpc import StatusCode

from ourvidz.api.render.v1 import render_pb2
from ourvidz.rpc_status import DETAILS_KEY
from ourvidz_serving.storage import ObjectNotFound
from support.fake_engine import MODEL
from support.renderer import BUCKET, Renderer, ask, failure_of, first_of

CANCELLING = render_pb2.CancelRenderResponse.STATE_CANCELLING
ENDED = render_pb2.CancelRenderResponse.STATE_ENDED
UNKNOWN = render_pb2.CancelRenderResponse.STATE_UNKNOWN

RENDER_METHOD = {"grpc_service": "ourvidz.api.render.v1.RenderService", "grpc_method": "Render"}


async def cancel(renderer: Renderer, render_id: str = "job/1") -> int:
    return (await renderer.stub.CancelRender(render_pb2.CancelRenderRequest(render_id=render_id))).state


async def lose(renderer: Renderer, call: grpc.aio.UnaryStreamCall[Any, Any]) -> None:
    """Cancel a call as its client, and wait until the server knows."""
    before = renderer.metric("grpc_server_handled_total", grpc_code="CANCELLED", **RENDER_METHOD) or 0
    call.cancel()
    await renderer.until(
        lambda: renderer.metric("grpc_server_handled_total", grpc_code="CANCELLED", **RENDER_METHOD) == before + 1
    )


def kept(prompt: str, seconds: float = 3600, **more: Any) -> render_pb2.RenderRequest:
    request = ask(prompt, on_disconnect=render_pb2.ON_DISCONNECT_KEEP, **more)
    request.keep.FromNanoseconds(round(seconds * 1e9))
    return request


async def finished_of(call: grpc.aio.UnaryStreamCall[Any, Any]) -> render_pb2.Finished:
    """The outputs that a cancelled render's status lists."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        _ = [event async for event in call]
    trailing: Any = caught.value.trailing_metadata()
    status = status_pb2.Status.FromString(next(value for key, value in trailing if key == DETAILS_KEY))
    finished = render_pb2.Finished()
    assert [detail.Unpack(finished) for detail in status.details].count(True) == 1
    return finished


async def test_a_cancelled_render_stops_within_one_step(renderer: Renderer) -> None:
    call = renderer.stub.Render(ask("hold:0:2", steps=10))
    await renderer.gate.held()
    events = renderer.renders._running["job/1"].events
    assert await cancel(renderer) == CANCELLING
    assert await cancel(renderer) == CANCELLING
    renderer.gate.release()
    assert (await failure_of(call)).code is StatusCode.CANCELLED
    # Of the step that it was held in, the end may be seen; of those after it, nothing.
    assert sum(event.HasField("step") for event in events._events) <= 2
    await renderer.finish(ask(render_id="job/2"))


async def test_a_cancelled_render_says_which_pictures_are_stored_and_has_no_manifest(renderer: Renderer) -> None:
    call = renderer.stub.Render(ask("hold:2:1", images=3))
    await renderer.gate.held()
    await renderer.until(lambda: len(renderer.renders._running["job/1"]._writer._tasks) == 2)
    await cancel(renderer)
    renderer.gate.release()
    finished = await finished_of(call)
    assert ([output.seed for output in finished.outputs], finished.model) == ([7, 8], MODEL)
    for output in finished.outputs:
        assert hashlib.sha256(await renderer.store.get(output.bucket, output.key)).digest() == output.sha256
    with pytest.raises(ObjectNotFound):
        await renderer.store.get(BUCKET, "user/job/1/manifest.json")


async def test_who_asks_again_after_a_cancel_learns_the_same(renderer: Renderer) -> None:
    call = renderer.stub.Render(ask("endless"))
    await first_of(call)
    await cancel(renderer)
    first = await failure_of(call)
    assert (first.code, first.reason) == (StatusCode.CANCELLED, "CANCELLED")
    again = renderer.stub.Render(ask("endless"))
    assert list((await finished_of(again)).outputs) == []


async def test_cancelling_tells_what_it_found(renderer: Renderer) -> None:
    assert await cancel(renderer) == UNKNOWN
    await renderer.finish(ask())
    assert await cancel(renderer) == ENDED
    await renderer.failure(ask("invalid", render_id="job/2"))
    assert await cancel(renderer, "job/2") == ENDED


async def test_cancelling_one_attempt_leaves_the_next_one_alone(renderer: Renderer) -> None:
    await renderer.finish(ask(render_id="job/1"))
    running = asyncio.create_task(renderer.finish(ask("hold:0:1", render_id="job/2")))
    await renderer.gate.held()
    assert await cancel(renderer, "job/1") == ENDED
    renderer.gate.release()
    assert len((await running).outputs) == 1


async def test_a_render_id_that_no_render_can_have_is_refused(renderer: Renderer) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cancel(renderer, "a//b")
    assert caught.value.code() is StatusCode.INVALID_ARGUMENT


async def test_a_render_stops_when_its_last_watcher_is_lost(renderer: Renderer) -> None:
    first, second = renderer.stub.Render(ask("endless")), renderer.stub.Render(ask("endless"))
    await first_of(first)
    await first_of(second)
    await lose(renderer, first)
    assert await cancel(renderer, "other/1") == UNKNOWN
    assert renderer.renders.busy_slot_count == 1
    await lose(renderer, second)
    await renderer.until(lambda: renderer.renders.busy_slot_count == 0)
    error = await renderer.failure(ask("endless"))
    assert (error.reason, error.message) == ("CANCELLED", "the render was cancelled: its last watcher was lost")


async def test_a_kept_render_goes_on_without_watchers_and_can_be_attached_to(renderer: Renderer) -> None:
    first = renderer.stub.Render(kept("hold:0:1"))
    assert (await first_of(first)).index == 1
    await renderer.gate.held()
    await lose(renderer, first)
    second = renderer.stub.Render(kept("hold:0:1", resume_from=1))
    renderer.gate.release()
    events = [event async for event in second]
    assert events[0].index == 2
    assert events[-1].HasField("finished")


async def test_a_kept_render_finishes_with_nobody_watching(renderer: Renderer) -> None:
    first = renderer.stub.Render(kept("hold:0:1"))
    await renderer.gate.held()
    await lose(renderer, first)
    renderer.gate.release()
    await renderer.until(lambda: renderer.metric("ourvidz_renders_total", outcome="finished") == 1)
    assert len((await renderer.finish(kept("hold:0:1", attach_only=True))).outputs) == 1


async def test_a_kept_render_is_cancelled_when_nobody_comes_in_time(renderer: Renderer) -> None:
    call = renderer.stub.Render(kept("endless", seconds=1))
    await first_of(call)
    await lose(renderer, call)
    await renderer.until(lambda: renderer.renders.busy_slot_count == 0)
    error = await renderer.failure(kept("endless"))
    assert (error.reason, error.message) == ("CANCELLED", "the render was cancelled: nobody watched it for 1 s")


async def test_attaching_stops_the_clock_of_a_kept_render(renderer: Renderer) -> None:
    call = renderer.stub.Render(kept("endless"))
    await first_of(call)
    await lose(renderer, call)
    render = renderer.renders._running["job/1"]
    clock = render._keep_clock
    assert clock is not None
    second = renderer.stub.Render(kept("endless"))
    await first_of(second)
    assert clock.cancelled()
    assert render._keep_clock is None


async def test_who_looks_in_for_a_moment_does_not_end_what_another_wants_kept(renderer: Renderer) -> None:
    call = renderer.stub.Render(kept("endless"))
    await first_of(call)
    await lose(renderer, call)
    visitor = renderer.stub.Render(ask("endless", attach_only=True))
    await first_of(visitor)
    await lose(renderer, visitor)
    render = renderer.renders._running["job/1"]
    assert render._keep_clock is not None
    assert render._stop_reason is None


async def test_a_watcher_that_leaves_after_the_end_changes_nothing(renderer: Renderer) -> None:
    stalled = renderer.stub.Render(ask("chatty hold:0:1", images=2, steps=50))
    await renderer.gate.held()
    reading = asyncio.create_task(renderer.finish(ask("chatty hold:0:1", images=2, steps=50)))
    renderer.gate.release()
    await reading
    await lose(renderer, stalled)
    assert len((await renderer.finish(ask("chatty hold:0:1", images=2, steps=50))).outputs) == 2


async def test_a_draining_server_finishes_what_runs_and_takes_nothing_new(renderer: Renderer) -> None:
    running = asyncio.create_task(renderer.finish(ask("hold:0:1")))
    await renderer.gate.held()
    draining = asyncio.create_task(renderer.renders.drain(3600))
    await renderer.until(lambda: renderer.renders.draining)
    refused = await renderer.failure(ask(render_id="job/2"))
    assert (refused.code, refused.reason) == (StatusCode.UNAVAILABLE, "DRAINING")
    assert (await renderer.stub.GetRenderer(render_pb2.GetRendererRequest())).draining
    attached = renderer.stub.Render(ask("hold:0:1", attach_only=True))
    assert (await first_of(attached)).index == 1
    assert not draining.done()
    renderer.gate.release()
    await draining
    assert [event async for event in attached][-1].finished == await running


async def test_a_draining_server_stops_what_takes_too_long_and_says_so(renderer: Renderer) -> None:
    call = renderer.stub.Render(ask("endless"))
    await first_of(call)
    await renderer.renders.drain(0)
    error = await failure_of(call)
    assert (error.code, error.reason) == (StatusCode.UNAVAILABLE, "DRAINING")


async def test_draining_with_nothing_running_returns_at_once(renderer: Renderer) -> None:
    await renderer.renders.drain(3600)
    assert (await renderer.failure(ask())).reason == "DRAINING"
