from __future__ import annotations

from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch

from ourvidz.api.render.v1 import render_pb2
from ourvidz_sdxl.engine import SdxlEngine
from ourvidz_sdxl.sampling import make_scheduler
from ourvidz_serving.engines.engine import (
    Loading,
    LoadSession,
    PeakMemory,
    TaskCancelled,
    Timed,
    Warned,
)
from ourvidz_serving.rendering.engine import EngineInfo, FrameMade, PreviewMade, RenderTask, StepDone
from support.miniature import Told, ask, difference, engine_config, load_engine, render

# The scheduler hands a tensor to NumPy 2 in a way that it will drop one day; that is diffusers' to change.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def test_loading_names_each_part_and_says_what_can_be_made(model_cache: Path) -> None:
    told: list[object] = []
    info = SdxlEngine(engine_config(model_cache)).load(LoadSession(told.append))
    assert info == EngineInfo("miniature", "cpu", [(1024, 1024)], 6, 0, 200)
    assert told == [Loading("weights"), Loading("weights onto cpu")]


def test_the_folders_above_a_model_are_not_shown(miniature: Path, model_cache: Path) -> None:
    engine = SdxlEngine(engine_config(model_cache, model=str(miniature)))
    assert engine.load(LoadSession(lambda _: None)).model == miniature.name


def test_a_picture_is_of_the_size_and_form_that_was_asked_for(engine: SdxlEngine) -> None:
    [picture] = render(engine, ask(side=1024, steps=1))
    assert (picture.shape, picture.dtype) == ((1024, 1024, 3), np.uint8)
    assert picture.flags.c_contiguous
    assert picture.std() > 5


def test_seed_and_prompt_and_negative_prompt_each_change_the_picture(engine: SdxlEngine) -> None:
    [picture] = render(engine, ask())
    [of_seed], [of_prompt], [of_negative] = (
        render(engine, ask(), seed=8),
        render(engine, ask("a blue boat at sea")),
        render(engine, ask(negative="ugly, blurry")),
    )
    assert min(difference(picture, other) for other in (of_seed, of_prompt, of_negative)) > 1


def test_image_i_of_a_batch_is_the_image_of_seed_plus_i(engine: SdxlEngine) -> None:
    batch = render(engine, ask(images=3), seed=40)
    for index, picture in enumerate(batch):
        [alone] = render(engine, ask(), seed=40 + index)
        np.testing.assert_array_equal(picture, alone)


def test_seeds_wrap_at_two_to_the_32(engine: SdxlEngine) -> None:
    _, second = render(engine, ask(images=2), seed=2**32 - 1)
    np.testing.assert_array_equal(second, render(engine, ask(), seed=0)[0])


@pytest.mark.parametrize(
    ("negative", "guidance", "sampler"),
    [
        ("ugly, blurry", 5.0, render_pb2.SAMPLER_DPMPP_2M_KARRAS),
        ("", 5.0, render_pb2.SAMPLER_DPMPP_2M_KARRAS),
        ("ugly, blurry", 1.0, render_pb2.SAMPLER_DPMPP_2M_KARRAS),
        ("ugly, blurry", 5.0, render_pb2.SAMPLER_EULER),
        ("ugly, blurry", 5.0, render_pb2.SAMPLER_UNIPC),
    ],
)
def test_the_picture_is_the_one_that_the_stock_pipeline_makes(
    engine: SdxlEngine, miniature: Path, negative: str, guidance: float, sampler: render_pb2.Sampler.ValueType
) -> None:
    stock = diffusers.StableDiffusionXLPipeline.from_pretrained(miniature, add_watermarker=False)
    stock.scheduler = make_scheduler(sampler, stock.scheduler.config)
    stock.set_progress_bar_config(disable=True)
    expected = stock(
        prompt="a red fox in snow",
        negative_prompt=negative or None,
        width=256,
        height=256,
        num_inference_steps=3,
        guidance_scale=guidance,
        generator=torch.Generator("cpu").manual_seed(11),
    ).images[0]
    [picture] = render(engine, ask(negative=negative, guidance=guidance, sampler=sampler, steps=3), seed=11)
    np.testing.assert_array_equal(picture, np.asarray(expected))


def test_half_precision_weights_make_the_same_picture_each_time(model_cache: Path) -> None:
    half = load_engine(model_cache, dtype="bfloat16")
    assert half._pipeline.unet.dtype == half._pipeline.text_encoder_2.dtype == torch.bfloat16
    [first], [second] = render(half, ask()), render(half, ask())
    np.testing.assert_array_equal(first, second)
    assert first.std() > 5


def test_every_step_is_reported_once_and_in_order(engine: SdxlEngine) -> None:
    told = Told()
    engine.run(RenderTask(ask(images=2, steps=3).SerializeToString(), 7), told.session)
    steps = [StepDone(step, 3, index, 2) for index in range(2) for step in (1, 2, 3)]
    assert told.of(StepDone) == steps
    order = [type(message) for message in told.messages if isinstance(message, StepDone | FrameMade)]
    assert order == [StepDone, StepDone, StepDone, FrameMade] * 2


def test_stages_and_peak_memory_are_reported(engine: SdxlEngine) -> None:
    told = Told()
    engine.run(RenderTask(ask().SerializeToString(), 7), told.session)
    assert [timed.stage for timed in told.of(Timed)] == ["text_encode", "denoise", "decode"]
    [peak] = told.of(PeakMemory)
    assert 10 * 1024**2 < peak.bytes < 1024**4


@pytest.mark.parametrize("image", [0, 1])
def test_a_cancel_ends_the_render_with_the_step_that_runs(engine: SdxlEngine, image: int) -> None:
    last = StepDone(2, 4, image, 2)
    told = Told(cancel_when=lambda message: message == last)
    [expected] = render(engine, ask(steps=4))
    with pytest.raises(TaskCancelled):
        engine.run(RenderTask(ask(images=2, steps=4).SerializeToString(), 7), told.session)
    assert told.of(StepDone)[-1] == last
    assert len(told.of(FrameMade)) == image
    np.testing.assert_array_equal(render(engine, ask(steps=4))[0], expected)


def test_a_cancel_after_the_last_step_spares_the_decode(engine: SdxlEngine) -> None:
    told = Told(cancel_when=lambda message: isinstance(message, Timed) and message.stage == "denoise")
    with pytest.raises(TaskCancelled):
        engine.run(RenderTask(ask().SerializeToString(), 7), told.session)
    assert not told.of(FrameMade)


def test_a_cancel_while_an_image_is_decoded_starts_no_other(engine: SdxlEngine) -> None:
    told = Told(cancel_when=lambda message: isinstance(message, FrameMade))
    with pytest.raises(TaskCancelled):
        engine.run(RenderTask(ask(images=2).SerializeToString(), 7), told.session)
    assert {step.image_index for step in told.of(StepDone)} == {0}


def test_words_that_the_model_does_not_read_are_named(engine: SdxlEngine) -> None:
    told = Told()
    engine.run(
        RenderTask(ask("fox " * 75 + "sunset lighthouse", negative="cat " * 75).SerializeToString(), 7), told.session
    )
    assert [warning.text for warning in told.of(Warned)] == [
        "The prompt is longer than the model reads (77 of 75 tokens); left out: “sunset lighthouse”"
    ]


def test_a_long_rest_is_shown_in_part(engine: SdxlEngine) -> None:
    told = Told()
    engine.run(RenderTask(ask(negative="cat " * 175).SerializeToString(), 7), told.session)
    [warning] = told.of(Warned)
    assert warning.text.startswith("The negative prompt is longer than the model reads (175 of 75 tokens)")
    assert warning.text.endswith("cat cat…”")
    assert len(warning.text) < 300


def test_the_words_left_out_do_not_change_the_picture(engine: SdxlEngine) -> None:
    np.testing.assert_array_equal(
        render(engine, ask("fox " * 75 + "sunset"))[0], render(engine, ask("fox " * 75 + "boat"))[0]
    )


def test_previews_are_small_pictures_of_each_step_and_only_made_when_wanted(engine: SdxlEngine) -> None:
    told, without = Told(previews=True), Told()
    engine.run(RenderTask(ask(steps=3).SerializeToString(), 7), told.session)
    engine.run(RenderTask(ask(steps=3).SerializeToString(), 7), without.session)
    assert not without.of(PreviewMade)
    previews = told.of(PreviewMade)
    assert [(preview.image_index, preview.step) for preview in previews] == [(0, 1), (0, 2), (0, 3)]
    for preview in previews:
        assert (preview.pixels.shape, preview.pixels.dtype) == ((256, 256, 3), np.uint8)
        assert preview.pixels.std() > 5
    np.testing.assert_array_equal(told.of(FrameMade)[0].pixels, without.of(FrameMade)[0].pixels)


def test_a_preview_keeps_the_shape_of_the_picture(engine: SdxlEngine) -> None:
    request = ask()
    request.images.width_px, request.images.height_px = 256, 128
    told = Told(previews=True)
    engine.run(RenderTask(request.SerializeToString(), 7), told.session)
    assert told.of(PreviewMade)[0].pixels.shape == (128, 256, 3)
    assert told.of(FrameMade)[0].pixels.shape == (128, 256, 3)


def test_a_prompt_that_only_one_of_the_tokenizers_cuts_is_reported(
    engine: SdxlEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine._pipeline.tokenizer_2, "model_max_length", 12)
    cuts = list(engine._cut_warnings(ask("fox " * 10 + "sunset lighthouse").images.sampling))
    assert cuts == ["The prompt is longer than the model reads (12 of 10 tokens); left out: “sunset lighthouse”"]
