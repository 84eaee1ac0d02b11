"""A small model family of the very shape of Stable Diffusion XL: the same classes, a few million parameters.

It is untrained: what it makes are soft colour fields that depend on prompt and seed. Its autoencoder compresses 32 times
a side, where SDXL's compresses 8 times, so that a picture of 1024×1024 pixels is a latent of 32×32 and takes two
seconds on two processor cores.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from ourvidz_miniature.folders import build_once
from ourvidz_miniature.vocabulary import END, START, make_vocabulary

_VERSION = 2
"""Part of the folder's name: raise it with every change of what is built."""
_SEED = 20_240_229
_WIDTHS = (48, 80)
"""The widths of the two text encoders; the UNet sees both side by side."""
_TIME_WIDTH = 32
_GRAIN = 0.3
"""How much of the decoder's random weights is left, 0 to 1."""


def ensure_miniature_sdxl(cache_dir: Path) -> Path:
    """Return the folder that holds the family, in the layout of `from_pretrained`; build it if it is not there.

    Takes a few seconds the first time. Several processes may do it at once.
    """
    return build_once(cache_dir, f"miniature-sdxl-{_VERSION}", build_miniature_sdxl)


def build_miniature_sdxl(folder: Path) -> None:
    """Write the family into `folder`, weights as safetensors. The same bytes each time, for one version of torch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        _make_pipeline(folder).save_pretrained(folder, safe_serialization=True)


def _make_pipeline(folder: Path) -> StableDiffusionXLPipeline:
    first, second = _WIDTHS
    vocabulary_size = len(make_vocabulary().ids)
    return StableDiffusionXLPipeline(
        vae=_make_autoencoder(),
        text_encoder=CLIPTextModel(_text_config(first, vocabulary_size, "quick_gelu")),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(second, vocabulary_size, "gelu")),
        # As with SDXL, the second tokenizer pads with "!".
        tokenizer=_make_tokenizer(folder / "tokenizer", pad_token=END),
        tokenizer_2=_make_tokenizer(folder / "tokenizer_2", pad_token="!"),  # noqa: S106 - a token of text
        unet=_make_unet(),
        scheduler=EulerDiscreteScheduler(
            num_train_timesteps=1000,
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type="epsilon",
            timestep_spacing="leading",
            steps_offset=1,
        ),
    )


def _make_tokenizer(folder: Path, *, pad_token: str) -> CLIPTokenizer:
    vocabulary = make_vocabulary()
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(vocabulary.ids, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in vocabulary.merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return CLIPTokenizer.from_pretrained(
        folder, bos_token=START, eos_token=END, unk_token=END, pad_token=pad_token, model_max_length=77
    )


def _text_config(width: int, vocabulary_size: int, activation: str) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocabulary_size,
        hidden_size=width,
        intermediate_size=width * 4,
        projection_dim=width,
        num_hidden_layers=3,
        num_attention_heads=width // 16,
        max_position_embeddings=77,
        hidden_act=activation,
        bos_token_id=vocabulary_size - 2,
        eos_token_id=vocabulary_size - 1,
        # Untrained encoders tell texts apart only if their weights are large.
        initializer_factor=8.0,
    )


def _make_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=32,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 64, 128),
        layers_per_block=1,
        transformer_layers_per_block=(1, 1, 2),
        attention_head_dim=(2, 4, 8),
        cross_attention_dim=sum(_WIDTHS),
        norm_num_groups=16,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=_TIME_WIDTH,
        # The six numbers of SDXL's size conditioning, and the second encoder's pooled text.
        projection_class_embeddings_input_dim=6 * _TIME_WIDTH + _WIDTHS[1],
    )


def _make_autoencoder() -> AutoencoderKL:
    blocks = 6
    autoencoder = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        block_out_channels=(8, 16, 32, 32, 64, 64),
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=1024,
        scaling_factor=0.13025,
        force_upcast=True,
    )
    _soften(autoencoder)
    return autoencoder


def _soften(autoencoder: AutoencoderKL) -> None:
    """Let the decoder draw smooth fields: random weights as they are made turn every latent into a fine grain."""
    row = torch.tensor([1.0, 2.0, 1.0]) / 4
    blur = torch.outer(row, row)
    with torch.no_grad():
        for block in autoencoder.decoder.up_blocks:
            for residual in block.resnets:
                residual.conv2.weight.mul_(_GRAIN)
            for upsampler in block.upsamplers or []:
                weight = upsampler.conv.weight
                weight.mul_(_GRAIN)
                # Each channel goes on as itself, blurred, where doubling its size left hard edges.
                channels = torch.arange(len(weight))
                weight[channels, channels] += blur
