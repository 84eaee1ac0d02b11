"""References by image-to-image on the real pipelines of the miniature, whose autoencoder keeps colours and layout."""

from __future__ import annotations

from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from ourvidz.api.render.v1 import render_pb2
from ourvidz_sdxl.engine import SdxlEngine
from ourvidz_sdxl.img2img import steps_that_run
from ourvidz_sdxl.sampling import make_scheduler
from ourvidz_serving.engines.engine import TaskCancelled, Timed
from ourvidz_serving.rendering.engine import FrameMade, PreviewMade, ReferenceEngine, StepDone
from support.miniature import SIDE, Told, ask, difference, following, load_engine, render, task
from support.reference_pictures import plain, scene

# The scheduler hands a tensor to NumPy 2 in a way that it will drop one day; that is diffusers' to change.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

SAMPLERS = [render_pb2.SAMPLER_DPMPP_2M_KARRAS, render_pb2.SAMPLER_EULER, render_pb2.SAMPLER_UNIPC]
KINDS = [
    render_pb2.REFERENCE_TYPE_STYLE,
    render_pb2.REFERENCE_TYPE_COMPOSITION,
    render_pb2.REFERENCE_TYPE_CHARACTER,
]


@pytest.mark.parametrize(
    ("influence", "steps", "run"),
    [
        (0.0, 20, 20),
        (0.1, 20, 18),
        (0.5, 20, 10),
        (0.9, 20, 2),
        (1.0, 20, 1),
        (0.99, 20, 1),
        (0.7, 40, 12),
        (0.5, 1, 1),
    ],
)
def test_a_closer_reference_leaves_fewer_steps_and_at_least_one(influence: float, steps: int, run: int) -> None:
    assert steps_that_run(influence, steps) == run


@pytest.mark.parametrize("steps", [*range(1, 41), 50, 100, 199, 200])
def test_the_pipeline_runs_the_very_steps_that_were_counted(engine: SdxlEngine, steps: int) -> None:
    pipeline = engine._references._pipeline
    for step_count in range(1, steps + 1):
        pipeline.scheduler = make_scheduler(render_pb2.SAMPLER_EULER, engine._scheduler_config)
        pipeline.scheduler.set_timesteps(steps)
        strength = min(1.0, (step_count + 0.5) / steps)
        timesteps, _ = pipeline.get_timesteps(steps, strength, "cpu")
        assert len(timesteps) == step_count


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [7, 8, 9])
def test_a_picture_comes_nearer_to_its_reference_as_influence_rises(
    engine: SdxlEngine, kind: render_pb2.ReferenceType.ValueType, seed: int
) -> None:
    side = 512
    reference = scene(side)

    def distance(influence: float) -> float:
        request = following(ask(side=side, steps=10), influence, kind)
        return difference(render(engine, request, seed, reference)[0], reference)

    without = difference(render(engine, ask(side=side, steps=10), seed)[0], reference)
    far, middle, near = distance(0.1), distance(0.5), distance(0.9)
    assert without > far + 5 > middle + 15 > near + 20
    assert near < 30


def test_composition_is_nearer_than_style_at_the_same_influence(engine: SdxlEngine) -> None:
    reference = scene(SIDE)
    style, composition = (
        difference(render(engine, following(ask(steps=10), 0.4, kind), reference=reference)[0], reference)
        for kind in KINDS[:2]
    )
    assert composition < style


def test_which_picture_is_the_reference_and_what_the_prompt_says_both_matter(engine: SdxlEngine) -> None:
    references = [plain(SIDE, (220, 30, 30)), plain(SIDE, (30, 30, 220))]
    red, blue = (render(engine, following(ask(steps=4), 0.5), reference=reference)[0] for reference in references)
    assert difference(red, references[0]) < difference(red, references[1])
    assert difference(blue, references[1]) < difference(blue, references[0])
    [other] = render(engine, following(ask("a blue boat at sea", steps=4), 0.5), reference=references[0])
    assert difference(red, other) > 1


@pytest.mark.parametrize(("influence", "steps"), [(0.0, 4), (0.5, 2), (1.0, 1)])
def test_the_steps_that_run_are_the_steps_that_are_reported(engine: SdxlEngine, influence: float, steps: int) -> None:
    told = Told()
    engine.run(task(following(ask(steps=4, images=2), influence), reference=scene(SIDE)), told.session)
    assert told.of(StepDone) == [StepDone(step, steps, image, 2) for image in (0, 1) for step in range(1, steps + 1)]


def test_image_i_of_a_batch_is_the_image_of_seed_plus_i(engine: SdxlEngine) -> None:
    reference = scene(SIDE)
    batch = render(engine, following(ask(images=3, steps=4), 0.5), 40, reference)
    assert difference(batch[0], batch[1]) > 1
    for index, picture in enumerate(batch):
        [alone] = render(engine, following(ask(steps=4), 0.5), 40 + index, reference)
        np.testing.assert_array_equal(picture, alone)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_closest_picture_takes_one_step_with_each_sampler(
    engine: SdxlEngine, sampler: render_pb2.Sampler.ValueType
) -> None:
    reference = scene(SIDE)
    [picture] = render(engine, following(ask(steps=20, sampler=sampler), 1.0), reference=reference)
    assert difference(picture, reference) < 50


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_picture_is_the_one_that_the_stock_pipeline_makes_of_the_same_latents(
    engine: SdxlEngine, miniature: Path, sampler: render_pb2.Sampler.ValueType
) -> None:
    stock = diffusers.StableDiffusionXLImg2ImgPipeline.from_pretrained(miniature, add_watermarker=False)
    stock.scheduler = make_scheduler(sampler, stock.scheduler.config)
    stock.set_progress_bar_config(disable=True)
    reference = scene(SIDE)
    with torch.no_grad():
        seen = stock.vae.encode(stock.image_processor.preprocess(Image.fromarray(reference))).latent_dist.mode()
    expected = stock(
        prompt="a red fox in snow",
        image=stock.vae.config.scaling_factor * seen,
        strength=0.5,
        num_inference_steps=6,
        guidance_scale=5.0,
        generator=torch.Generator("cpu").manual_seed(11),
    ).images[0]
    [picture] = render(engine, following(ask(steps=6, sampler=sampler), 0.5), 11, reference)
    np.testing.assert_array_equal(picture, np.asarray(expected))


def test_the_reference_is_encoded_once_for_all_images_and_the_method_is_named(
    engine: SdxlEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae, calls = engine._pipeline.vae, []
    real = vae.encode
    monkeypatch.setattr(vae, "encode", lambda pictures: calls.append(pictures.shape) or real(pictures))
    told = Told()
    engine.run(task(following(ask(images=3), 0.5), reference=scene(SIDE)), told.session)
    assert calls == [(1, 3, SIDE, SIDE)]
    assert told.of(ReferenceEngine) == [ReferenceEngine("img2img")]
    assert [timed.stage for timed in told.of(Timed)][:2] == ["text_encode", "reference_encode"]


def test_a_render_without_a_reference_is_as_if_there_had_never_been_one(engine: SdxlEngine) -> None:
    told = Told()
    [before] = render(engine, ask())
    render(engine, following(ask(), 0.9), reference=scene(SIDE))
    engine.run(task(ask()), told.session)
    np.testing.assert_array_equal(told.of(FrameMade)[0].pixels, before)
    assert not told.of(ReferenceEngine)


def test_a_cancel_ends_the_render_with_the_step_that_runs(engine: SdxlEngine) -> None:
    last = StepDone(2, 6, 1, 2)
    told = Told(cancel_when=lambda message: message == last)
    with pytest.raises(TaskCancelled):
        engine.run(task(following(ask(images=2, steps=6), 0.0), reference=scene(SIDE)), told.session)
    assert told.of(StepDone)[-1] == last
    assert len(told.of(FrameMade)) == 1


def test_a_cancel_before_the_reference_is_encoded_spares_it(engine: SdxlEngine) -> None:
    told = Told(cancel_when=lambda message: isinstance(message, Timed))
    with pytest.raises(TaskCancelled):
        engine.run(task(following(ask(), 0.5), reference=scene(SIDE)), told.session)
    assert not told.of(ReferenceEngine)


def test_previews_show_each_step_that_runs(engine: SdxlEngine) -> None:
    told = Told(previews=True)
    engine.run(task(following(ask(steps=4), 0.5), reference=scene(SIDE)), told.session)
    assert [preview.step for preview in told.of(PreviewMade)] == [1, 2]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_weights_follow_a_reference(model_cache: Path, dtype: str) -> None:
    half = load_engine(model_cache, dtype=dtype)
    reference = scene(SIDE)
    [picture] = render(half, following(ask(), 0.9), reference=reference)
    assert difference(picture, reference) < 45
    assert str(half._pipeline.vae.dtype) == f"torch.{dtype}"
