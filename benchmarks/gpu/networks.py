"""Folders with the networks of the real models, in their published shapes, with random weights.

A network times the same whatever its weights are, so that speed and memory can be measured where the trained ones can't
be had. `Scale.CUT` makes the same networks narrow and shallow (Wan's are the miniature's), for a trial run on a CPU; its figures say nothing.
Tokenizers are the miniature family's: they cut a prompt into other tokens, and fill the same number of places.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from ourvidz_miniature.qwen2 import ensure_miniature_qwen2
from ourvidz_miniature.sdxl import ensure_miniature_sdxl
from ourvidz_miniature.wan import ensure_miniature_wan, ensure_miniature_wan_vace

SEED = 20_250_127
WEIGHT_STD = 0.02


class Scale(StrEnum):
    """How large the networks are."""

    FULL = "full"
    CUT = "cut"


# As published with stabilityai/stable-diffusion-xl-base-1.0.
SDXL_UNET = {
    "sample_size": 128,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [320, 640, 1280],
    "layers_per_block": 2,
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SDXL_UNET_CUT = {
    **SDXL_UNET,
    "block_out_channels": [32, 32, 64],
    "layers_per_block": 1,
    "transformer_layers_per_block": [1, 1, 1],
    "attention_head_dim": [1, 1, 2],
    "cross_attention_dim": 64,
    "projection_class_embeddings_input_dim": 6 * 256 + 32,
}
SDXL_VAE = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 1024,
    "scaling_factor": 0.13025,
    "force_upcast": True,
}
SDXL_VAE_CUT = {**SDXL_VAE, "block_out_channels": [8, 16, 16, 16], "layers_per_block": 1, "norm_num_groups": 8}
CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "vocab_size": 49408,
    "projection_dim": 768,
}
CLIP_BIG_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "vocab_size": 49408,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
CLIP_CUT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "vocab_size": 49408,
    "projection_dim": 32,
}

# As published with Wan-AI/Wan2.1-T2V-1.3B-Diffusers and Wan-AI/Wan2.1-VACE-1.3B-diffusers.
WAN_TRANSFORMER = {
    "patch_size": [1, 2, 2],
    "num_attention_heads": 12,
    "attention_head_dim": 128,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 4096,
    "freq_dim": 256,
    "ffn_dim": 8960,
    "num_layers": 30,
}
WAN_VACE_LAYERS = list(range(0, 30, 2))
WAN_VAE: dict[str, Any] = {"base_dim": 96, "z_dim": 16}
UMT5_XXL = {
    "vocab_size": 256384,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
    "is_encoder_decoder": False,
}
# As published with Qwen/Qwen2.5-7B.
QWEN_7B = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 131072,
    "rope_theta": 1_000_000.0,
}
QWEN_CUT = {
    **QWEN_7B,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def build_sdxl(cache: Path, scale: Scale, device: torch.device, dtype: torch.dtype) -> Path:
    """Return a folder that StableDiffusionXLPipeline loads; build it if it is not there."""

    def build(folder: Path) -> None:
        full = scale is Scale.FULL
        _save(diffusers.UNet2DConditionModel, SDXL_UNET if full else SDXL_UNET_CUT, folder / "unet", device, dtype)
        _save(diffusers.AutoencoderKL, SDXL_VAE if full else SDXL_VAE_CUT, folder / "vae", device, dtype)
        for name, kind, shape in (
            ("text_encoder", transformers.CLIPTextModel, CLIP_L),
            ("text_encoder_2", transformers.CLIPTextModelWithProjection, CLIP_BIG_G),
        ):
            config = transformers.CLIPTextConfig(**(shape if full else CLIP_CUT))
            _save(kind, config, folder / name, device, dtype)
        _copy(ensure_miniature_sdxl(cache), folder, "tokenizer", "tokenizer_2", "scheduler", "model_index.json")

    return _once(cache / f"random-sdxl-{scale}-{str(dtype).removeprefix('torch.')}", build)


def build_wan(cache: Path, scale: Scale, device: torch.device, dtype: torch.dtype) -> Path:
    """Return a folder that WanPipeline loads; build it if it is not there."""
    if scale is Scale.CUT:
        # However narrow, an autoencoder of Wan's depth takes minutes on a CPU; the miniature's was made for that.
        return ensure_miniature_wan(cache)

    def build(folder: Path) -> None:
        _save(diffusers.WanTransformer3DModel, WAN_TRANSFORMER, folder / "transformer", device, dtype)
        _save(diffusers.AutoencoderKLWan, WAN_VAE, folder / "vae", device, torch.float32)
        config = transformers.UMT5Config(**UMT5_XXL)
        _save(transformers.UMT5EncoderModel, config, folder / "text_encoder", device, dtype)
        _copy(ensure_miniature_wan(cache), folder, "tokenizer", "scheduler", "model_index.json")

    return _once(cache / f"random-wan-{scale}-{str(dtype).removeprefix('torch.')}", build)


def build_wan_vace(cache: Path, scale: Scale, device: torch.device, dtype: torch.dtype) -> Path:
    """Return a folder whose transformer WanVACEPipeline loads; all else is that of `build_wan`."""
    if scale is Scale.CUT:
        return ensure_miniature_wan_vace(cache)

    def build(folder: Path) -> None:
        config = {**WAN_TRANSFORMER, "vace_layers": WAN_VACE_LAYERS, "vace_in_channels": 96}
        _save(diffusers.WanVACETransformer3DModel, config, folder / "transformer", device, dtype)
        index = json.loads((ensure_miniature_wan(cache) / "model_index.json").read_text())
        index |= {"_class_name": "WanVACEPipeline", "transformer": ["diffusers", "WanVACETransformer3DModel"]}
        (folder / "model_index.json").write_text(json.dumps(index, indent=2))
        _copy(build_wan(cache, scale, device, dtype), folder, "scheduler")

    return _once(cache / f"random-wan-vace-{scale}-{str(dtype).removeprefix('torch.')}", build)


def build_qwen(cache: Path, scale: Scale, device: torch.device, dtype: torch.dtype) -> Path:
    """Return a folder that Qwen2ForCausalLM loads; build it if it is not there."""

    def build(folder: Path) -> None:
        config = transformers.Qwen2Config(**(QWEN_7B if scale is Scale.FULL else QWEN_CUT))
        vocabulary_size = len(transformers.AutoTokenizer.from_pretrained(ensure_miniature_qwen2(cache)))

        def write_what_can_be_read(network: Any) -> None:
            """Leave tokens that the miniature's tokenizer does not know without a chance."""
            network.lm_head.weight[vocabulary_size:].zero_()

        _save(transformers.Qwen2ForCausalLM, config, folder, device, dtype, adjust=write_what_can_be_read)
        for path in ensure_miniature_qwen2(cache).iterdir():
            if path.suffix != ".safetensors" and path.name != "config.json":
                shutil.copy(path, folder)

    return _once(cache / f"random-qwen-{scale}-{str(dtype).removeprefix('torch.')}", build)


def _once(folder: Path, build: Callable[[Path], None]) -> Path:
    if not folder.is_dir():
        building = folder.with_suffix(".building")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        build(building)
        building.rename(folder)
    return folder


def _save(
    kind: Any,
    config: Any,
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    *,
    adjust: Callable[[Any], None] = lambda _: None,
) -> None:
    """Make a network without weights, draw them where that is fast, and write it as safetensors."""
    with torch.device("meta"):
        network = kind.from_config(config) if isinstance(config, dict) else kind(config)
    network = network.to(dtype).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(SEED)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif "norm" in name or "gamma" in name or parameter.ndim == 1:
                parameter.fill_(1.0)
            else:
                parameter.normal_(0.0, WEIGHT_STD, generator=generator)
        adjust(network)
    network.save_pretrained(folder, safe_serialization=True)


def _copy(source: Path, folder: Path, *names: str) -> None:
    for name in names:
        if (source / name).is_dir():
            shutil.copytree(source / name, folder / name)
        else:
            shutil.copy(source / name, folder / name)
