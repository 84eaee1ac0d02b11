"""References by IP-Adapter: attention layers of the UNet attend to what an image encoder sees in the reference.

Which layers do is InstantStyle's finding: one block of SDXL's UNet decides on style, another on layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from PIL import Image

from ourvidz.api.render.v1 import render_pb2
from ourvidz_models.loading import load_errors, place_of
from ourvidz_sdxl.conditioning import Conditioning, influence_of, text_arguments
from ourvidz_serving.engines.engine import ModelUnavailable
from ourvidz_serving.rendering.engine import Pixels

TYPES = (
    render_pb2.REFERENCE_TYPE_STYLE,
    render_pb2.REFERENCE_TYPE_COMPOSITION,
    render_pb2.REFERENCE_TYPE_CHARACTER,
)


def load_ip_adapter(
    pipeline: diffusers.StableDiffusionXLPipeline, config: Mapping[str, str], *, cache: Path, dtype: torch.dtype
) -> None:
    """Put an adapter and its image encoder into a pipeline that is still on the CPU.

    `config` is `SdxlSettings.ip_adapter_config()`. Weights are read as safetensors only. Raises `ModelUnavailable`.
    """
    name, weight = config["name"], config["weight"]
    with load_errors(name):
        if not weight.endswith(".safetensors"):
            raise ModelUnavailable(f"{weight} is not a .safetensors file; other formats are not read")
        place = place_of(name, lambda: _build_miniature(cache))
        image_encoder = transformers.CLIPVisionModelWithProjection.from_pretrained(
            place, subfolder=config["image_encoder"], dtype=dtype, use_safetensors=True
        )
        pipeline.register_modules(image_encoder=image_encoder)
        try:
            pipeline.load_ip_adapter(place, subfolder=config["subfolder"], weight_name=weight)
            for type_ in TYPES:
                pipeline.set_ip_adapter_scale(block_scales(type_, 0.0))
        except (KeyError, ValueError, RuntimeError) as error:
            raise ModelUnavailable(f"{weight} of {name} is no IP-Adapter for this model") from error


def block_scales(type_: render_pb2.ReferenceType.ValueType, scale: float) -> float | dict[str, dict[str, list[float]]]:
    """Return how much each attention block of the UNet follows a reference, as `set_ip_adapter_scale` takes it."""
    match type_:
        case render_pb2.REFERENCE_TYPE_COMPOSITION:
            return {"down": {"block_2": [0.0, scale]}}
        case render_pb2.REFERENCE_TYPE_CHARACTER:
            return scale
    return {"up": {"block_0": [0.0, scale, 0.0]}}


class IpAdapter:
    """Follows a reference by attending to it, the more the closer, in the layers that its type is about.

    The pipeline holds an adapter already, and is on the device.
    """

    name = "ip_adapter"

    def __init__(self, pipeline: diffusers.StableDiffusionXLPipeline, device: torch.device) -> None:
        self._pipeline = pipeline
        self._device = device

    def without(self, batch: render_pb2.ImageBatch) -> Conditioning:
        """Return how to denoise a batch from its prompt alone: the adapter asks for a picture, and ignores it."""
        black = Image.new("RGB", (batch.width_px, batch.height_px))
        return self._attend(batch, black, 0.0)

    def follow(self, batch: render_pb2.ImageBatch, picture: Pixels) -> Conditioning:
        """Return how to denoise a batch that attends to a picture, which is encoded here, once for all images."""
        scales = block_scales(batch.reference.type, influence_of(batch.reference))
        return self._attend(batch, Image.fromarray(picture), scales)

    def _attend(self, batch: render_pb2.ImageBatch, picture: Image.Image, scales: Any) -> Conditioning:
        self._pipeline.set_ip_adapter_scale(scales)
        embeddings = self._pipeline.prepare_ip_adapter_image_embeds(
            ip_adapter_image=picture,
            ip_adapter_image_embeds=None,
            device=self._device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=batch.sampling.guidance_scale > 1.0,
        )
        arguments = {**text_arguments(batch), "ip_adapter_image_embeds": embeddings}
        return Conditioning(self._pipeline, batch.sampling.step_count, arguments)


def _build_miniature(cache: Path) -> Path:
    # Only here: a renderer of real models does not need it.
    from ourvidz_miniature.ip_adapter import ensure_miniature_ip_adapter

    return ensure_miniature_ip_adapter(cache)
