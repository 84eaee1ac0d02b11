from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan

from ourvidz_miniature.wan import build_miniature_wan, build_miniature_wan_vace, ensure_miniature_wan

CLASSES = {
    "tokenizer": ["transformers", "TokenizersBackend"],
    "text_encoder": ["transformers", "UMT5EncoderModel"],
    "vae": ["diffusers", "AutoencoderKLWan"],
    "scheduler": ["diffusers", "UniPCMultistepScheduler"],
}


@pytest.fixture(scope="module")
def autoencoder(miniature_wan: Path) -> AutoencoderKLWan:
    return AutoencoderKLWan.from_pretrained(miniature_wan, subfolder="vae")


@pytest.fixture(scope="module")
def gradient() -> torch.Tensor:
    """A picture whose colours change slowly from edge to edge."""
    down, across = torch.meshgrid(torch.linspace(-0.9, 0.9, 320), torch.linspace(-0.9, 0.9, 192), indexing="ij")
    return torch.stack([down, across, -down])[None, :, None]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_parts_are_of_wans_own_classes(miniature_wan: Path, miniature_wan_vace: Path) -> None:
    index, vace_index = (
        json.loads((folder / "model_index.json").read_text()) for folder in (miniature_wan, miniature_wan_vace)
    )
    assert (index["_class_name"], vace_index["_class_name"]) == ("WanPipeline", "WanVACEPipeline")
    assert index["transformer"] == ["diffusers", "WanTransformer3DModel"]
    assert vace_index["transformer"] == ["diffusers", "WanVACETransformer3DModel"]
    for name, class_ in CLASSES.items():
        assert index[name] == vace_index[name] == class_


def test_the_two_pipelines_differ_in_nothing_but_the_transformer(miniature_wan: Path, miniature_wan_vace: Path) -> None:
    one, other = contents(miniature_wan), contents(miniature_wan_vace)
    assert one.keys() == other.keys()
    assert {Path(name).parts[0] for name in one if one[name] != other[name]} == {"transformer", "model_index.json"}


def test_two_builds_have_the_same_bytes_whatever_was_drawn_before(
    miniature_wan: Path, miniature_wan_vace: Path, tmp_path: Path
) -> None:
    torch.rand(3)
    before = torch.get_rng_state()
    build_miniature_wan(tmp_path / "wan")
    build_miniature_wan_vace(tmp_path / "vace")
    assert contents(tmp_path / "wan") == contents(miniature_wan)
    assert contents(tmp_path / "vace") == contents(miniature_wan_vace)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_folder_that_is_there_is_taken_as_it_is(miniature_wan: Path) -> None:
    changed = (miniature_wan / "model_index.json").stat().st_mtime_ns
    assert ensure_miniature_wan(miniature_wan.parent) == miniature_wan
    assert (miniature_wan / "model_index.json").stat().st_mtime_ns == changed


def test_it_is_small_and_holds_no_weights_but_safetensors(miniature_wan: Path) -> None:
    files = [path for path in miniature_wan.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 5 * 1024**2
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in files)


@torch.inference_mode()
def test_a_picture_keeps_its_colours_through_the_autoencoder(
    autoencoder: AutoencoderKLWan, gradient: torch.Tensor
) -> None:
    clip = gradient.expand(-1, -1, 9, -1, -1)
    latents = autoencoder.encode(clip).latent_dist.mode()
    assert latents.shape == (1, 3, 3, 10, 6)
    decoded = autoencoder.decode(latents).sample
    assert decoded.shape == clip.shape
    # The error's mean, where colours reach from -0.9 to 0.9; the flat mean of the picture would be 0.45 away.
    assert (decoded - clip).abs().mean() < 0.15


@torch.inference_mode()
def test_gray_says_nothing(autoencoder: AutoencoderKLWan) -> None:
    latents = autoencoder.encode(torch.zeros(1, 3, 9, 160, 160)).latent_dist.mode()
    neutral = torch.tensor(autoencoder.config.latents_mean).view(1, 3, 1, 1, 1)
    assert (latents - neutral).abs().max() < 0.15


def test_times_and_places_are_compressed_as_the_pipelines_expect(autoencoder: AutoencoderKLWan) -> None:
    # What WanPipeline reads of it, and what WanVACEPipeline reads.
    assert (autoencoder.config.scale_factor_spatial, autoencoder.config.scale_factor_temporal) == (32, 4)
    assert (2 ** len(autoencoder.temperal_downsample), 2 ** sum(autoencoder.temperal_downsample)) == (32, 4)
