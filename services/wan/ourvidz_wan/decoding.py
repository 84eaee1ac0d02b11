"""Turns a clip's latents into frames, one latent frame after the other."""

from __future__ import annotations

from collections.abc import Iterator

import diffusers
import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

from ourvidz_serving.rendering.engine import Pixels


def decode_frames(autoencoder: diffusers.AutoencoderKLWan, latents: torch.Tensor) -> Iterator[list[Pixels]]:
    """Yield the frames of each latent frame in turn: one of the first, four of each other.

    `latents` (1 × channels × latent frames × height × width) are as a Wan pipeline returns them. The frames are those of
    the stock pipeline to the bit, which decodes the same way but returns nothing until the last one is done.
    """
    config = autoencoder.config
    latents = latents.to(device=autoencoder.device, dtype=autoencoder.dtype)
    mean, std = (
        torch.tensor(each, device=latents.device, dtype=latents.dtype).view(1, -1, 1, 1, 1)
        for each in (config.latents_mean, config.latents_std)
    )
    # In the stock pipeline's own order of operations, for the sake of the last bit.
    states = autoencoder.post_quant_conv(latents / (1.0 / std) + mean)
    # What each causal convolution keeps of the frames before; there is room for more than there are.
    memory: list[torch.Tensor | None] = [None] * sum(1 for _ in autoencoder.decoder.modules())
    for index in range(states.shape[2]):
        video = autoencoder.decoder(
            states[:, :, index : index + 1], feat_cache=memory, feat_idx=[0], first_chunk=index == 0
        )
        if config.patch_size is not None:
            video = unpatchify(video, patch_size=config.patch_size)
        yield _to_pixels(video[0])


def _to_pixels(video: torch.Tensor) -> list[Pixels]:
    """Return the frames of a piece of video (3 × frames × height × width, -1 to 1)."""
    colours = (video.clamp(-1.0, 1.0) * 0.5 + 0.5).clamp(0.0, 1.0)
    frames = (colours.permute(1, 2, 3, 0).float() * 255).round().byte().cpu().numpy()
    return [np.ascontiguousarray(frame) for frame in frames]
