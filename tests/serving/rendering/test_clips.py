"""Clips over gRPC: what is stored, and what happens when frames, encoder, caller or storage don't play along."""

from __future__ import annotations

import asyncio
import hashlib
import io
import threading
from collections.abc import AsyncIterator
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc
from grpc import StatusCode
from numpy.typing import NDArray
from PIL import Image

from ourvidz.api.render.v1 import render_pb2
from ourvidz_serving.rendering.clips import ClipEncoding
from ourvidz_serving.rendering.policy import RenderPolicy
from ourvidz_serving.storage import ObjectNotFound
from ourvidz_wan.mp4 import Mp4Encoder
from support.fake_engine import MODEL, paint_frame
from support.renderer import BUCKET, Renderer, ask, ask_clip, failure_of, first_of, serving

SMALL, WHOLE = (64, 96), (480, 832)
CONFIG = {"sizes": [SMALL, WHOLE, (64, 48)], "max_frame_count": 83}


@pytest.fixture
async def renderer(tmp_path: Path) -> AsyncIterator[Renderer]:
    """A renderer that makes clips, with its model loaded."""
    async with serving(tmp_path, config=CONFIG, clip_encoder=Mp4Encoder) as renderer:
        await renderer.ready()
        yield renderer


class WatchedEncoder(Mp4Encoder):
    """An encoder that a test can hold back, or break, and that says when it has let go of its memory."""

    made: ClassVar[list[WatchedEncoder]]
    goes_on: ClassVar[threading.Event]
    breaks_at: ClassVar[int] = -1

    def __init__(self, *arguments: Any, **names: Any) -> None:
        super().__init__(*arguments, **names)
        self.entered = threading.Event()
        self.closed = threading.Event()
        self.made.append(self)

    def add(self, pixels: NDArray[np.uint8]) -> None:
        self.entered.set()
        self.goes_on.wait()
        if self._frame_count == self.breaks_at:
            raise ValueError("a fault of the encoder's")
        super().add(pixels)

    def close(self) -> None:
        super().close()
        self.closed.set()


@pytest.fixture
def watched() -> type[WatchedEncoder]:
    """A class of encoders of this test's own; they go on unless it clears `goes_on`."""

    class Watched(WatchedEncoder):
        made: ClassVar[list[WatchedEncoder]] = []
        goes_on = threading.Event()

    Watched.goes_on.set()
    return Watched


def luma(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    red, green, blue = np.moveaxis(pixels.astype(float), -1, 0)
    return 16 + 219 / 255 * (0.2126 * red + 0.7152 * green + 0.0722 * blue)


async def cancel(renderer: Renderer) -> None:
    await renderer.stub.CancelRender(render_pb2.CancelRenderRequest(render_id="job/1"))


async def is_stored(renderer: Renderer, key: str) -> bool:
    try:
        await renderer.store.stat(BUCKET, key)
    except ObjectNotFound:
        return False
    return True


async def test_a_clip_of_83_frames_is_stored_in_the_form_that_browsers_play(renderer: Renderer) -> None:
    finished = await renderer.finish(ask_clip(frames=83, size=WHOLE))
    data = await renderer.store.get(BUCKET, finished.outputs[0].key)
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(io.BytesIO(data)) as container:
        (stream,) = container.streams
        context = stream.codec_context
        assert (context.name, stream.width, stream.height, stream.pix_fmt) == ("h264", 480, 832, "yuv420p")
        assert (stream.frames, stream.average_rate) == (83, Fraction(83, 5))
        assert (stream.duration * stream.time_base, container.duration) == (5, 5_000_000)
        # 1 is BT.709 among FFmpeg's colour spaces.
        assert (context.colorspace, context.color_range) == (1, ColorRange.MPEG)
        assert (context.color_primaries, context.color_trc) == (ColorPrimaries.BT709, ColorTrc.BT709)
        assert container.metadata["title"] == "a fox"
        assert container.metadata["comment"] == (
            f"a fox\nSteps: 2, CFG scale: 6.5, Seed: 7, Size: 480x832, Frames: 83, Model: {MODEL}"
        )
        shown = [frame.to_ndarray()[:832, :480] for frame in container.decode(video=0)]
    assert len(shown) == 83
    for index in (0, 1, 41, 82):
        assert np.abs(shown[index] - luma(paint_frame(7, index, 480, 832))).mean() < 2


async def test_finished_tells_where_the_clip_lies_and_what_it_is(renderer: Renderer) -> None:
    finished = await renderer.finish(ask_clip())
    (output,) = finished.outputs
    data = await renderer.store.get(output.bucket, output.key)
    assert (output.bucket, output.key, output.mime_type) == (BUCKET, "user/job/1/0.mp4", "video/mp4")
    assert (output.size_bytes, output.sha256) == (len(data), hashlib.sha256(data).digest())
    assert (output.width_px, output.height_px, output.frame_count) == (64, 96, 8)
    assert (output.duration.ToMilliseconds(), output.seed) == (5000, 7)
    assert (await renderer.store.stat(BUCKET, output.key)).content_type == "video/mp4"
    assert [timing.stage for timing in finished.timings] == ["denoise", "encode", "upload"]
    assert all(timing.duration.ToNanoseconds() > 0 for timing in finished.timings)
    assert finished.reference_engine == ""


async def test_a_clip_streams_the_events_of_one_output(renderer: Renderer) -> None:
    events = await renderer.events(ask_clip())
    assert [event.WhichOneof("event") for event in events] == ["accepted", "step", "step", "uploading", "finished"]
    assert [event.step for event in events if event.HasField("step")] == [
        render_pb2.Step(step=step, step_count=2, image_index=0, image_count=1) for step in (1, 2)
    ]
    assert events[3].uploading == render_pb2.Uploading(output_index=0, output_count=1)


async def test_a_finished_clip_is_replayed_from_its_manifest(renderer: Renderer) -> None:
    events = await renderer.events(ask_clip())
    assert await renderer.events(ask_clip(attach_only=True)) == events[-1:]
    assert (await renderer.failure(ask_clip(frames=9))).reason == "RENDER_EXISTS"


async def test_without_a_seed_one_is_drawn_and_reported(renderer: Renderer) -> None:
    first = await renderer.events(ask_clip(seed=None))
    second = await renderer.events(ask_clip(seed=None, render_id="job/2"))
    assert first[0].accepted.seed == first[-1].finished.outputs[0].seed
    assert first[0].accepted.seed != second[0].accepted.seed


async def test_the_same_seed_gives_the_same_bytes(renderer: Renderer) -> None:
    first = await renderer.finish(ask_clip(frames=30))
    second = await renderer.finish(ask_clip(frames=30, render_id="job/2"))
    assert first.outputs[0].sha256 == second.outputs[0].sha256


async def test_clips_and_frames_are_counted_and_measured(renderer: Renderer) -> None:
    await renderer.finish(ask_clip())
    await renderer.finish(ask(render_id="job/2", images=3))
    assert renderer.metric("ourvidz_render_outputs_total", kind="clip") == 1
    assert renderer.metric("ourvidz_render_outputs_total", kind="image") == 3
    assert renderer.metric("ourvidz_render_frames_total") == 8
    for stage in ("denoise", "encode", "upload"):
        assert renderer.metric("ourvidz_render_stage_seconds_count", stage=stage) == 2


async def test_previews_of_a_clip_are_shown(renderer: Renderer) -> None:
    call = renderer.stub.Render(ask_clip("hold:0:2", previews=True))
    await renderer.gate.held()
    renderer.gate.release()
    previews = [event.preview async for event in call if event.HasField("preview")]
    assert previews
    assert all(Image.open(io.BytesIO(preview.jpeg)).size == (128, 256) for preview in previews)
    assert {preview.image_index for preview in previews} == {0}


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("few", "the engine made 7 frames instead of 8"),
        ("many", "the engine made 9 frames instead of 8"),
        ("small", "the engine made a picture of shape (48, 32, 3), not 64×96"),
    ],
)
async def test_a_clip_with_other_frames_than_asked_for_is_the_engines_failure(
    renderer: Renderer, prompt: str, message: str
) -> None:
    error = await renderer.failure(ask_clip(prompt))
    assert (error.code, error.reason, error.message) == (StatusCode.ABORTED, "ENGINE_FAILED", message)
    assert not await is_stored(renderer, "user/job/1/manifest.json")
    await renderer.finish(ask_clip(render_id="job/2"))


async def test_a_clip_over_its_limit_fails_the_render(renderer: Renderer) -> None:
    request = ask_clip()
    request.output.max_bytes = 1_000
    error = await renderer.failure(request)
    assert (error.code, error.reason) == (StatusCode.FAILED_PRECONDITION, "OUTPUT_TOO_LARGE")
    assert error.message.endswith("the limit is 1,000 bytes")


async def test_a_busy_renderer_says_when_to_ask_again(renderer: Renderer) -> None:
    running = asyncio.create_task(renderer.finish(ask_clip("hold-frame:4")))
    await renderer.gate.held()
    error = await renderer.failure(ask_clip(render_id="job/2"))
    assert error.reason == "BUSY"
    assert error.retry_after_s
    renderer.gate.release()
    await running


async def test_a_renderer_without_an_encoder_refuses_clips(tmp_path: Path) -> None:
    async with serving(tmp_path, config=CONFIG) as renderer:
        await renderer.ready()
        error = await renderer.failure(ask_clip())
        assert error.message == "clip: this renderer makes still images only; set images"


async def test_an_engine_that_makes_no_clips_refuses_them(tmp_path: Path) -> None:
    config = {**CONFIG, "max_frame_count": 0}
    async with serving(tmp_path, config=config, clip_encoder=Mp4Encoder) as renderer:
        await renderer.ready()
        error = await renderer.failure(ask_clip())
        assert error.message == "clip.frame_count: this renderer makes none"


async def test_a_cancel_between_frames_leaves_no_clip(tmp_path: Path, watched: type[WatchedEncoder]) -> None:
    async with serving(tmp_path, config=CONFIG, clip_encoder=watched) as renderer:
        await renderer.ready()
        call = renderer.stub.Render(ask_clip("hold-frame:5"))
        await renderer.gate.held()
        await renderer.until(lambda: bool(watched.made))
        await cancel(renderer)
        renderer.gate.release()
        assert (await failure_of(call)).code is StatusCode.CANCELLED
        assert not await is_stored(renderer, "user/job/1/0.mp4")
        await renderer.until(watched.made[0].closed.is_set)
        assert renderer.renders._uploads.places._value == RenderPolicy().unfinished_outputs
        await renderer.finish(ask_clip(render_id="job/2"))


async def test_a_cancel_does_not_wait_for_more_than_the_frame_that_is_being_encoded(
    tmp_path: Path, watched: type[WatchedEncoder]
) -> None:
    async with serving(tmp_path, config=CONFIG, clip_encoder=watched) as renderer:
        await renderer.ready()
        watched.goes_on.clear()
        call = renderer.stub.Render(ask_clip(frames=83))
        await renderer.until(lambda: bool(watched.made) and watched.made[0].entered.is_set())
        await cancel(renderer)
        assert (await failure_of(call)).code is StatusCode.CANCELLED
        await renderer.until(lambda: renderer.renders.busy_slot_count == 0)
        assert not watched.made[0].closed.is_set()
        watched.goes_on.set()
        await renderer.until(watched.made[0].closed.is_set)
        assert not await is_stored(renderer, "user/job/1/0.mp4")


async def test_a_slow_encoder_holds_the_engine_back(tmp_path: Path, watched: type[WatchedEncoder]) -> None:
    count_file = tmp_path / "count"
    config = {**CONFIG, "count_file": str(count_file)}
    async with serving(tmp_path, config=config, clip_encoder=watched) as renderer:
        await renderer.ready()
        watched.goes_on.clear()
        running = asyncio.create_task(renderer.finish(ask_clip(frames=83, size=WHOLE)))

        def is_full() -> bool:
            """Nobody takes the engine's messages any more, and there is no room for further ones."""
            run = renderer.engine._run
            return (
                run is not None and len(run._waiting) == 4 and renderer.renders._in_engine._writer._clip._room.locked()
            )

        await renderer.until(is_full)
        made = count_file.stat().st_size
        # Four at the encoder, one on its way there, four that wait to be taken, and what the socket holds.
        assert 9 <= made <= 20
        assert not running.done()
        watched.goes_on.set()
        assert (await running).outputs[0].frame_count == 83


async def test_an_encoder_that_fails_costs_its_render_alone(tmp_path: Path, watched: type[WatchedEncoder]) -> None:
    watched.breaks_at = 2
    async with serving(tmp_path, config=CONFIG, clip_encoder=watched) as renderer:
        await renderer.ready()
        error = await renderer.failure(ask_clip(frames=40))
        assert (error.code, error.message) == (StatusCode.INTERNAL, "the renderer failed")
        await renderer.until(watched.made[0].closed.is_set)
        watched.breaks_at = -1
        await renderer.finish(ask_clip(render_id="job/2"))


async def test_an_engine_that_dies_between_frames_leaves_no_encoder_behind(
    tmp_path: Path, watched: type[WatchedEncoder]
) -> None:
    async with serving(tmp_path, config=CONFIG, clip_encoder=watched) as renderer:
        await renderer.ready()
        call = renderer.stub.Render(ask_clip("hold-frame:5"))
        await renderer.gate.held()
        await renderer.until(lambda: bool(watched.made))
        await renderer.engine.replace("a test asks for it")
        assert (await failure_of(call)).reason == "ENGINE_DIED"
        await renderer.until(watched.made[0].closed.is_set)
        assert not await is_stored(renderer, "user/job/1/0.mp4")


async def test_a_clip_waits_for_storage_and_the_next_one_for_its_place(tmp_path: Path) -> None:
    policy = RenderPolicy(first_retry_s=0.01, unfinished_outputs=1)
    async with serving(tmp_path, config=CONFIG, policy=policy, clip_encoder=Mp4Encoder) as renderer:
        await renderer.ready()
        first = asyncio.create_task(renderer.finish(ask_clip("hold-frame:7")))
        await renderer.gate.held()
        renderer.store.down = True
        renderer.gate.release()
        await renderer.store.failed.wait()
        await renderer.until(lambda: renderer.renders.busy_slot_count == 0)
        assert not first.done()
        assert renderer.renders._uploads.places.locked()
        renderer.store.down = False
        assert len((await first).outputs) == 1
        assert not renderer.renders._uploads.places.locked()


async def test_a_clip_that_is_complete_when_its_render_is_cancelled_is_still_stored(renderer: Renderer) -> None:
    call = renderer.stub.Render(ask_clip("hold-after"))
    await first_of(call)
    await renderer.gate.held()
    await renderer.until(lambda: renderer.renders._running["job/1"]._writer._taken == 8)
    await cancel(renderer)
    renderer.gate.release()
    assert (await failure_of(call)).code is StatusCode.CANCELLED
    assert await is_stored(renderer, "user/job/1/0.mp4")
    assert not await is_stored(renderer, "user/job/1/manifest.json")


async def test_a_clip_that_is_given_up_before_its_first_frame_is_encoded_lets_go_of_everything(
    watched: type[WatchedEncoder],
) -> None:
    encoding = ClipEncoding(watched(*SMALL, Fraction(8, 5), title="", comment=""), 8)
    encoding.close()
    for index in range(8):
        await encoding.add(paint_frame(7, index, *SMALL))
    await asyncio.to_thread(watched.made[0].closed.wait)
    assert encoding._frames.empty()
