"""The miniature Wan's transformers, in part random and in part written down.

Written down is what makes an untrained network draw soft fields instead of grain. A token's 24 channels stand for:

- noise: the token's colour with noise, as it comes in;
- smooth: its mean over the neighbourhood, less the mean over the clip, as two self-attentions take them;
- text: a colour that cross-attention takes from the words; where `smooth` points decides which words a place looks at;
- reference, presence: what VACE's hints add: the colour to be drawn, and how much there is of it, which turns
  cross-attention away from the words;
- level: two constants by which the layer norms measure.

The velocity is `noise` minus the colours wanted, so that each step goes towards them. All else is small and random.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import WanTransformer3DModel, WanVACETransformer3DModel
from torch import Tensor, nn

from ourvidz_miniature.wan_autoencoder import LATENT_CHANNELS, SCALE

_WIDTH = 24
_NOISE, _SMOOTH, _TEXT, _REFERENCE = slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 12)
_PRESENCE, _LEVEL = 12, slice(13, 15)
_LEVEL_SIZE = 6.0
_NORM = (2 * _LEVEL_SIZE**2 + 3) ** 0.5 / _WIDTH**0.5
"""What a layer norm divides by, roughly: the two levels, and three channels of unit noise."""
_RANDOM = 0.05
"""How much of the random weights is left, 0 to 1."""
_PULL = 3.5
"""How strongly the velocity leads to the colours wanted: of the noise, exp(-3.5) is left in the end."""
_TEXT_GAIN = 0.35
_REFERENCE_GAIN = 0.8
_REACH = 3.9
"""How narrow self-attention looks: at 3.9, about two tokens and three latent frames far."""
_SHARPNESS = 2.0
"""How much a place prefers one word to the others."""


@torch.no_grad()
def make_transformer(turn: Tensor, text_width: int) -> WanTransformer3DModel:
    """Return the text-to-video transformer; its random parts are drawn from torch's global generator."""
    transformer = WanTransformer3DModel(**_config(text_width))
    _quieten(transformer.blocks)
    _quieten(transformer.condition_embedder.time_proj)
    first, second = transformer.blocks
    _look_around(first.attn1, _REACH)
    _look_around(second.attn1, 0.0)
    for block in (first, second):
        _open_gates(block)
        _take(block.attn2, _TEXT, torch.zeros(3, _WIDTH))
    _write_embedding(transformer, turn)
    _take(first.attn1, _SMOOTH, _columns(_NOISE, torch.eye(3)) * _NORM)
    _take(second.attn1, _SMOOTH, _columns(_SMOOTH, -torch.eye(3)) * _NORM)
    _read_words(second.attn2)
    _write_velocity(transformer, turn)
    return transformer


@torch.no_grad()
def make_vace_transformer(turn: Tensor, text_width: int) -> WanVACETransformer3DModel:
    """Return the transformer that follows given frames: the other one, drawn first as it is there, with hints added."""
    base = make_transformer(turn, text_width)
    transformer = WanVACETransformer3DModel(
        **_config(text_width), vace_layers=[0], vace_in_channels=2 * LATENT_CHANNELS + SCALE**2
    )
    transformer.load_state_dict(base.state_dict(), strict=False)
    _write_hints(transformer, turn)
    return transformer


def _config(text_width: int) -> dict[str, Any]:
    return {
        "patch_size": (1, 1, 1),
        "num_attention_heads": 1,
        "attention_head_dim": _WIDTH,
        "in_channels": LATENT_CHANNELS,
        "out_channels": LATENT_CHANNELS,
        "text_dim": text_width,
        "freq_dim": 32,
        "ffn_dim": 2 * _WIDTH,
        "num_layers": 2,
        "rope_max_seq_len": 1024,
    }


def _quieten(network: nn.Module) -> None:
    """Leave little of the random weights."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            module.weight.mul_(_RANDOM)
            module.bias.mul_(_RANDOM)


def _open_gates(block: Any) -> None:
    """Set what a block adds to time's influence: shift, scale and gate of its attention, then of its feed-forward."""
    block.scale_shift_table[:] = torch.tensor([0.0, 0, 1, 0, 0, 1])[None, :, None]


def _write_embedding(transformer: Any, turn: Tensor) -> None:
    patches = transformer.patch_embedding
    patches.weight.zero_()
    patches.bias.zero_()
    patches.weight[_NOISE] = turn.T[:, :, None, None, None]
    patches.bias[_LEVEL] = torch.tensor([_LEVEL_SIZE, -_LEVEL_SIZE])
    time = transformer.condition_embedder.time_embedder.linear_2
    time.weight.mul_(_RANDOM)
    time.bias.zero_()
    words = transformer.condition_embedder.text_embedder
    words.linear_1.weight.normal_(std=2 / words.linear_1.in_features**0.5)
    words.linear_1.bias.zero_()
    words.linear_2.weight.normal_(std=1 / _WIDTH**0.5)
    words.linear_2.bias.zero_()
    # The activation makes zeros, which prompts are filled up with, of zeros alone: the last channel tells words from them.
    words.linear_2.weight[-1] = 3 / _WIDTH


def _look_around(attention: Any, reach: float) -> None:
    """Let self-attention weigh tokens by their distance alone: the same query and key everywhere, turned by place.

    With a `reach` of 0 all tokens of the clip weigh the same.
    """
    for projection, norm in ((attention.to_q, attention.norm_q), (attention.to_k, attention.norm_k)):
        projection.weight.zero_()
        projection.bias.zero_()
        # Of each axis's frequencies (8 channels, in pairs), the second: 0.1 a token, which no size of ours wraps around.
        projection.bias[[2, 10, 18]] = torch.tensor([0.7, 1.0, 1.0])
        norm.weight.fill_(reach)


def _read_words(attention: Any) -> None:
    """Let cross-attention choose words by the direction of `smooth`, and none where a reference is present."""
    query, key = attention.to_q, attention.to_k
    query.weight.zero_()
    query.bias.zero_()
    query.weight[:-1, _SMOOTH] = torch.randn(_WIDTH - 1, 3) * 12
    query.bias[-1] = 4.0
    query.weight[-1, _PRESENCE] = -25.0
    key.weight.normal_(std=1 / _WIDTH**0.5)
    key.bias.zero_()
    key.weight[:-1, -1] = 0
    key.weight[-1] = torch.eye(_WIDTH)[-1] * 2
    for norm in (attention.norm_q, attention.norm_k):
        norm.weight.fill_(_SHARPNESS)
    words = torch.randn(3, _WIDTH) / _WIDTH**0.5
    words[:, -1] = 0
    _take(attention, _TEXT, words)


def _take(attention: Any, into: slice, values: Tensor) -> None:
    """Let an attention add the mean of `values` (channels × inputs) to the channels `into`."""
    count = len(values)
    attention.to_v.weight.zero_()
    attention.to_v.weight[:count] = values
    attention.to_v.bias.zero_()
    attention.to_out[0].weight[:, :count] = 0
    attention.to_out[0].weight[into, :count] = torch.eye(count)
    attention.to_out[0].bias.zero_()


def _columns(channels: slice, weights: Tensor) -> Tensor:
    """Return weights (outputs × width) that read some channels alone."""
    wide = torch.zeros(len(weights), _WIDTH)
    wide[:, channels] = weights
    return wide


def _write_velocity(transformer: Any, turn: Tensor) -> None:
    transformer.scale_shift_table.zero_()
    out = transformer.proj_out
    out.weight.zero_()
    out.bias.zero_()
    out.weight[:, _NOISE] = turn
    out.weight[:, _TEXT] = -_TEXT_GAIN * turn
    out.weight[:, _REFERENCE] = -_REFERENCE_GAIN * turn
    out.weight.mul_(_PULL * _NORM)


def _write_hints(transformer: Any, turn: Tensor) -> None:
    """Let the hints be the reference's colours, a little of them also around it, and that there is one."""
    [block] = transformer.vace_blocks
    _quieten(block)
    _open_gates(block)
    _look_around(block.attn1, _REACH)
    _take(block.attn1, _REFERENCE, _columns(_REFERENCE, torch.eye(3)) * _NORM)
    _take(block.attn2, _TEXT, torch.zeros(3, _WIDTH))

    # What is to be kept, what is to be replaced, and which is which: 3, 3 and 1024 channels.
    patches = transformer.vace_patch_embedding
    patches.weight.mul_(_RANDOM)
    patches.bias.zero_()
    patches.weight[:, :LATENT_CHANNELS] = 0
    patches.weight[_REFERENCE, :LATENT_CHANNELS] = turn.T[:, :, None, None, None]
    mask = patches.weight[:, 2 * LATENT_CHANNELS :]
    mask[:] = 0
    mask[_PRESENCE] = -0.2 / SCALE**2
    patches.bias[_PRESENCE] = 0.2
    block.proj_in.weight.copy_(torch.eye(_WIDTH))
    block.proj_in.bias.zero_()

    # gelu(x) + gelu(-x) is nearly |x|.
    inner, outer = block.ffn.net[0].proj, block.ffn.net[2]
    inner.bias.zero_()
    outer.bias.zero_()
    inner.weight[:6] = _columns(_REFERENCE, torch.cat([torch.eye(3), -torch.eye(3)])) * 3 * _NORM
    outer.weight[:, :6] = 0
    outer.weight[_PRESENCE, :6] = 0.2
    block.proj_out.weight.zero_()
    block.proj_out.bias.zero_()
    shown = [*range(9, 12), _PRESENCE]
    block.proj_out.weight[shown, shown] = 1.0
