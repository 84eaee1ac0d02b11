"""References by image-to-image: denoising starts from the reference, noised, instead of from noise alone."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from PIL import Image

from ourvidz.api.render.v1 import render_pb2
from ourvidz_sdxl import latents
from ourvidz_sdxl.conditioning import Conditioning, influence_of, text_arguments
from ourvidz_serving.rendering.engine import Pixels


class Img2Img:
    """Follows a reference by denoising it, the less the closer; all types of reference are followed alike.

    The pipeline that it adds shares all its parts with the one for text.
    """

    name = "img2img"

    def __init__(self, pipeline: diffusers.StableDiffusionXLPipeline, device: torch.device) -> None:
        self._text = pipeline
        self._device = device
        self._pipeline: Any = diffusers.StableDiffusionXLImg2ImgPipeline(**pipeline.components, add_watermarker=False)
        self._pipeline.set_progress_bar_config(disable=True)

    def without(self, batch: render_pb2.ImageBatch) -> Conditioning:
        """Return how to denoise a batch from its prompt alone."""
        return Conditioning(self._text, batch.sampling.step_count, text_arguments(batch))

    def follow(self, batch: render_pb2.ImageBatch, picture: Pixels) -> Conditioning:
        """Return how to denoise a batch from a reference picture, which is encoded here, once for all images."""
        schedule = batch.sampling.step_count
        step_count = steps_that_run(influence_of(batch.reference), schedule)
        arguments = {
            "image": self._encode(picture),
            "num_inference_steps": schedule,
            # The pipeline cuts strength × steps down to whole steps; the half keeps rounding from losing one.
            "strength": min(1.0, (step_count + 0.5) / schedule),
        }
        return Conditioning(self._pipeline, step_count, arguments)

    def _encode(self, picture: Pixels) -> torch.Tensor:
        """Return a picture's latents, as the pipeline takes them in place of the picture.

        They are the most likely ones, where the pipeline would draw from all that are likely: so an image depends on its
        own seed alone, and they are the same for all images of a batch.
        """
        scaled = self._pipeline.image_processor.preprocess(Image.fromarray(picture))
        return latents.encode(self._text.vae, scaled.to(self._device))


def steps_that_run(influence: float, step_count: int) -> int:
    """Return how many of a schedule's last steps make a picture follow its reference so closely; at least 1."""
    return max(1, round((1.0 - influence) * step_count))
