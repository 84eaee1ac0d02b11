from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ourvidz_sdxl.engine import SdxlEngine
from ourvidz_serving.engines.engine import EngineOutOfMemory, MemoryRung
from ourvidz_serving.rendering.engine import FrameMade, RenderTask
from support.miniature import Told, ask, difference, load_engine, render

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.fixture
def own_engine(model_cache: Path) -> SdxlEngine:
    """An engine for one test: a rung that was taken stays in use."""
    return load_engine(model_cache)


def run_out(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, *, when: Callable[[int], bool]) -> list[int]:
    """Let memory run out in those calls, counted from 1, that `when` picks; return the list that calls are noted in."""
    real, calls = getattr(owner, name), []

    def call(*args: Any, **kwargs: Any) -> Any:
        calls.append(len(calls) + 1)
        if when(calls[-1]):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, call)
    return calls


def test_a_decode_that_runs_out_of_memory_is_done_again_in_tiles(
    monkeypatch: pytest.MonkeyPatch, own_engine: SdxlEngine, engine: SdxlEngine
) -> None:
    vae = own_engine._pipeline.vae
    run_out(monkeypatch, vae, "decode", when=lambda call: call == 1)
    widths: list[int] = []
    vae.decoder.register_forward_pre_hook(lambda _, inputs: widths.append(inputs[0].shape[-1]))
    told = Told()
    own_engine.run(RenderTask(ask(side=1024, steps=1).SerializeToString(), 7), told.session)
    assert told.of(MemoryRung) == [MemoryRung("vae_tiling")]
    [frame] = told.of(FrameMade)
    assert frame.pixels.shape == (1024, 1024, 3)
    # Half of the 32 that a whole picture has.
    assert max(widths) == 16
    assert difference(frame.pixels, render(engine, ask(side=1024, steps=1))[0]) < 40


def test_a_denoising_that_runs_out_of_memory_starts_again_and_makes_the_same_picture(
    monkeypatch: pytest.MonkeyPatch, own_engine: SdxlEngine, engine: SdxlEngine
) -> None:
    run_out(monkeypatch, own_engine._pipeline.unet, "forward", when=lambda call: call == 2)
    [picture] = render(own_engine, ask(steps=3))
    assert (picture == render(engine, ask(steps=3))[0]).all()


def test_a_rung_that_was_taken_is_still_named_by_the_next_render(
    monkeypatch: pytest.MonkeyPatch, own_engine: SdxlEngine
) -> None:
    run_out(monkeypatch, own_engine._pipeline.vae, "decode", when=lambda call: call == 1)
    render(own_engine, ask())
    told = Told()
    own_engine.run(RenderTask(ask().SerializeToString(), 7), told.session)
    assert told.of(MemoryRung) == [MemoryRung("vae_tiling")]


def test_past_the_last_rung_the_render_fails(monkeypatch: pytest.MonkeyPatch, own_engine: SdxlEngine) -> None:
    calls = run_out(monkeypatch, own_engine._pipeline.vae, "decode", when=lambda _: True)
    told = Told()
    with pytest.raises(EngineOutOfMemory, match="everything that saves some was tried"):
        own_engine.run(RenderTask(ask().SerializeToString(), 7), told.session)
    assert not told.of(FrameMade)
    assert len(calls) == 2


def test_with_enough_memory_no_rung_is_named(engine: SdxlEngine) -> None:
    told = Told()
    engine.run(RenderTask(ask().SerializeToString(), 7), told.session)
    assert not told.of(MemoryRung)
