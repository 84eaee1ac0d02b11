"""From pictures to SDXL's latents and back, as its stock pipelines do it.

Pictures are batch × 3 × height × width, values −1 to 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import diffusers
import torch


def encode(vae: diffusers.AutoencoderKL, pictures: torch.Tensor) -> torch.Tensor:
    """Return the most likely latents of pictures, in the autoencoder's own type."""
    dtype = vae.dtype
    with _safe_type(vae):
        found: torch.Tensor = vae.encode(pictures.to(vae.dtype)).latent_dist.mode()
        scale, statistics = vae.config.scaling_factor, _statistics(vae.config, found)
        if statistics is None:
            found = scale * found
        else:
            mean, std = statistics
            found = (found - mean) * scale / std
    return found.to(dtype)


def decode(vae: diffusers.AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """Return the pictures of latents."""
    with _safe_type(vae):
        latents = latents.to(vae.dtype)
        scale, statistics = vae.config.scaling_factor, _statistics(vae.config, latents)
        if statistics is None:
            latents = latents / scale
        else:
            mean, std = statistics
            latents = latents * std / scale + mean
        pictures: torch.Tensor = vae.decode(latents, return_dict=False)[0]
    return pictures


@contextmanager
def _safe_type(vae: diffusers.AutoencoderKL) -> Iterator[None]:
    """Keep an autoencoder in single precision where it would overflow in half, as SDXL's own does."""
    upcast = vae.dtype == torch.float16 and vae.config.force_upcast
    if upcast:
        vae.to(dtype=torch.float32)
    try:
        yield
    finally:
        if upcast:
            vae.to(dtype=torch.float16)


def _statistics(config: Any, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return the mean and deviation of each latent channel, where a model states them."""
    mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is None or std is None:
        return None

    def per_channel(values: list[float]) -> torch.Tensor:
        return torch.tensor(values, device=like.device, dtype=like.dtype).view(1, -1, 1, 1)

    return per_channel(mean), per_channel(std)
