"""Writes a pipeline as one `.safetensors` file in the layout that Stable Diffusion XL's authors gave their own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

Renames = Sequence[tuple[str, str]]
Tensors = dict[str, torch.Tensor]

_UNET: Renames = (
    (r"^time_embedding\.linear_1", "time_embed.0"),
    (r"^time_embedding\.linear_2", "time_embed.2"),
    (r"^add_embedding\.linear_1", "label_emb.0.0"),
    (r"^add_embedding\.linear_2", "label_emb.0.2"),
    (r"^conv_in", "input_blocks.0.0"),
    (r"^conv_norm_out", "out.0"),
    (r"^conv_out", "out.2"),
    (r"^mid_block\.resnets\.0", "middle_block.0"),
    (r"^mid_block\.attentions\.0", "middle_block.1"),
    (r"^mid_block\.resnets\.1", "middle_block.2"),
)
_UNET_RESIDUAL: Renames = (
    (r"\.norm1\.", ".in_layers.0."),
    (r"\.conv1\.", ".in_layers.2."),
    (r"\.time_emb_proj\.", ".emb_layers.1."),
    (r"\.norm2\.", ".out_layers.0."),
    (r"\.conv2\.", ".out_layers.3."),
    (r"\.conv_shortcut\.", ".skip_connection."),
)
_VAE: Renames = (
    (r"conv_norm_out", "norm_out"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"down_blocks\.(\d+)\.resnets", r"down.\1.block"),
    (r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample"),
    (r"conv_shortcut", "nin_shortcut"),
)
_SECOND_ENCODER: Renames = (
    (r"^text_projection\.weight", "text_projection"),
    (r"^text_model\.embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"^text_model\.embeddings\.token_embedding", "token_embedding"),
    (r"^text_model\.final_layer_norm", "ln_final"),
    (r"^text_model\.encoder\.layers", "transformer.resblocks"),
    (r"\.layer_norm1", ".ln_1"),
    (r"\.layer_norm2", ".ln_2"),
    (r"\.fc1", ".c_fc"),
    (r"\.fc2", ".c_proj"),
    (r"\.self_attn", ".attn"),
)


def write_single_file(pipeline: Any, path: Path) -> None:
    """Write the weights of a `StableDiffusionXLPipeline`."""
    depth = len(pipeline.vae.config.up_block_types)
    parts = {
        "model.diffusion_model": _unet(pipeline.unet),
        "first_stage_model": _renamed(pipeline.vae.state_dict(), (*_VAE, *_ups(depth))),
        "conditioner.embedders.0.transformer.text_model": {
            name.removeprefix("text_model."): tensor for name, tensor in pipeline.text_encoder.state_dict().items()
        },
        "conditioner.embedders.1.model": _second_encoder(pipeline.text_encoder_2.state_dict()),
    }
    tensors = {f"{part}.{name}": tensor.contiguous() for part, all_ in parts.items() for name, tensor in all_.items()}
    save_file(tensors, path)


def _renamed(tensors: Tensors, renames: Renames) -> Tensors:
    return {_rename(name, renames): tensor for name, tensor in tensors.items()}


def _rename(name: str, renames: Renames) -> str:
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


def _unet(unet: Any) -> Tensors:
    """The original numbers all layers of a side in a row, whatever block they are of."""
    blocks = len(unet.config.down_block_types)
    per_block = unet.config.layers_per_block + 1
    renames = [*_UNET]
    for block in range(blocks):
        for layer in range(per_block):
            down, up = block * per_block + layer + 1, block * per_block + layer
            renames += _layer(f"down_blocks.{block}", layer, f"input_blocks.{down}")
            renames += _layer(f"up_blocks.{block}", layer, f"output_blocks.{up}")
        renames.append(
            (rf"^down_blocks\.{block}\.downsamplers\.0\.conv", f"input_blocks.{(block + 1) * per_block}.0.op")
        )
        last = (block + 1) * per_block - 1
        place = 2 if "CrossAttn" in unet.config.up_block_types[block] else 1
        renames.append((rf"^up_blocks\.{block}\.upsamplers\.0", f"output_blocks.{last}.{place}"))
    tensors = unet.state_dict()
    return {
        _rename(_rename(name, _UNET_RESIDUAL) if ".resnets." in name else name, renames): tensor
        for name, tensor in tensors.items()
    }


def _layer(block: str, layer: int, original: str) -> Iterator[tuple[str, str]]:
    yield rf"^{block}\.resnets\.{layer}\.", f"{original}.0."
    yield rf"^{block}\.attentions\.{layer}\.", f"{original}.1."


def _ups(depth: int) -> Iterator[tuple[str, str]]:
    """The original counts the decoder's blocks from the picture, not from the latent."""
    for block in range(depth):
        yield rf"up_blocks\.{block}\.resnets", f"up.{depth - 1 - block}.block"
        yield rf"up_blocks\.{block}\.upsamplers\.0", f"up.{depth - 1 - block}.upsample"


def _second_encoder(tensors: Tensors) -> Tensors:
    """The original keeps queries, keys and values in one matrix, and multiplies by the projection from the right."""
    named = _renamed(tensors, _SECOND_ENCODER)
    original: Tensors = {}
    for name, tensor in named.items():
        if ".q_proj." in name:
            together = [named[name.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"]
            original[name.replace(".q_proj.", ".in_proj_")] = torch.cat(together)
        elif ".k_proj." in name or ".v_proj." in name:
            continue
        elif name == "text_projection":
            original[name] = tensor.T
        else:
            original[name] = tensor
    return original
