"""The renderer as its users meet it: called directly, without a gateway, by its own contract."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from ourvidz.api.render.v1 import render_pb2, render_pb2_grpc
from ourvidz_serving.rendering.renderer import SERVICE
from support.miniature import difference
from support.program import MODEL_LIBRARIES, environment, imported_by, running_program
from support.wan import ask_clip, ask_still, gradient_picture, render_frames

# The scheduler hands a tensor to NumPy 2 in a way that it will drop one day; that is diffusers' to change.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

SIZE = (480, 832)
START = gradient_picture(SIZE)


def as_png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def requests() -> tuple[render_pb2.RenderRequest, render_pb2.RenderRequest]:
    """A still, and a clip that starts with a given frame."""
    still, clip = ask_still(size=SIZE), ask_clip(frames=6, steps=2, size=SIZE, scale=1.0)
    clip.clip.start_frame.inline = as_png(START)
    still.render_id, still.output.bucket, still.output.prefix = "still/1", "image-fast", "user/still/1"
    clip.render_id, clip.output.bucket, clip.output.prefix = "clip/1", "video-fast", "user/clip/1"
    still.images.sampling.seed = clip.clip.sampling.seed = 5
    return still, clip


def test_the_server_itself_never_imports_what_its_engine_imports() -> None:
    imported = imported_by("ourvidz_wan")
    assert {"ourvidz_wan", "ourvidz_serving", "av"} <= imported
    assert not imported & MODEL_LIBRARIES


async def test_a_server_called_directly_stores_a_still_and_a_clip(wan_engine, wan_cache: Path, tmp_path: Path) -> None:
    objects = tmp_path / "objects"
    storage = {"OURVIDZ_STORAGE_KIND": "local", "OURVIDZ_STORAGE_PATH": str(objects)}
    still, clip = requests()
    async with running_program("ourvidz_wan", SERVICE, {**environment("ourvidz_wan", wan_cache), **storage}) as program:
        stub = render_pb2_grpc.RenderServiceStub(program.channel)
        about = await stub.GetRenderer(render_pb2.GetRendererRequest())
        of_still, of_clip = [[event async for event in stub.Render(request)][-1].finished for request in (still, clip)]

    assert (about.kind, about.model, about.model_state) == ("wan", "miniature", about.MODEL_STATE_READY)
    assert (about.limits.max_image_count, about.limits.max_frame_count) == (1, 161)
    [picture] = of_still.outputs
    pixels = np.asarray(Image.open(io.BytesIO((objects / picture.bucket / picture.key).read_bytes())))
    np.testing.assert_array_equal(pixels, (await asyncio.to_thread(render_frames, wan_engine, still, 5))[0])

    [output] = of_clip.outputs
    assert (output.mime_type, output.width_px, output.height_px, output.frame_count, output.seed) == (
        "video/mp4", 480, 832, 6, 5,
    )  # fmt: skip
    assert of_clip.reference_engine == "vace"
    assert {timing.stage for timing in of_clip.timings} >= {"text_encode", "reference_encode", "denoise", "decode"}
    with av.open(io.BytesIO((objects / output.bucket / output.key).read_bytes())) as file:
        decoded = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    expected = await asyncio.to_thread(render_frames, wan_engine, clip, 5, {"start_frame": START})
    assert len(decoded) == len(expected) == 6
    # H.264 is lossy, and a reader that assumes other colours than are tagged would be further off than this.
    assert max(difference(*pair) for pair in zip(decoded, expected, strict=True)) < 12
    assert {line["level"] for line in program.log} == {"info"}
