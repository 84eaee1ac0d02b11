"""The miniature WAN family and its engine for tests: built once, and rendering without any process around it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ourvidz.api.render.v1 import render_pb2
from ourvidz_miniature.wan import ensure_miniature_wan, ensure_miniature_wan_vace
from ourvidz_serving.engines.engine import LoadSession
from ourvidz_serving.rendering.engine import FrameMade, Pixels, RenderTask
from ourvidz_wan.engine import WanEngine
from support.miniature import Told

SIZE = (192, 320)
"""Width and height. A server takes only what its engine offers; the engine itself makes smaller ones, much sooner."""


@pytest.fixture(scope="session")
def wan_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds the miniatures."""
    cache = tmp_path_factory.mktemp("wan-models")
    ensure_miniature_wan(cache)
    ensure_miniature_wan_vace(cache)
    return cache


@pytest.fixture(scope="session")
def miniature_wan(wan_cache: Path) -> Path:
    """The text-to-video miniature's folder. Not to be changed."""
    return ensure_miniature_wan(wan_cache)


@pytest.fixture(scope="session")
def miniature_wan_vace(wan_cache: Path) -> Path:
    """The VACE miniature's folder. Not to be changed."""
    return ensure_miniature_wan_vace(wan_cache)


@pytest.fixture(scope="session")
def wan_engine(wan_cache: Path) -> WanEngine:
    """A loaded engine that all tests share: how one render goes must not depend on those before it."""
    return load_wan_engine(wan_cache)


def wan_config(cache: Path, **changes: Any) -> dict[str, Any]:
    config = {"model": "miniature", "vace_model": "miniature", "model_cache": str(cache), "residency": "auto"}
    # One thread: several wait for each other as soon as something else runs on the machine.
    return {**config, "device": "cpu", "dtype": "auto", "threads": 1, **changes}


def load_wan_engine(cache: Path, **changes: Any) -> WanEngine:
    engine = WanEngine(wan_config(cache, **changes))
    engine.load(LoadSession(lambda _: None))
    return engine


def ask_clip(
    prompt: str = "a red fox in snow",
    *,
    negative: str = "",
    frames: int = 7,
    steps: int = 2,
    guidance: float = 6.5,
    scale: float | None = None,
    size: tuple[int, int] = SIZE,
    **sampling: Any,
) -> render_pb2.RenderRequest:
    """A clip; a `scale` is its conditioning scale, `sampling` further fields of its sampling."""
    clip = render_pb2.Clip(
        sampling=render_pb2.Sampling(
            prompt=prompt, negative_prompt=negative, step_count=steps, guidance_scale=guidance, **sampling
        ),
        width_px=size[0],
        height_px=size[1],
        frame_count=frames,
        conditioning_scale=scale,
    )
    clip.duration.FromSeconds(5)
    return render_pb2.RenderRequest(render_id="job/1", clip=clip)


def ask_still(
    prompt: str = "a red fox in snow", *, steps: int = 2, size: tuple[int, int] = SIZE
) -> render_pb2.RenderRequest:
    sampling = render_pb2.Sampling(prompt=prompt, step_count=steps, guidance_scale=6.5)
    images = render_pb2.ImageBatch(sampling=sampling, width_px=size[0], height_px=size[1], image_count=1)
    return render_pb2.RenderRequest(render_id="job/1", images=images)


def render_frames(
    engine: WanEngine,
    request: render_pb2.RenderRequest,
    seed: int = 7,
    pictures: Mapping[str, Pixels] | None = None,
    told: Told | None = None,
) -> list[Pixels]:
    """Return the frames of a render, in the order in which they came."""
    told = told or Told()
    engine.run(RenderTask(request.SerializeToString(), seed, pictures or {}), told.session)
    frames = told.of(FrameMade)
    assert {frame.output_index for frame in frames} == {0}
    return [frame.pixels for frame in frames]


def gradient_picture(size: tuple[int, int] = SIZE, *, turned: bool = False) -> Pixels:
    """A reference picture of strong colours that change from edge to edge; `turned`, another one."""
    width, height = size
    down, across = np.meshgrid(np.linspace(0, 255, height), np.linspace(0, 255, width), indexing="ij")
    channels = [down, across, 255 - down] if turned else [across, down, 255 - across]
    return np.ascontiguousarray(np.stack(channels, axis=-1).astype(np.uint8))
