"""Loads the language model, and the tokenizer of the renderer's text encoder, from wherever they lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from ourvidz_models.loading import MINIATURE, load_errors, place_of


def load_language_model(model: str, *, cache: Path, dtype: torch.dtype, device: torch.device) -> tuple[Any, Any]:
    """Return the tokenizer and the network of `model`: `miniature`, a Hub name or a folder; the network on the device.

    Raises `ModelUnavailable`.
    """
    with load_errors(model):
        place = place_of(model, lambda: _miniature(cache))
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, trust_remote_code=False)
        network = transformers.AutoModelForCausalLM.from_pretrained(
            place, dtype=dtype, use_safetensors=True, trust_remote_code=False
        )
        return tokenizer, network.eval().to(device)


def load_encoder_tokenizer(name: str) -> Any:
    """Return the tokenizer that counts: `miniature`, or the one of a Wan pipeline (a Hub name or folder).

    A folder may also be the tokenizer's own. Raises `ModelUnavailable`.
    """
    if name == MINIATURE:
        # Only here, as below: an enhancer with a real model does not need it.
        from ourvidz_miniature.umt5 import make_umt5_tokenizer

        return make_umt5_tokenizer()
    with load_errors(name):
        folder = Path(name).expanduser()
        in_pipeline = not folder.is_dir() or (folder / "tokenizer").is_dir()
        return transformers.AutoTokenizer.from_pretrained(
            str(folder) if folder.is_dir() else name,
            subfolder="tokenizer" if in_pipeline else "",
            trust_remote_code=False,
        )


def _miniature(cache: Path) -> Path:
    from ourvidz_miniature.qwen2 import ensure_miniature_qwen2

    return ensure_miniature_qwen2(cache)
