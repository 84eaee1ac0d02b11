"""Small pictures of latents, without a decoder."""

from __future__ import annotations

import numpy as np
import torch

from ourvidz_serving.rendering.engine import Pixels

PREVIEW_PX = 256


def latent_preview(latents: torch.Tensor) -> Pixels:
    """Return a picture of latents (channels × height × width, at least 3 channels), 256 pixels at its longer side.

    Three of the channels are its colours, each stretched to its full range.
    """
    colours = latents[:3].float()
    low, high = colours.amin((1, 2), keepdim=True), colours.amax((1, 2), keepdim=True)
    scaled = (colours - low) / (high - low).clamp(min=1e-6)
    longer = max(scaled.shape[1:])
    size = tuple(side * PREVIEW_PX // longer for side in scaled.shape[1:])
    enlarged = torch.nn.functional.interpolate(scaled[None], size=size, mode="bilinear")[0]
    pixels: Pixels = np.ascontiguousarray((enlarged * 255).byte().permute(1, 2, 0).cpu().numpy())
    return pixels
