"""The files that a renderer makes: PNGs with text, and JPEG previews."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from ourvidz.api.render.v1 import render_pb2
from ourvidz_serving.rendering.parameters import describe
from ourvidz_serving.rendering.png import encode_png
from ourvidz_serving.rendering.preview import encode_preview

PIXELS = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)


def batch(
    prompt: str = "a fox", *, negative: str = "", sampler: render_pb2.Sampler.ValueType = 0
) -> render_pb2.ImageBatch:
    sampling = render_pb2.Sampling(
        prompt=prompt, negative_prompt=negative, step_count=20, guidance_scale=7.0, sampler=sampler
    )
    return render_pb2.ImageBatch(sampling=sampling, width_px=1024, height_px=768, image_count=1)


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
    texts = describe(
        batch("a fox", negative="blurry", sampler=render_pb2.SAMPLER_DPMPP_2M_KARRAS), seed=9, model="miniature"
    )
    assert texts == {
        "Software": "OurVidz",
        "parameters": "a fox\n"
        "Negative prompt: blurry\n"
        "Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 9, Size: 1024x768, Model: miniature",
    }


def test_what_the_request_left_open_is_not_in_the_parameters() -> None:
    text = describe(batch(), seed=9, model="miniature")["parameters"]
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
