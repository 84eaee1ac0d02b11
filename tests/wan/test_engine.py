from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch

from ourvidz.api.render.v1 import render_pb2
from ourvidz_serving.engines.engine import (
    InvalidForEngine,
    Loading,
    LoadSession,
    PeakMemory,
    TaskCancelled,
    Timed,
    Warned,
)
from ourvidz_serving.rendering.engine import EngineInfo, FrameMade, PreviewMade, StepDone
from ourvidz_wan.engine import WanEngine
from support.miniature import Told, difference
from support.wan import (
    SIZE,
    ask_clip,
    ask_still,
    gradient_picture,
    load_wan_engine,
    render_frames,
    wan_config,
)

# The scheduler hands a tensor to NumPy 2 in a way that it will drop one day; that is diffusers' to change.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def stock_frames(folder: Path, *, frames: int, steps: int, seed: int, negative: str, guidance: float) -> np.ndarray:
    """What diffusers alone makes of the same request, as values of 0 to 255."""
    stock = diffusers.WanPipeline.from_pretrained(folder)
    stock.set_progress_bar_config(disable=True)
    video = stock(
        prompt="a red fox in snow",
        negative_prompt=negative,
        width=SIZE[0],
        height=SIZE[1],
        num_frames=frames,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=torch.Generator("cpu").manual_seed(seed),
        output_type="np",
    ).frames[0]
    return (video * 255).round().astype(np.uint8)


def test_loading_names_each_part_and_says_what_can_be_made(wan_cache: Path) -> None:
    told: list[object] = []
    info = WanEngine(wan_config(wan_cache)).load(LoadSession(told.append))
    assert info == EngineInfo("miniature", "cpu", [(480, 832), (832, 480)], 1, 161, 200)
    assert [message.part for message in told if isinstance(message, Loading)] == [
        "weights",
        "VACE weights",
        "text encoder onto cpu",
        "text-to-video transformer onto cpu",
        "VACE transformer onto cpu",
    ]


def test_a_clip_has_the_frames_that_were_asked_for_and_none_more(wan_engine: WanEngine) -> None:
    frames = render_frames(wan_engine, ask_clip(frames=83, steps=1, size=(480, 832)))
    assert len(frames) == 83
    assert {(frame.shape, frame.dtype) for frame in frames} == {((832, 480, 3), np.dtype(np.uint8))}
    assert all(frame.flags.c_contiguous for frame in frames)


def test_a_still_is_one_picture(wan_engine: WanEngine) -> None:
    [picture] = render_frames(wan_engine, ask_still(size=(480, 832)))
    assert picture.shape == (832, 480, 3)
    assert picture.std() > 5


def test_clips_may_lie_on_their_side(wan_engine: WanEngine) -> None:
    frames = render_frames(wan_engine, ask_clip(frames=2, size=(320, 192)))
    assert [frame.shape for frame in frames] == [(192, 320, 3)] * 2


@pytest.mark.parametrize(("negative", "guidance"), [("", 6.5), ("ugly, blurry", 6.5), ("ugly, blurry", 1.0)])
def test_the_frames_are_those_of_the_stock_pipeline(
    wan_engine: WanEngine, miniature_wan: Path, negative: str, guidance: float
) -> None:
    expected = stock_frames(miniature_wan, frames=9, steps=3, seed=11, negative=negative, guidance=guidance)
    frames = render_frames(wan_engine, ask_clip(negative=negative, guidance=guidance, frames=7, steps=3), seed=11)
    np.testing.assert_array_equal(np.stack(frames), expected[:7])


def test_seed_and_prompt_and_negative_prompt_each_change_the_clip(wan_engine: WanEngine) -> None:
    clip, again, *others = (
        np.stack(frames)
        for frames in (
            render_frames(wan_engine, ask_clip()),
            render_frames(wan_engine, ask_clip()),
            render_frames(wan_engine, ask_clip(), seed=8),
            render_frames(wan_engine, ask_clip("a blue boat at sea")),
            render_frames(wan_engine, ask_clip(negative="ugly, blurry")),
            render_frames(wan_engine, ask_clip(flow_shift=7.0)),
        )
    )
    np.testing.assert_array_equal(clip, again)
    assert min(difference(clip, other) for other in others) > 1


def test_a_clip_moves_and_neighbouring_frames_are_alike(wan_engine: WanEngine) -> None:
    frames = render_frames(wan_engine, ask_clip(frames=33, steps=8, size=(480, 832)))
    neighbours = [difference(one, other) for one, other in pairwise(frames)]
    assert max(neighbours) < difference(frames[0], frames[-1])
    assert np.mean(neighbours) > 0.1


def test_the_flow_shift_is_three_unless_it_is_given(wan_engine: WanEngine) -> None:
    np.testing.assert_array_equal(
        render_frames(wan_engine, ask_clip()), render_frames(wan_engine, ask_clip(flow_shift=3.0))
    )


def test_half_precision_weights_make_the_same_clip_each_time(wan_cache: Path) -> None:
    half = load_wan_engine(wan_cache, dtype="bfloat16")
    models = half._models
    assert models.text.transformer.dtype == models.vace.transformer.dtype == torch.bfloat16
    assert models.text.vae.dtype == torch.float32
    for pictures in ({}, {"start_frame": gradient_picture()}):
        one, other = (render_frames(half, ask_clip(), pictures=pictures) for _ in range(2))
        np.testing.assert_array_equal(one, other)
        assert np.std(one) > 5


def test_steps_come_before_frames_and_stages_are_timed(wan_engine: WanEngine) -> None:
    told = Told()
    render_frames(wan_engine, ask_clip(frames=5, steps=3), told=told)
    assert told.of(StepDone) == [StepDone(step, 3, 0, 1) for step in (1, 2, 3)]
    order = [type(message) for message in told.messages if isinstance(message, StepDone | FrameMade)]
    assert order == [StepDone] * 3 + [FrameMade] * 5
    assert [timed.stage for timed in told.of(Timed)] == ["text_encode", "denoise", "decode"]
    [peak] = told.of(PeakMemory)
    assert 10 * 1024**2 < peak.bytes < 1024**4


def test_previews_are_small_pictures_of_each_step_and_only_made_when_wanted(wan_engine: WanEngine) -> None:
    told, without = Told(previews=True), Told()
    render_frames(wan_engine, ask_clip(steps=3), told=told)
    render_frames(wan_engine, ask_clip(steps=3), told=without)
    assert not without.of(PreviewMade)
    previews = told.of(PreviewMade)
    assert [(preview.image_index, preview.step) for preview in previews] == [(0, 1), (0, 2), (0, 3)]
    assert {preview.pixels.shape for preview in previews} == {(256, 153, 3)}


def test_a_cancel_ends_the_render_with_the_step_that_runs(wan_engine: WanEngine) -> None:
    last = StepDone(2, 4, 0, 1)
    told = Told(cancel_when=lambda message: message == last)
    expected = render_frames(wan_engine, ask_clip(steps=4))
    with pytest.raises(TaskCancelled):
        render_frames(wan_engine, ask_clip(steps=4), told=told)
    assert told.of(StepDone)[-1] == last
    assert not told.of(FrameMade)
    np.testing.assert_array_equal(render_frames(wan_engine, ask_clip(steps=4)), expected)


def test_a_cancel_while_frames_are_decoded_stops_before_the_next_latent_frame(wan_engine: WanEngine) -> None:
    told = Told(cancel_when=lambda message: isinstance(message, FrameMade))
    expected = render_frames(wan_engine, ask_clip(frames=13))
    with pytest.raises(TaskCancelled):
        render_frames(wan_engine, ask_clip(frames=13), told=told)
    # The first latent frame is one frame of the clip.
    assert len(told.of(FrameMade)) == 1
    np.testing.assert_array_equal(render_frames(wan_engine, ask_clip(frames=13)), expected)


def test_a_cancel_stops_also_while_given_frames_are_encoded(wan_engine: WanEngine) -> None:
    told = Told()
    pictures = {"start_frame": gradient_picture()}
    encoded: list[object] = []

    def cancel_after_two(*_: object) -> None:
        encoded.append(_)
        if len(encoded) == 2:
            told.cancel()

    hook = wan_engine._models.vace.vae.encoder.register_forward_hook(cancel_after_two)
    try:
        with pytest.raises(TaskCancelled):
            render_frames(wan_engine, ask_clip(frames=33), pictures=pictures, told=told)
    finally:
        hook.remove()
    assert len(encoded) == 2
    assert not told.of(StepDone)
    assert len(render_frames(wan_engine, ask_clip(frames=5), pictures=pictures)) == 5


def test_words_that_the_model_does_not_read_are_named(wan_engine: WanEngine) -> None:
    told = Told()
    request = ask_clip("fox " * 511 + "sunset", negative="cat " * 511, frames=1, steps=1)
    render_frames(wan_engine, request, told=told)
    assert [warning.text for warning in told.of(Warned)] == [
        "The prompt is longer than the model reads (512 of 511 tokens); left out: “sunset”"
    ]


def test_the_words_left_out_do_not_change_the_clip(wan_engine: WanEngine) -> None:
    one, other = (ask_clip("fox " * 511 + word, frames=1) for word in ("sunset", "boat"))
    np.testing.assert_array_equal(render_frames(wan_engine, one), render_frames(wan_engine, other))


@pytest.mark.parametrize("sampler", [render_pb2.SAMPLER_EULER, render_pb2.SAMPLER_DPMPP_2M_KARRAS])
def test_a_sampler_other_than_unipc_is_refused(wan_engine: WanEngine, sampler: render_pb2.Sampler.ValueType) -> None:
    with pytest.raises(InvalidForEngine, match="no sampler but UniPC"):
        render_frames(wan_engine, ask_clip(sampler=sampler))


def test_a_still_takes_no_reference_picture(wan_engine: WanEngine) -> None:
    request = ask_still()
    request.images.reference.source.inline = b"a picture"
    with pytest.raises(InvalidForEngine, match="no reference picture"):
        render_frames(wan_engine, request)
