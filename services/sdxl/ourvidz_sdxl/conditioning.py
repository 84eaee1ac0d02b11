"""What conditions the denoising beside the prompt: nothing, or a reference picture.

There are two ways to follow a reference, `img2img.Img2Img` and `ip_adapter.IpAdapter`; an engine has one of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from ourvidz.api.render.v1 import render_pb2
from ourvidz_serving.rendering.engine import Pixels

_COMPOSITION_BOOST = 0.2


@dataclass(frozen=True, slots=True)
class Conditioning:
    """How all images of one batch are denoised. Lives as long as the render."""

    pipeline: Any
    """The pipeline that denoises."""
    step_count: int
    """The steps that really run, at least 1."""
    arguments: dict[str, Any]
    """What the pipeline is called with, beside prompt, guidance and generator."""


class ReferenceMethod(Protocol):
    """One way to follow reference pictures."""

    name: str
    """As results show it."""

    def without(self, batch: render_pb2.ImageBatch) -> Conditioning:
        """Return how to denoise a batch that has no reference."""
        ...

    def follow(self, batch: render_pb2.ImageBatch, picture: Pixels) -> Conditioning:
        """Return how to denoise a batch that follows `picture`, which has the batch's size."""
        ...


def influence_of(reference: render_pb2.ImageReference) -> float:
    """Return how closely to follow a reference, 0 to 1: what was asked for, and 0.2 more for composition."""
    boost = _COMPOSITION_BOOST if reference.type == render_pb2.REFERENCE_TYPE_COMPOSITION else 0.0
    return min(1.0, reference.influence + boost)


def text_arguments(batch: render_pb2.ImageBatch) -> dict[str, Any]:
    """Return what a text-to-image pipeline is called with for a batch."""
    return {
        "width": batch.width_px,
        "height": batch.height_px,
        "num_inference_steps": batch.sampling.step_count,
    }
