"""The renderer as its users meet it: an engine in a process of its own, and the whole server."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ourvidz.api.render.v1 import render_pb2, render_pb2_grpc
from ourvidz_serving.engines.process import EngineProcess, EngineState
from ourvidz_serving.rendering.engine import FrameMade, RenderTask, StepDone
from ourvidz_serving.rendering.renderer import SERVICE
from support.miniature import ask, engine_config, following, render
from support.program import MODEL_LIBRARIES, environment, imported_by, running_program
from support.reference_pictures import as_png, scene

# The scheduler hands a tensor to NumPy 2 in a way that it will drop one day; that is diffusers' to change.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


REQUEST = ask(side=1024, steps=2)
REQUEST.images.sampling.seed = 5
REQUEST.output.bucket, REQUEST.output.prefix = "sdxl-image-fast", "user/job/1"

REFERENCE = scene(1024)
FOLLOWING = following(ask(side=1024, steps=4), 0.5)
FOLLOWING.images.sampling.seed = 5
FOLLOWING.images.reference.source.inline = as_png(REFERENCE)
FOLLOWING.render_id = "job/2"
FOLLOWING.output.bucket, FOLLOWING.output.prefix = "sdxl-image-fast", "user/job/2"


async def test_an_engine_in_a_process_of_its_own_makes_the_same_picture(engine, model_cache: Path) -> None:
    remote = EngineProcess("ourvidz_sdxl.engine:SdxlEngine", engine_config(model_cache))
    changed = asyncio.Event()
    remote.on_change(changed.set)
    await remote.start()
    try:
        while remote.state is not EngineState.READY:
            assert not remote.error
            changed.clear()
            await changed.wait()
        messages = [message async for message in remote.run(RenderTask(ask().SerializeToString(), 7))]
    finally:
        await remote.stop()
    assert [message.step for message in messages if isinstance(message, StepDone)] == [1, 2]
    [frame] = [message for message in messages if isinstance(message, FrameMade)]
    [expected] = await asyncio.to_thread(render, engine, ask())
    np.testing.assert_array_equal(frame.pixels, expected)


def test_the_server_itself_never_imports_what_its_engine_imports() -> None:
    imported = imported_by("ourvidz_sdxl")
    assert {"ourvidz_sdxl", "ourvidz_serving"} <= imported
    assert not imported & MODEL_LIBRARIES


async def test_a_server_says_that_it_serves_renders_into_its_store_and_ends_when_told(
    engine, model_cache: Path, tmp_path: Path
) -> None:
    objects = tmp_path / "objects"
    storage = {"OURVIDZ_STORAGE_KIND": "local", "OURVIDZ_STORAGE_PATH": str(objects)}
    variables = {**environment("ourvidz_sdxl", model_cache), **storage}
    async with running_program("ourvidz_sdxl", SERVICE, variables) as program:
        stub = render_pb2_grpc.RenderServiceStub(program.channel)
        about = await stub.GetRenderer(render_pb2.GetRendererRequest())
        events = [event async for event in stub.Render(REQUEST)]
        followed = [event async for event in stub.Render(FOLLOWING)]

    assert (about.kind, about.model, about.model_state) == ("sdxl", "miniature", about.MODEL_STATE_READY)
    [output] = events[-1].finished.outputs
    picture = np.asarray(Image.open(io.BytesIO((objects / output.bucket / output.key).read_bytes())))
    np.testing.assert_array_equal(picture, (await asyncio.to_thread(render, engine, REQUEST, 5))[0])
    assert not events[-1].finished.reference_engine
    finished = followed[-1].finished
    picture = np.asarray(
        Image.open(io.BytesIO((objects / finished.outputs[0].bucket / finished.outputs[0].key).read_bytes()))
    )
    expected = await asyncio.to_thread(render, engine, FOLLOWING, 5, REFERENCE)
    np.testing.assert_array_equal(picture, expected[0])
    assert finished.reference_engine == "img2img"
    assert {line["level"] for line in program.log} == {"info"}
