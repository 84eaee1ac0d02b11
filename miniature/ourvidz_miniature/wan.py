"""A small model family of the very shape of Wan 2.1: the same classes, some two hundred thousand parameters.

It is untrained: what it makes are soft, slowly moving colour fields that depend on prompt and seed, and, with VACE, on
the frames that are given. Its autoencoder compresses 32 times a side, where Wan's compresses 8 times, so that 25 steps
of a clip of 83 frames of 480×832 pixels take some fifteen seconds on two processor cores.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import UniPCMultistepScheduler, WanPipeline, WanVACEPipeline

from ourvidz_miniature.folders import build_once
from ourvidz_miniature.umt5 import make_umt5_encoder, make_umt5_tokenizer
from ourvidz_miniature.wan_autoencoder import LATENT_CHANNELS, make_autoencoder
from ourvidz_miniature.wan_transformer import make_transformer, make_vace_transformer

_VERSION = 1
"""Part of the folders' names: raise it with every change of what is built."""
_SEED = 20_250_225


def ensure_miniature_wan(cache_dir: Path) -> Path:
    """Return the folder of the text-to-video pipeline, in the layout of `from_pretrained`; build it if it is not there.

    Takes a second the first time. Several processes may do it at once.
    """
    return build_once(cache_dir, f"miniature-wan-{_VERSION}", build_miniature_wan)


def ensure_miniature_wan_vace(cache_dir: Path) -> Path:
    """Return the folder of the VACE pipeline, whose other parts are those of the text-to-video pipeline; as above."""
    return build_once(cache_dir, f"miniature-wan-vace-{_VERSION}", build_miniature_wan_vace)


def build_miniature_wan(folder: Path) -> None:
    """Write the text-to-video pipeline into `folder`. The same bytes each time, for one version of torch."""
    _make_pipeline(vace=False).save_pretrained(folder, safe_serialization=True)


def build_miniature_wan_vace(folder: Path) -> None:
    """Write the VACE pipeline into `folder`. The same bytes each time, for one version of torch."""
    _make_pipeline(vace=True).save_pretrained(folder, safe_serialization=True)


def _make_pipeline(*, vace: bool) -> WanPipeline | WanVACEPipeline:
    with torch.random.fork_rng(devices=[]):
        # In this order: the two families share all but the transformer.
        torch.manual_seed(_SEED)
        turn, _ = torch.linalg.qr(torch.randn(LATENT_CHANNELS, LATENT_CHANNELS))
        text_encoder = make_umt5_encoder()
        autoencoder = make_autoencoder(turn)
        make = make_vace_transformer if vace else make_transformer
        transformer = make(turn, text_encoder.config.d_model)
    kind = WanVACEPipeline if vace else WanPipeline
    return kind(
        tokenizer=make_umt5_tokenizer(),
        text_encoder=text_encoder,
        vae=autoencoder,
        transformer=transformer,
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            num_train_timesteps=1000,
            flow_shift=3.0,
            solver_order=2,
        ),
    )
