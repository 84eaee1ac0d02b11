"""Loads the two Wan pipelines, which share all but their transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import diffusers
import torch

from ourvidz_models.loading import load_errors, load_pipeline, place_of
from ourvidz_serving.engines.engine import LoadSession


@dataclass(frozen=True, slots=True)
class WanModels:
    """The pipelines, on the CPU. Their text encoder, tokenizer and autoencoder are the same objects."""

    text: diffusers.WanPipeline
    """Makes clips and stills of a text alone."""
    vace: diffusers.WanVACEPipeline
    """Makes clips that begin or end with given pictures."""


def load_wan(model: str, vace_model: str, *, cache: Path, dtype: torch.dtype, session: LoadSession) -> WanModels:
    """Return the pipelines of `model` and `vace_model`, each `miniature`, a folder or a Hub name.

    Of the second one the transformer alone is loaded. Raises `ModelUnavailable`.
    """
    # The autoencoder is small, and its colours band in half precision.
    dtypes = {"default": dtype, "vae": torch.float32}
    session.loading("weights")
    with load_errors(model):
        place = place_of(model, lambda: _build_miniature(cache))
        text = load_pipeline("WanPipeline", place, network="transformer", dtype=dtypes)
    session.loading("VACE weights")
    with load_errors(vace_model):
        place = place_of(vace_model, lambda: _build_miniature_vace(cache))
        vace = load_pipeline(
            "WanVACEPipeline",
            place,
            network="transformer",
            dtype=dtypes,
            tokenizer=text.tokenizer,
            text_encoder=text.text_encoder,
            vae=text.vae,
            scheduler=text.scheduler,
        )
    return WanModels(text, vace)


def _build_miniature(cache: Path) -> Path:
    # Only here: a renderer of real models does not need it.
    from ourvidz_miniature.wan import ensure_miniature_wan

    return ensure_miniature_wan(cache)


def _build_miniature_vace(cache: Path) -> Path:
    from ourvidz_miniature.wan import ensure_miniature_wan_vace

    return ensure_miniature_wan_vace(cache)
