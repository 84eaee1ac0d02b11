from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan
from diffusers.video_processor import VideoProcessor

from ourvidz_wan.decoding import decode_frames


def small_autoencoder(**changes: object) -> AutoencoderKLWan:
    """An untrained one of the shape of Wan 2.1's own, with fewer channels."""
    config = {"base_dim": 8, "z_dim": 4, "num_res_blocks": 1, "latents_mean": [0.1] * 4, "latents_std": [0.7] * 4}
    return AutoencoderKLWan(**{**config, **changes}).eval()


@torch.inference_mode()
def stock_frames(autoencoder: AutoencoderKLWan, latents: torch.Tensor) -> np.ndarray:
    """The end of the stock pipeline's call, from latents on."""
    config = autoencoder.config
    mean = torch.tensor(config.latents_mean).view(1, config.z_dim, 1, 1, 1)
    std = 1.0 / torch.tensor(config.latents_std).view(1, config.z_dim, 1, 1, 1)
    video = autoencoder.decode(latents / std + mean, return_dict=False)[0]
    frames = VideoProcessor().postprocess_video(video, output_type="np")[0]
    return (frames * 255).round().astype(np.uint8)


@pytest.mark.parametrize("of", ["wan 2.1", "wan 2.2", "miniature"])
@torch.inference_mode()
def test_frames_decoded_one_by_one_are_the_stock_ones_to_the_bit(of: str, miniature_wan: Path) -> None:
    torch.manual_seed(0)
    autoencoder = {
        "wan 2.1": small_autoencoder,
        "wan 2.2": lambda: small_autoencoder(
            is_residual=True, patch_size=2, in_channels=12, out_channels=12, scale_factor_spatial=16
        ),
        "miniature": lambda: AutoencoderKLWan.from_pretrained(miniature_wan, subfolder="vae"),
    }[of]()
    latents = torch.randn(1, autoencoder.config.z_dim, 4, 6, 4)
    expected = stock_frames(autoencoder, latents)
    pieces = list(decode_frames(autoencoder, latents))
    assert [len(piece) for piece in pieces] == [1, 4, 4, 4]
    np.testing.assert_array_equal(np.stack([frame for piece in pieces for frame in piece]), expected)


@torch.inference_mode()
def test_nothing_is_decoded_before_it_is_asked_for() -> None:
    autoencoder = small_autoencoder()
    calls: list[int] = []
    autoencoder.decoder.register_forward_pre_hook(lambda *_: calls.append(1))
    pieces = decode_frames(autoencoder, torch.randn(1, 4, 3, 4, 4))
    assert not calls
    next(pieces)
    assert len(calls) == 1


@torch.inference_mode()
def test_a_decode_that_was_given_up_leaves_nothing_for_the_next() -> None:
    autoencoder = small_autoencoder()
    latents = torch.randn(1, 4, 3, 4, 4)
    next(decode_frames(autoencoder, torch.randn(1, 4, 3, 4, 4)))
    frames = [frame for piece in decode_frames(autoencoder, latents) for frame in piece]
    np.testing.assert_array_equal(np.stack(frames), stock_frames(autoencoder, latents))
