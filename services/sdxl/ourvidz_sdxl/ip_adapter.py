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

    The pipeline holds an adapter already, and is on the device. Raises `ModelUnavailable` if adapter and image encoder
    are not made for each other.
    """

    name = "ip_adapter"

    def __init__(self, pipeline: diffusers.StableDiffusionXLPipeline, device: torch.device) -> None:
        self._pipeline = pipeline
        self._device = device
        with torch.no_grad():
            # The adapter asks for a picture also where it has nothing to say.
            self._nothing = self._encode(Image.new("RGB", (64, 64)), guided=True)
            try:
                pipeline.unet.encoder_hid_proj(self._nothing)
            except RuntimeError as error:
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                raise ModelUnavailable("the IP-Adapter was made for another image encoder") from error

    def without(self, batch: render_pb2.ImageBatch) -> Conditioning:
        """Return how to denoise a batch from its prompt alone, as if there were no adapter."""
        embeddings = self._nothing if _guided(batch) else [each.chunk(2)[1] for each in self._nothing]
        return self._attend(batch, embeddings, 0.0)

    def follow(self, batch: render_pb2.ImageBatch, picture: Pixels) -> Conditioning:
        """Return how to denoise a batch that attends to a picture, which is encoded here, once for all images."""
        scales = block_scales(batch.reference.type, influence_of(batch.reference))
        return self._attend(batch, self._encode(Image.fromarray(picture), guided=_guided(batch)), scales)

    def _encode(self, picture: Image.Image, *, guided: bool) -> list[torch.Tensor]:
        """Return what the image encoder sees in a picture; with guidance, what it sees in none stands before it."""
        embeddings: list[torch.Tensor] = self._pipeline.prepare_ip_adapter_image_embeds(
            ip_adapter_image=picture,
            ip_adapter_image_embeds=None,
            device=self._device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=guided,
        )
        return embeddings

    def _attend(self, batch: render_pb2.ImageBatch, embeddings: list[torch.Tensor], scales: Any) -> Conditioning:
        self._pipeline.set_ip_adapter_scale(scales)
        arguments = {**text_arguments(batch), "ip_adapter_image_embeds": embeddings}
        return Conditioning(self._pipeline, batch.sampling.step_count, arguments)


def _guided(batch: render_pb2.ImageBatch) -> bool:
    return batch.sampling.guidance_scale > 1.0


def _build_miniature(cache: Path) -> Path:
    # Only here: a renderer of real models does not need it.
    from ourvidz_miniature.ip_adapter import ensure_miniature_ip_adapter

    return ensure_miniature_ip_adapter(cache)
