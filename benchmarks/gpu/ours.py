"""Renders with our engines as a renderer does: in a process of their own, frames encoded while later ones come."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from ourvidz_serving.engines.engine import PeakMemory, Timed
from ourvidz_serving.engines.process import EngineProcess, EngineState
from ourvidz_serving.rendering.engine import FrameMade, Pixels, RenderTask, StepDone
from ourvidz_serving.rendering.png import encode_png
from ourvidz_wan.mp4 import Mp4Encoder
from recipes import Recipe


@dataclass(slots=True)
class Rendered:
    """What a render made, and how long it took."""

    frames: list[Pixels] = field(default_factory=list)
    seconds: float = 0.0
    """From the order to the last encoded file."""
    stages: dict[str, float] = field(default_factory=dict)
    step_s: float = 0.0
    """The median from one step to the next; 0 where there is one step."""
    peak_bytes: int = 0


@asynccontextmanager
async def engine_process(factory: str, config: dict[str, Any]) -> AsyncIterator[EngineProcess[Any]]:
    """Give a loaded engine. Raises `RuntimeError` with the reason when it can't be loaded."""
    engine: EngineProcess[Any] = EngineProcess(factory, config)
    changed = asyncio.Event()
    engine.on_change(changed.set)
    await engine.start()
    try:
        while engine.state is not EngineState.READY:
            if engine.state is EngineState.FAILED:
                raise RuntimeError(engine.error)
            await changed.wait()
            changed.clear()
        yield engine
    finally:
        await engine.stop()


async def render(engine: EngineProcess[Any], recipe: Recipe) -> Rendered:
    """Render a recipe and encode its output."""
    rendered, steps, encode_s = Rendered(), [], 0.0
    width, height = recipe.size
    encoder = Mp4Encoder(width, height, _frame_rate(recipe), title="", comment="") if recipe.is_clip else None
    encoding: list[asyncio.Task[None]] = []
    lock = asyncio.Lock()

    async def encode(pixels: Pixels) -> None:
        nonlocal encode_s
        async with lock:
            begun = time.perf_counter()
            await asyncio.to_thread(encoder.add if encoder else lambda picture: encode_png(picture, {}), pixels)
            encode_s += time.perf_counter() - begun

    begun = time.perf_counter()
    task = RenderTask(recipe.request.SerializeToString(), recipe.sampling.seed, recipe.pictures)
    async with aclosing(engine.run(task)) as messages:
        async for message in messages:
            match message:
                case StepDone():
                    steps.append(time.perf_counter())
                case FrameMade(_, pixels):
                    rendered.frames.append(pixels)
                    encoding.append(asyncio.create_task(encode(pixels)))
                case Timed(stage, seconds):
                    rendered.stages[stage] = rendered.stages.get(stage, 0.0) + seconds
                case PeakMemory(peak):
                    rendered.peak_bytes = peak
    await asyncio.gather(*encoding)
    if encoder:
        await asyncio.to_thread(encoder.finish)
    rendered.seconds = time.perf_counter() - begun
    rendered.stages["encode"] = encode_s
    if len(steps) > 1:
        rendered.step_s = statistics.median(after - before for before, after in itertools.pairwise(steps))
    return rendered


def _frame_rate(recipe: Recipe) -> Fraction:
    clip = recipe.request.clip
    return Fraction(clip.frame_count) / Fraction(clip.duration.seconds)
