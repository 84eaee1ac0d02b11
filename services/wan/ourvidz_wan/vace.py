"""The latents that VACE is shown of a clip's given frames, with the half that is always the same encoded once."""

from __future__ import annotations

from typing import Any

import torch

_KEPT = 4
"""Sizes whose latents are kept; of a clip of 480×832 they take 9 MB."""


class VideoLatents:
    """Takes the place of `WanVACEPipeline.prepare_video_latents`, and returns the same.

    VACE encodes a clip twice: once what is given, the rest gray, and once what is to be made, the rest gray. We give
    gray for what is to be made, so that the second one is gray all over, whatever the pictures are.
    """

    def __init__(self, autoencoder: Any) -> None:
        self._autoencoder = autoencoder
        self._gray: dict[torch.Size, torch.Tensor] = {}

    def __call__(
        self,
        video: torch.Tensor,
        mask: torch.Tensor,
        reference_images: Any = None,  # noqa: ARG002  # we show VACE frames alone
        generator: Any = None,  # noqa: ARG002  # the likeliest latents are taken, and nothing is drawn
        device: Any = None,  # noqa: ARG002  # everything is there already
    ) -> torch.Tensor:
        """Return 1 × 2 channels × latent frames × height × width.

        `video` is 1 × 3 × frames × height × width, -1 to 1 and 0 where `mask`, of one channel, is over 0.5.
        """
        video = video.to(self._autoencoder.dtype)
        given = video * (mask <= 0.5).to(video.dtype)
        return torch.cat([self._encode(given), self._gray_like(given)], dim=1)

    def _gray_like(self, video: torch.Tensor) -> torch.Tensor:
        latents = self._gray.get(video.shape)
        if latents is None:
            latents = self._encode(torch.zeros_like(video))
            while len(self._gray) >= _KEPT:
                del self._gray[next(iter(self._gray))]
            self._gray[video.shape] = latents
        return latents

    def _encode(self, video: torch.Tensor) -> torch.Tensor:
        config = self._autoencoder.config
        latents = self._autoencoder.encode(video).latent_dist.mode()
        mean, std = (
            torch.tensor(values, device=latents.device).view(1, -1, 1, 1, 1)
            for values in (config.latents_mean, config.latents_std)
        )
        # In the stock pipeline's own order of operations, for the sake of the last bit.
        scaled: torch.Tensor = ((latents.float() - mean) * (1.0 / std)).to(latents.dtype)
        return scaled
