"""Loads a Stable Diffusion XL pipeline from wherever its weights lie."""

from __future__ import annotations

from pathlib import Path

import diffusers
import torch

from ourvidz_models.loading import load_errors, load_pipeline, place_of
from ourvidz_serving.engines.engine import ModelUnavailable


def load_sdxl(
    model: str, *, cache: Path, single_file_config: Path | None, dtype: torch.dtype
) -> diffusers.StableDiffusionXLPipeline:
    """Return the pipeline of `model`, on the CPU: `miniature`, a folder, a single `.safetensors` file or a Hub name.

    Raises `ModelUnavailable`.
    """
    with load_errors(model):
        path = Path(model).expanduser()
        if path.is_file():
            return _from_file(path, single_file_config, dtype)
        place = place_of(model, lambda: _build_miniature(cache))
        return load_pipeline("StableDiffusionXLPipeline", place, network="unet", dtype=dtype, add_watermarker=False)


def _build_miniature(cache: Path) -> Path:
    # Only here: a renderer of real models does not need it.
    from ourvidz_miniature.sdxl import ensure_miniature_sdxl

    return ensure_miniature_sdxl(cache)


def _from_file(path: Path, config: Path | None, dtype: torch.dtype) -> diffusers.StableDiffusionXLPipeline:
    if path.suffix != ".safetensors":
        raise ModelUnavailable(f"{path.name} is not a .safetensors file; other formats are not read")
    if config is not None and not config.is_dir():
        raise ModelUnavailable(f"there is no configuration folder {config}")
    return diffusers.StableDiffusionXLPipeline.from_single_file(
        str(path),
        config=str(config) if config else None,
        local_files_only=config is not None,
        dtype=dtype,
        add_watermarker=False,
    )
