"""Loads a Stable Diffusion XL pipeline from wherever its weights lie.

The pipeline's class is only ever named as `diffusers.StableDiffusionXLPipeline`, which imports it when it is first
used: by then the engine has told the libraries to be quiet, and their imports are where they talk most.
"""

from __future__ import annotations

import re
from pathlib import Path

import diffusers
import torch

from ourvidz_serving.rendering.engine import ModelUnavailable

MINIATURE = "miniature"

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def load_pipeline(
    model: str, *, cache: Path, single_file_config: Path | None, dtype: torch.dtype
) -> diffusers.StableDiffusionXLPipeline:
    """Return the pipeline of `model`, on the CPU: `miniature`, a folder, a single `.safetensors` file or a Hub name.

    Weights are read as safetensors only: other formats can run code when they are opened. Raises `ModelUnavailable`.
    """
    try:
        return _load(model, cache, single_file_config, dtype)
    except ModelUnavailable:
        raise
    except (OSError, ValueError, KeyError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise ModelUnavailable(f"the model {model} can't be loaded: {first_line}") from error


def _load(
    model: str, cache: Path, single_file_config: Path | None, dtype: torch.dtype
) -> diffusers.StableDiffusionXLPipeline:
    if model == MINIATURE:
        # Only here: a renderer of real models does not need it.
        from ourvidz_miniature.sdxl import ensure_miniature_sdxl

        return _from_folder(ensure_miniature_sdxl(cache), dtype)
    path = Path(model).expanduser()
    if path.is_file():
        return _from_file(path, single_file_config, dtype)
    if path.is_dir():
        return _from_folder(path, dtype)
    if not _HUB_NAME.fullmatch(model):
        raise ModelUnavailable(f"there is no model at {model}")
    return _pretrained(model, dtype)


def _from_folder(folder: Path, dtype: torch.dtype) -> diffusers.StableDiffusionXLPipeline:
    if not (folder / "model_index.json").is_file():
        raise ModelUnavailable(f"the folder {folder} holds no pipeline: it has no model_index.json")
    if not any(folder.glob("unet/*.safetensors")):
        raise ModelUnavailable(f"the folder {folder} has no safetensors weights; other formats are not read")
    # As downloaded with `--variant fp16`: the files have other names, and only those.
    half_only = not any(path for path in folder.glob("unet/*.safetensors") if ".fp16." not in path.name)
    return _pretrained(str(folder), dtype, variant="fp16" if half_only else None)


def _pretrained(name: str, dtype: torch.dtype, variant: str | None = None) -> diffusers.StableDiffusionXLPipeline:
    kind = diffusers.StableDiffusionXLPipeline.load_config(name).get("_class_name")
    # Before anything is loaded: parts that another pipeline lacks would count as left out, and only rendering would fail.
    if kind != "StableDiffusionXLPipeline":
        raise ModelUnavailable(f"{name} is a {kind}, not a StableDiffusionXLPipeline")
    return diffusers.StableDiffusionXLPipeline.from_pretrained(
        name, dtype=dtype, variant=variant, use_safetensors=True, add_watermarker=False
    )


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
