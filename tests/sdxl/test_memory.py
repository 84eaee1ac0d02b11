from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ourvidz_sdxl.engine import SdxlEngine
from ourvidz_serving.engines.engine import EngineOutOfMemory, MemoryRung, TaskCancelled
from ourvidz_serving.rendering.engine import FrameMade, RenderTask, StepDone
from support.miniature import SIDE, Told, ask, difference, following, load_engine, render, task

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


def test_a_reference_whose_encoding_runs_out_of_memory_is_encoded_again(
    monkeypatch: pytest.MonkeyPatch, own_engine: SdxlEngine, engine: SdxlEngine
) -> None:
    run_out(monkeypatch, own_engine._pipeline.vae, "encode", when=lambda call: call == 1)
    reference = np.full((SIDE, SIDE, 3), 90, np.uint8)
    [picture] = render(own_engine, following(ask(), 0.5), reference=reference)
    np.testing.assert_array_equal(picture, render(engine, following(ask(), 0.5), reference=reference)[0])


@pytest.mark.parametrize("with_reference", [False, True])
def test_parts_that_are_kept_off_the_gpu_go_back_when_a_render_is_cancelled(
    own_engine: SdxlEngine, with_reference: bool
) -> None:
    # Offloading from one processor to itself: the hooks are real, and the calls that each gets can be counted.
    pipeline = own_engine._pipeline
    pipeline.enable_model_cpu_offload(device=torch.device("cpu"))
    hooks = list(pipeline._all_hooks)
    request = following(ask(), 0.1) if with_reference else ask()
    reference = np.zeros((SIDE, SIDE, 3), np.uint8) if with_reference else None
    told = Told(cancel_when=lambda message: isinstance(message, StepDone))
    with pytest.raises(TaskCancelled):
        own_engine.run(task(request, reference=reference), told.session)
    assert hooks
    assert not set(hooks) & set(pipeline._all_hooks)
    assert len(render(own_engine, request, reference=reference)) == 1
