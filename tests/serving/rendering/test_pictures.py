"""The files that a renderer makes: PNGs with text, and JPEG previews."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ourvidz.api.render.v1 import render_pb2
from ourvidz_serving.rendering.parameters import describe
from ourvidz_serving.rendering.png import encode_png
from ourvidz_serving.rendering.preview import encode_preview

PIXELS = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)


def sampling(**more: Any) -> render_pb2.Sampling:
    return render_pb2.Sampling(prompt="a fox", step_count=20, guidance_scale=7.0, **more)


def batch(**more: Any) -> render_pb2.RenderRequest:
    images = render_pb2.ImageBatch(sampling=sampling(**more), width_px=1024, height_px=768, image_count=1)
    return render_pb2.RenderRequest(images=images)


def open_png(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    # Pillow then also checks every chunk's sum.
    picture.load()
    return picture


def test_a_png_holds_the_very_pixels() -> None:
    picture = open_png(encode_png(PIXELS, {}))
    assert picture.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(picture), PIXELS)


def test_a_png_holds_its_texts_in_any_language() -> None:
    texts = {"Software": "OurVidz", "parameters": "狐狸 🦊\nSteps: 20"}
    assert open_png(encode_png(PIXELS, texts)).text == texts


def test_text_that_png_does_not_allow_is_left_out() -> None:
    assert open_png(encode_png(PIXELS, {"parameters": "a\0b"})).text == {"parameters": "ab"}


def test_the_same_input_gives_the_same_bytes() -> None:
    assert encode_png(PIXELS, {"a": "b"}) == encode_png(PIXELS.copy(), {"a": "b"})


def test_the_parameters_say_how_to_make_the_picture_again() -> None:
    request = batch(negative_prompt="blurry", sampler=render_pb2.SAMPLER_DPMPP_2M_KARRAS)
    assert describe(request, seed=9, model="miniature") == (
        "a fox\n"
        "Negative prompt: blurry\n"
        "Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 9, Size: 1024x768, Model: miniature"
    )


def test_the_flow_shift_is_named_where_the_sampler_has_one() -> None:
    unipc = describe(batch(sampler=render_pb2.SAMPLER_UNIPC, flow_shift=3.0), seed=9, model="wan")
    assert unipc.endswith("Steps: 20, Sampler: UniPC, Flow shift: 3, CFG scale: 7, Seed: 9, Size: 1024x768, Model: wan")
    assert "Flow" not in describe(batch(sampler=render_pb2.SAMPLER_EULER, flow_shift=3.0), seed=9, model="wan")


def test_the_parameters_of_a_clip_say_how_many_frames_it_has() -> None:
    clip = render_pb2.Clip(sampling=sampling(), width_px=480, height_px=832, frame_count=83)
    text = describe(render_pb2.RenderRequest(clip=clip), seed=9, model="wan")
    assert text == "a fox\nSteps: 20, CFG scale: 7, Seed: 9, Size: 480x832, Frames: 83, Model: wan"


def test_what_the_request_left_open_is_not_in_the_parameters() -> None:
    text = describe(batch(), seed=9, model="miniature")
    assert text == "a fox\nSteps: 20, CFG scale: 7, Seed: 9, Size: 1024x768, Model: miniature"


@pytest.mark.parametrize(
    ("size", "expected"), [((64, 48), (64, 48)), ((1024, 512), (256, 128)), ((100, 1000), (26, 256))]
)
def test_a_preview_is_a_small_jpeg(size: tuple[int, int], expected: tuple[int, int]) -> None:
    width, height = size
    picture = Image.open(io.BytesIO(encode_preview(np.zeros((height, width, 3), np.uint8))))
    assert (picture.format, picture.size) == ("JPEG", expected)


def test_even_a_preview_of_noise_is_at_most_64_kb() -> None:
    noise = np.random.default_rng(0).integers(0, 2, (256, 256, 3), np.uint8) * 255
    assert len(encode_preview(noise)) <= 64 * 1024


def test_a_previews_colours_are_right() -> None:
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 255
    pixel = Image.open(io.BytesIO(encode_preview(red))).getpixel((8, 8))
    assert np.abs(np.subtract(pixel, (255, 0, 0))).max() < 8
