"""Reference pictures on their way to the engine: from the request, from storage, and not at all."""

from __future__ import annotations

import asyncio
import hashlib
import io
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import av
import numpy as np
import pytest
from grpc import StatusCode
from numpy.typing import NDArray
from PIL import Image

from ourvidz.api.render.v1 import render_pb2
from ourvidz_serving.pictures import letterbox
from ourvidz_serving.rendering.policy import RenderPolicy
from ourvidz_wan.mp4 import Mp4Encoder
from support.renderer import BUCKET, REFERENCES, Renderer, ask, ask_clip, failure_of, first_of, serving

CONFIG = {"sizes": [(64, 48), (64, 96)], "max_frame_count": 83}


@pytest.fixture
async def renderer(tmp_path: Path) -> AsyncIterator[Renderer]:
    """A renderer that makes clips, with its model loaded."""
    async with serving(tmp_path, config=CONFIG, clip_encoder=Mp4Encoder) as renderer:
        await renderer.ready()
        yield renderer


def picture(colour: tuple[int, int, int] = (200, 30, 60), size: tuple[int, int] = (40, 20)) -> Image.Image:
    """One colour, with a white square in the top left corner."""
    image = Image.new("RGB", size, colour)
    image.paste((255, 255, 255), (0, 0, 8, 8))
    return image


def to_file(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def inline(image: Image.Image | bytes) -> render_pb2.ImageSource:
    return render_pb2.ImageSource(inline=image if isinstance(image, bytes) else to_file(image))


async def store(
    renderer: Renderer, data: bytes, *, bucket: str = REFERENCES, key: str = "user/a picture"
) -> render_pb2.ImageSource:
    await renderer.store.put(bucket, key, data, content_type="image/png")
    return stored(data, bucket=bucket, key=key)


def stored(data: bytes, *, bucket: str = REFERENCES, key: str = "user/a picture") -> render_pb2.ImageSource:
    image = render_pb2.StoredImage(bucket=bucket, key=key, sha256=hashlib.sha256(data).digest())
    return render_pb2.ImageSource(stored=image)


def bomb() -> bytes:
    """A PNG of some bytes that says it has 60,000 × 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


async def picture_of(renderer: Renderer, finished: render_pb2.Finished) -> NDArray[np.uint8]:
    output = finished.outputs[0]
    return np.asarray(Image.open(io.BytesIO(await renderer.store.get(output.bucket, output.key))))


async def frames_of(renderer: Renderer, finished: render_pb2.Finished) -> list[NDArray[np.uint8]]:
    output = finished.outputs[0]
    with av.open(io.BytesIO(await renderer.store.get(output.bucket, output.key))) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


async def test_the_engine_gets_a_picture_from_the_request_fitted_to_its_size(renderer: Renderer) -> None:
    finished = await renderer.finish(ask("echo", reference=inline(picture())))
    expected = np.asarray(letterbox(picture(), 64, 48))
    np.testing.assert_array_equal(await picture_of(renderer, finished), expected)
    assert finished.reference_engine == "echo"
    assert (expected[0].max(), expected[24, 32].tolist()) == (0, [200, 30, 60])


@pytest.mark.parametrize("bucket", [REFERENCES, BUCKET])
async def test_the_engine_gets_a_picture_from_storage(renderer: Renderer, bucket: str) -> None:
    source = await store(renderer, to_file(picture()), bucket=bucket)
    finished = await renderer.finish(ask("echo", reference=source))
    np.testing.assert_array_equal(await picture_of(renderer, finished), np.asarray(letterbox(picture(), 64, 48)))


async def test_a_clip_gets_its_first_and_its_last_frame(renderer: Renderer) -> None:
    red, blue = picture((200, 30, 60), (64, 96)), picture((20, 60, 220), (64, 96))
    source = await store(renderer, to_file(blue))
    finished = await renderer.finish(ask_clip("echo", start_frame=inline(red), end_frame=source))
    frames = await frames_of(renderer, finished)
    assert finished.reference_engine == "echo"
    for frame, expected in ((frames[0], red), (frames[-1], blue)):
        # What H.264 and half as many colours as pixels leave of it.
        assert np.abs(frame.astype(int) - np.asarray(expected)).mean() < 5


async def test_the_engine_gets_the_pictures_and_not_their_files(renderer: Renderer) -> None:
    finished = await renderer.finish(ask_clip("echo", start_frame=inline(picture()), end_frame=inline(picture())))
    assert list(finished.warnings) == ["painted, not rendered"]


async def test_reading_references_is_seen_and_measured(renderer: Renderer) -> None:
    events = await renderer.events(ask(reference=inline(picture())))
    assert [event.WhichOneof("event") for event in events[:3]] == ["accepted", "loading", "step"]
    assert events[1].loading.part == "reference pictures"
    timings = events[-1].finished.timings
    assert [timing.stage for timing in timings] == ["load", "denoise", "encode", "upload"]
    assert timings[0].duration.ToNanoseconds() > 0


@pytest.mark.parametrize(
    ("file", "wrong"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "it is no whole PNG, JPEG or WebP file"),
        (to_file(picture(), "GIF"), "it is no whole PNG, JPEG or WebP file"),
        (to_file(picture())[:60], "it is no whole PNG, JPEG or WebP file"),
        (bomb(), "it has"),
    ],
    ids=["text", "another format", "cut short", "bomb"],
)
async def test_a_file_that_is_no_good_picture_is_the_callers_fault(renderer: Renderer, file: bytes, wrong: str) -> None:
    source = await store(renderer, file)
    for request, field in (
        (ask(reference=inline(file)), "images.reference.source"),
        (ask_clip(render_id="job/2", start_frame=inline(file)), "clip.start_frame"),
        (ask_clip(render_id="job/3", start_frame=inline(picture()), end_frame=source), "clip.end_frame"),
    ):
        error = await renderer.failure(request)
        assert (error.code, error.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        assert [each.field for each in error.fields] == [field]
        assert error.message.startswith(f"{field}: can't be used as a picture: {wrong}")
    assert renderer.renders.busy_slot_count == 0
    await renderer.finish(ask(render_id="job/4"))


async def test_a_stored_picture_that_is_not_the_one_that_was_meant_is_refused(renderer: Renderer) -> None:
    await store(renderer, to_file(picture((0, 0, 0))))
    error = await renderer.failure(ask(reference=stored(to_file(picture()))))
    assert error.code is StatusCode.INVALID_ARGUMENT
    assert [each.field for each in error.fields] == ["images.reference.source.stored.sha256"]


@pytest.mark.parametrize("key", ["user/nothing", "../../etc/passwd", "a//b", "x" * 2000])
async def test_a_stored_picture_that_is_not_there_is_refused(renderer: Renderer, key: str) -> None:
    error = await renderer.failure(ask_clip(start_frame=stored(b"", key=key)))
    assert error.code is StatusCode.INVALID_ARGUMENT
    assert [each.field for each in error.fields] == ["clip.start_frame.stored.key"]


async def test_a_stored_file_that_is_too_large_is_never_read(
    renderer: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = to_file(picture())
    monkeypatch.setattr("ourvidz_serving.rendering.references.MAX_FILE_BYTES", len(data) - 1)
    source = await store(renderer, data)
    error = await renderer.failure(ask(reference=source))
    assert error.code is StatusCode.INVALID_ARGUMENT
    assert [each.field for each in error.fields] == ["images.reference.source.stored.key"]
    assert f"weighs {len(data):,} bytes" in error.message


async def test_a_bucket_that_is_not_for_references_is_not_read(renderer: Renderer) -> None:
    source = await store(renderer, to_file(picture()), bucket="somebody-elses")
    error = await renderer.failure(ask(reference=source))
    assert error.code is StatusCode.INVALID_ARGUMENT
    assert [each.field for each in error.fields] == ["images.reference.source.stored.bucket"]


async def test_a_caller_who_is_told_to_come_back_costs_no_reading(renderer: Renderer) -> None:
    running = asyncio.create_task(renderer.finish(ask("hold:0:1")))
    await renderer.gate.held()
    # Reading it would be refused with another error.
    error = await renderer.failure(ask(render_id="job/2", reference=stored(b"", key="user/nothing")))
    assert error.reason == "BUSY"
    renderer.gate.release()
    await running


async def test_a_slot_is_taken_while_references_are_read_and_others_can_watch(renderer: Renderer) -> None:
    source = await store(renderer, to_file(picture()))
    finish = hold_reads(renderer)
    first = asyncio.create_task(renderer.events(ask(reference=source)))
    await renderer.until(lambda: renderer.renders.busy_slot_count == 1)
    assert (await renderer.failure(ask(render_id="job/2"))).reason == "BUSY"
    second = renderer.stub.Render(ask(reference=source))
    assert (await first_of(second)).HasField("accepted")
    assert (await first_of(second)).loading.part == "reference pictures"
    finish.set()
    assert [event async for event in second] == (await first)[2:]


async def test_references_wait_for_storage_to_come_back(renderer: Renderer) -> None:
    source = await store(renderer, to_file(picture()))
    running = await start_with_storage_down(renderer, ask(reference=source))
    renderer.store.failed.clear()
    await renderer.store.failed.wait()
    renderer.store.down = False
    assert [event async for event in running][-1].HasField("finished")


async def test_a_render_fails_when_storage_stays_away_for_too_long(tmp_path: Path) -> None:
    policy = RenderPolicy(first_retry_s=0.01, reference_patience_s=0.1)
    async with serving(tmp_path, config=CONFIG, policy=policy) as renderer:
        await renderer.ready()
        source = await store(renderer, to_file(picture()))
        running = await start_with_storage_down(renderer, ask(reference=source))
        error = await failure_of(running)
        assert (error.code, error.reason) == (StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE")
        assert error.message == "object storage was out of reach for 0.1 s; the reference pictures could not be read"
        assert error.retry_after_s
        assert renderer.renders.busy_slot_count == 0


@pytest.mark.parametrize("how", ["cancel", "lost", "drain"])
async def test_a_render_can_be_stopped_while_its_references_are_read(renderer: Renderer, how: str) -> None:
    source = await store(renderer, to_file(picture()))
    running = await start_with_storage_down(renderer, ask(reference=source))
    if how == "cancel":
        await renderer.stub.CancelRender(render_pb2.CancelRenderRequest(render_id="job/1"))
        assert (await failure_of(running)).code is StatusCode.CANCELLED
    elif how == "drain":
        await renderer.renders.drain(0)
        assert (await failure_of(running)).reason == "DRAINING"
    else:
        running.cancel()
    await renderer.until(lambda: renderer.renders.busy_slot_count == 0)
    renderer.store.down = False
    if how != "drain":
        await renderer.finish(ask(render_id="job/2"))


def hold_reads(renderer: Renderer) -> asyncio.Event:
    """Let reads of references begin, and end once the event is set."""
    goes_on, get = asyncio.Event(), renderer.store.get

    async def get_later(bucket: str, key: str) -> bytes:
        if bucket == REFERENCES:
            await goes_on.wait()
        return await get(bucket, key)

    renderer.store.get = get_later  # type: ignore[method-assign]
    return goes_on


async def start_with_storage_down(renderer: Renderer, request: render_pb2.RenderRequest):
    """Start a render, with storage going down once it was asked for the manifest; returns when a read has failed."""
    stat = renderer.store.stat

    async def go_down(bucket: str, key: str):
        renderer.store.down = True
        return await stat(bucket, key)

    renderer.store.stat = go_down  # type: ignore[method-assign]
    running = renderer.stub.Render(request)
    await first_of(running)
    await renderer.store.failed.wait()
    renderer.store.stat = stat  # type: ignore[method-assign]
    return running
