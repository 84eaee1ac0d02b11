"""A miniature IP-Adapter for the miniature SDXL family, in the files and under the names of the real one.

Like the family, it is untrained, but its weights are not all random: the image encoder and the projection after it hand
on one thing that they see, the reference's mean colour, and the attention layers that InstantStyle gives to style and to
layout add it to the picture. So a picture comes nearer to its reference's colours as the adapter's scale rises.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from ourvidz_miniature.folders import build_once
from ourvidz_miniature.sdxl import TINT, make_unet

SUBFOLDER = "sdxl_models"
WEIGHT = "ip-adapter_sdxl_vit-h.safetensors"
IMAGE_ENCODER = "models/image_encoder"

_VERSION = 1
"""Part of the folder's name: raise it with every change of what is built, here or in the UNet."""
_SEED = 3
_WIDTH = 32
"""The image encoder's width, and that of what it says of a picture."""
_TOKENS = 4
_BIAS = 4.0
"""A constant that is large beside any colour, so that the norms divide by about the same for all pictures."""
_STRENGTH = 0.008
"""How much colour each of the layers adds to the guessed noise."""
_TINTING = ("down_blocks.2.attentions.1.", "up_blocks.0.attentions.1.")
"""The attention blocks that see the colour; all others get random weights."""


def ensure_miniature_ip_adapter(cache_dir: Path) -> Path:
    """Return the folder that holds the adapter and its image encoder; build it if it is not there.

    Takes a second the first time. Several processes may do it at once.
    """
    return build_once(cache_dir, f"miniature-ip-adapter-{_VERSION}", build_miniature_ip_adapter)


def build_miniature_ip_adapter(folder: Path) -> None:
    """Write the adapter into `folder`, weights as safetensors. The same bytes each time, for one version of torch."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(_SEED)
        _make_image_encoder().save_pretrained(folder / IMAGE_ENCODER)
        unet = make_unet()
        width = unet.config.cross_attention_dim
        tensors = {f"image_proj.{name}": tensor for name, tensor in _make_projection(width).items()}
        # The attention layers are numbered as the UNet lists them, each second one attending to text.
        for number, name in enumerate(unet.attn_processors):
            if "attn2" in name:
                inner = unet.get_submodule(name.removesuffix(".processor")).inner_dim
                tensors[f"ip_adapter.{number}.to_k_ip.weight"] = nn.Linear(width, inner, bias=False).weight
                tensors[f"ip_adapter.{number}.to_v_ip.weight"] = _make_values(width, inner, name)
        (folder / SUBFOLDER).mkdir()
        save_file(tensors, folder / SUBFOLDER / WEIGHT)


def _make_image_encoder() -> CLIPVisionModelWithProjection:
    """Return an encoder whose first numbers are a picture's mean colour (red, green, blue, and their negatives)."""
    encoder = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=_WIDTH,
            intermediate_size=2 * _WIDTH,
            projection_dim=_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=224,
            patch_size=32,
        )
    )
    vision = encoder.vision_model
    vision.embeddings.class_embedding[:8] = 0
    vision.embeddings.position_embedding.weight[:, :8] = torch.tensor([*[0.0] * 6, _BIAS, -_BIAS])
    patch = vision.embeddings.patch_embedding.weight
    patch[:8] = 0
    patch[:6] = _signs()[:, :, None, None] / patch[0, 0].numel()
    for layer in vision.encoder.layers:
        attention = layer.self_attn
        # The mean over all patches, which the first layer brings to the token that stands for the picture.
        for projection in (attention.v_proj, attention.out_proj):
            projection.weight[:8] = 0
            projection.weight[:6, :6] = torch.eye(6)
        layer.mlp.fc2.weight[:8] = 0
    encoder.visual_projection.weight[:8] = 0
    encoder.visual_projection.weight[:8, :8] = torch.eye(8)
    return encoder


def _make_projection(width: int) -> dict[str, Tensor]:
    """Return what turns the encoder's numbers into tokens, each of which holds the mean colour first."""
    projection = nn.Linear(_WIDTH, _TOKENS * width)
    weight, bias = projection.weight.view(_TOKENS, width, _WIDTH), projection.bias.view(_TOKENS, width)
    weight[:, :8] = 0
    weight[:, :6, :6] = torch.eye(6)
    bias[:, :8] = torch.tensor([*[0.0] * 6, _BIAS, -_BIAS])
    return {
        "proj.weight": projection.weight,
        "proj.bias": projection.bias,
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }


def _make_values(width: int, inner: int, name: str) -> Tensor:
    """Return the values that an attention layer takes from a token."""
    values = nn.Linear(width, inner, bias=False).weight
    values[:3] = 0
    if name.startswith(_TINTING):
        values[:3, :6] = _STRENGTH / TINT * _signs().T
    return values


def _signs() -> Tensor:
    """Return what spreads a colour (3) over the first numbers (6): itself and its negative."""
    return torch.cat([torch.eye(3), -torch.eye(3)])
