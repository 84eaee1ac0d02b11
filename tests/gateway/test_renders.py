"""Clips, rendered for a gateway by a renderer whose engine only paints."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import pytest

from ourvidz_gateway.gateway import Gateway
from ourvidz_gateway.jobs import JobState
from ourvidz_wan.mp4 import Mp4Encoder
from support.jobs import events_of, painted_job
from support.renderer import Renderer, serving

Open = Callable[..., AbstractAsyncContextManager[Gateway]]

SIZE = (64, 96)


@pytest.fixture
async def wan(tmp_path) -> AsyncIterator[Renderer]:
    """A WAN renderer that makes small clips."""
    (tmp_path / "wan").mkdir()
    config = {"sizes": [SIZE], "max_frame_count": 83}
    async with serving(tmp_path / "wan", kind="wan", config=config, clip_encoder=Mp4Encoder) as renderer:
        await renderer.ready()
        yield renderer


async def test_a_clip_tells_its_frames_its_duration_and_its_seed(database, open_one: Open, wan: Renderer):
    job = painted_job(job_type="video_fast", steps=4, width_px=SIZE[0], height_px=SIZE[1], frame_count=10)
    async with open_one(renderers_wan=f"127.0.0.1:{wan.server.port}") as gateway:
        await gateway.accept(job)
        events = await events_of(gateway, job.id)
        done = await gateway.get("alice", job.id)

    assert done.state == JobState.COMPLETED
    assert [event.progress for event in events if event.step] == [23, 47, 71, 95]
    told = {key: done.metadata[key] for key in ("frames", "duration_seconds", "seed", "width", "height")}
    assert told == {"frames": 10, "duration_seconds": 5.0, "seed": 7, "width": 64, "height": 96}
    assert "reference_engine" not in done.metadata
    (clip,) = done.assets
    assert (clip.mime_type, clip.duration_s) == ("video/mp4", 5.0)
