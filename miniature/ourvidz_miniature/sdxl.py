"""A small model family of the very shape of Stable Diffusion XL: the same classes, a few million parameters.

It is untrained, but its weights are not all random: a few channels of each network are a path for colours, which every
layer hands on as they are. The autoencoder thereby keeps a picture's colours and layout and loses its detail. The UNet
takes noise away and leaves what is soft; text and reference pictures tint it on the way. So the family makes soft
colour fields that depend on prompt and seed, and follows references as the real one does.

Its autoencoder compresses 32 times a side, where SDXL's compresses 8 times, so that a picture of 1024×1024 pixels is a
latent of 32×32 and takes two seconds on two processor cores.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from ourvidz_miniature.folders import build_once
from ourvidz_miniature.vocabulary import END, START, make_vocabulary

_VERSION = 4
"""Part of the folder's name: raise it with every change of what is built."""
_SEED = 2
_WIDTHS = (48, 80)
"""The widths of the two text encoders; the UNet sees both side by side."""
_TIME_WIDTH = 32
_SCALING = 0.13025
"""What SDXL's latents are multiplied by, so that their values are about as large as the noise's."""

COLOURS = 4
"""The UNet's channels that are the path for colours, from channel 0 on: one for each channel of a latent."""
TINT = 0.0004
"""How much of what an attention layer of the UNet says is added to the colours."""
_ATTENTION = 0.15
"""How far apart words are for the UNet's attention: enough to tell texts apart, and not so far that it sees one word
alone and leaps to another on the smallest change."""
_DETAIL, _SOFT = 1.3, 0.9
"""The noise in a latent is guessed to be so much of the latent, less so much of its blurred self."""
_GRAIN = 0.01
"""How much of the networks' random weights reaches their output, 0 to 1."""
_BIAS = 16.0
"""A constant that is large beside any colour: dividing by the deviation of both, as norms do, is then about the same
for all pictures."""


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
        unet=make_unet(),
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


def make_unet() -> UNet2DConditionModel:
    """Return the UNet, with attention blocks where SDXL's has them."""
    unet = UNet2DConditionModel(
        sample_size=32,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 64, 128),
        layers_per_block=2,
        transformer_layers_per_block=(1, 1, 2),
        attention_head_dim=(2, 4, 8),
        cross_attention_dim=sum(_WIDTHS),
        # Sixteen channels to a group: the first one of the last norm has the path for colours and little else.
        norm_num_groups=2,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=_TIME_WIDTH,
        # The six numbers of SDXL's size conditioning, and the second encoder's pooled text.
        projection_class_embeddings_input_dim=6 * _TIME_WIDTH + _WIDTHS[1],
    )
    with torch.no_grad():
        _lay_path(unet)
    return unet


def _lay_path(unet: Any) -> None:
    """Let the UNet guess the noise in a latent: the part of it that is not soft."""
    _carry([unet.conv_in], COLOURS, taps=(0, 1, 0))
    for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        _carry_through(block, COLOURS, down=(0, 1, 1))
        for attention in getattr(block, "attentions", ()):
            _tint(attention)
    last = unet.up_blocks[-1].resnets[-1]
    _clear([last.conv2, last.conv_shortcut], 2 * COLOURS + 2)
    signs = torch.cat([torch.eye(COLOURS), -torch.eye(COLOURS)])
    # Side by side come what the blocks below hand up, blurred by the halving of its size, and the latent itself.
    latent = last.conv_shortcut.in_channels - unet.config.block_out_channels[0]
    last.conv_shortcut.weight[: 2 * COLOURS, :COLOURS, 0, 0] = -_SOFT * signs
    last.conv_shortcut.weight[: 2 * COLOURS, latent : latent + COLOURS, 0, 0] = _DETAIL * signs
    last.conv_shortcut.bias[2 * COLOURS : 2 * COLOURS + 2] = torch.tensor([_BIAS, -_BIAS])
    _read_colours(unet.conv_out, signs, group_size=16)


def _tint(attention: Any) -> None:
    """Let the first values of an attention block of the UNet act on the colours, and nothing else of it."""
    _clear([attention.proj_out], COLOURS)
    attention.proj_out.weight[:COLOURS, :COLOURS] = TINT * torch.eye(COLOURS)
    for layer in attention.transformer_blocks:
        layer.attn2.to_k.weight.mul_(_ATTENTION)
        layer.attn2.to_out[0].weight[:COLOURS, :COLOURS] = torch.eye(COLOURS)


def _make_autoencoder() -> AutoencoderKL:
    blocks = 6
    autoencoder = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        block_out_channels=(8, 16, 32, 32, 64, 64),
        layers_per_block=1,
        norm_num_groups=1,
        latent_channels=4,
        sample_size=1024,
        scaling_factor=_SCALING,
        force_upcast=True,
    )
    with torch.no_grad():
        for half in (autoencoder.encoder, autoencoder.decoder):
            _lay_colour_path(half)
        # Colours are -1 to 1, latents about twice that once they are scaled.
        for between, gain in ((autoencoder.quant_conv, 2 / _SCALING), (autoencoder.post_quant_conv, _SCALING / 2)):
            _clear([between], between.out_channels)
            between.weight[:4, :4, 0, 0] = gain * torch.eye(4)
        # The encoder is sure of what it sees: the deviations' logarithms.
        autoencoder.quant_conv.bias[4:] = -12.0
    return autoencoder


def _lay_colour_path(half: Any) -> None:
    """Let the first three channels that enter an encoder or decoder leave it as they were, but for their size.

    On their way they are eight: red, green and blue, their negatives, and a constant and its negative.
    """
    width = 8
    signs = torch.cat([torch.eye(3), -torch.eye(3)])
    _clear([half.conv_in], width)
    half.conv_in.weight[:6, :3, 1, 1] = signs
    half.conv_in.bias[6:width] = torch.tensor([_BIAS, -_BIAS])
    # An encoder has "down" blocks and a decoder "up" blocks.
    for block in (half.mid_block, *getattr(half, "down_blocks", ()), *getattr(half, "up_blocks", ())):
        _carry_through(block, width, down=(1, 1, 0))
    _clear([half.mid_block.attentions[0].to_out[0]], width)
    _read_colours(half.conv_out, signs, group_size=half.conv_out.in_channels)


def _carry_through(block: Any, channels: int, *, down: tuple[float, ...]) -> None:
    """Let a block hand on its first channels as they are; where it changes their size, they are averaged."""
    residuals = list(block.resnets)
    _clear((residual.conv2 for residual in residuals), channels)
    shortcuts = [residual.conv_shortcut for residual in residuals if residual.conv_shortcut is not None]
    _carry(shortcuts, channels, taps=(1,))
    _carry((sampler.conv for sampler in getattr(block, "downsamplers", None) or ()), channels, taps=down)
    _carry((sampler.conv for sampler in getattr(block, "upsamplers", None) or ()), channels, taps=(1, 2, 1))


def _carry(convolutions: Iterable[Any], channels: int, *, taps: tuple[float, ...]) -> None:
    """Let convolutions hand on their first channels, weighted over their neighbours by `taps` along both axes."""
    row = torch.tensor(taps) / sum(taps)
    for convolution in convolutions:
        _clear([convolution], channels)
        each = torch.arange(channels)
        convolution.weight[each, each] = torch.outer(row, row)


def _clear(layers: Iterable[Any], channels: int) -> None:
    """Let layers say nothing in their first output channels."""
    for layer in layers:
        layer.weight[:channels] = 0
        layer.bias[:channels] = 0


def _read_colours(convolution: Any, signs: Tensor, *, group_size: int) -> None:
    """Let a network's last convolution read its output from the first channels, and a little from the others.

    The first channels are the output and its negative, as `signs` says, and a constant and its negative. So the norm
    before takes away no mean and divides by what is mostly the constant, and the activation after it is undone by the
    difference of each pair.
    """
    pairs, outputs = signs.shape
    deviation = _BIAS * (2 / group_size) ** 0.5
    convolution.bias.zero_()
    convolution.weight.mul_(_GRAIN)
    convolution.weight[:, : pairs + 2] = 0
    convolution.weight[:outputs, :pairs, 1, 1] = deviation * signs.T
