from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from ourvidz_miniature.ip_adapter import (
    IMAGE_ENCODER,
    SUBFOLDER,
    WEIGHT,
    build_miniature_ip_adapter,
    ensure_miniature_ip_adapter,
)
from ourvidz_miniature.sdxl import make_unet
from support.reference_pictures import plain, scene


@pytest.fixture(scope="module")
def adapter(model_cache: Path) -> Path:
    return ensure_miniature_ip_adapter(model_cache)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_files_are_named_as_the_published_ones_and_weights_are_safetensors(adapter: Path) -> None:
    assert set(contents(adapter)) == {
        f"{SUBFOLDER}/{WEIGHT}",
        f"{IMAGE_ENCODER}/config.json",
        f"{IMAGE_ENCODER}/model.safetensors",
    }


def test_two_builds_have_the_same_bytes_whatever_was_drawn_before(adapter: Path, tmp_path: Path) -> None:
    torch.rand(3)
    before = torch.get_rng_state()
    build_miniature_ip_adapter(tmp_path)
    assert contents(tmp_path) == contents(adapter)
    assert torch.equal(torch.get_rng_state(), before)


def test_each_layer_that_attends_to_text_has_a_key_and_a_value(adapter: Path) -> None:
    tensors = load_file(adapter / SUBFOLDER / WEIGHT)
    numbers = [number for number, name in enumerate(make_unet().attn_processors) if "attn2" in name]
    assert numbers == list(range(1, 2 * len(numbers), 2))
    assert set(tensors) == {
        *(f"image_proj.{name}" for name in ("proj.weight", "proj.bias", "norm.weight", "norm.bias")),
        *(f"ip_adapter.{number}.to_{part}_ip.weight" for number in numbers for part in "kv"),
    }


@torch.no_grad()
def test_the_encoder_sees_the_mean_colour_first_and_other_things_as_well(adapter: Path) -> None:
    encoder = CLIPVisionModelWithProjection.from_pretrained(adapter / IMAGE_ENCODER)
    processor = CLIPImageProcessor(size=encoder.config.image_size, crop_size=encoder.config.image_size)

    def see(picture: Image.Image) -> torch.Tensor:
        return encoder(processor(picture, return_tensors="pt").pixel_values).image_embeds[0]

    red, blue = see(Image.fromarray(plain(64, (255, 0, 0)))), see(Image.fromarray(plain(64, (0, 0, 255))))
    assert red[0] > 0.5 > -0.5 > red[2]
    assert blue[2] > 0.5 > -0.5 > blue[0]
    picture = Image.fromarray(scene(224))
    turned = picture.rotate(90)
    torch.testing.assert_close(see(picture)[:3], see(turned)[:3], atol=0.05, rtol=0)
    assert (see(picture)[8:] - see(turned)[8:]).abs().max() > 0.01
