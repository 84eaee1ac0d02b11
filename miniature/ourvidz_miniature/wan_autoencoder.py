"""The miniature Wan's autoencoder, written down instead of trained.

It keeps the mean colour of each cell of 32×32 pixels and four frames, and paints between cells without edges, so that a
picture that is encoded and decoded keeps its colours and loses its detail. Through all its layers the first channels
are red, green, blue and a constant; where there is room for them, the negative colours follow, since
silu(x) - silu(-x) = x takes a colour through the activation unchanged. The constant is what the layers' norms measure by.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor, nn

LATENT_CHANNELS = 3
SCALE = 32
"""Pixels a side of a latent's cell."""
LATENTS_MEAN = (0.1, -0.05, 0.2)
LATENTS_STD = (0.5, 0.5, 0.5)

_PATCH = 8
_WIDTH = 8
_CONSTANT = 4.0
_GRAIN = 0.04
"""How much of the residual branches' random weights is left, 0 to 1."""
_COLOURS = [0, 1, 2, 4, 5, 6]
"""The channels of red, green and blue, then those of their negatives; channel 3 is the constant."""


@torch.no_grad()
def make_autoencoder(turn: Tensor) -> AutoencoderKLWan:
    """Return the autoencoder; its random parts are drawn from torch's global generator.

    `turn` is the rotation (3×3) by which the latents' channels are mixed from the colours.
    """
    autoencoder = AutoencoderKLWan(
        base_dim=_WIDTH,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 1, 1],
        num_res_blocks=1,
        # The encoder reads the first two and the decoder the last two: both halve time twice. VACE's pipeline derives the
        # factors from the length, 2⁵ for space, and from the sum, 2² for time; it knows of no patches.
        temperal_downsample=[1, 1, -2, 1, 1],
        latents_mean=list(LATENTS_MEAN),
        latents_std=list(LATENTS_STD),
        in_channels=3 * _PATCH**2,
        out_channels=3 * _PATCH**2,
        patch_size=_PATCH,
        scale_factor_temporal=4,
        scale_factor_spatial=SCALE,
    )
    _keep_colours(autoencoder)
    _write_encoder(autoencoder, turn)
    _write_decoder(autoencoder, turn)
    _keep_gray(autoencoder)
    return autoencoder


def _keep_colours(autoencoder: AutoencoderKLWan) -> None:
    """Let every block pass on what it is given, with a little of its own."""
    for module in autoencoder.modules():
        kind = type(module).__name__
        if kind == "WanResidualBlock":
            module.conv2.weight.mul_(_GRAIN)
            module.conv2.bias.zero_()
        elif kind == "WanAttentionBlock":
            module.proj.weight.mul_(_GRAIN)
            module.proj.bias.zero_()


def _keep_gray(autoencoder: AutoencoderKLWan) -> None:
    """Take back what the random weights add to gray: VACE fills up with it what is not given, and it must say nothing."""
    gray = torch.zeros(1, 3, 9, 5 * SCALE, 5 * SCALE)
    latents = autoencoder.encode(gray).latent_dist.mode()[0, :, -1, 2, 2]
    autoencoder.quant_conv.bias[:LATENT_CHANNELS] -= latents - torch.tensor(LATENTS_MEAN)


def _write_encoder(autoencoder: AutoencoderKLWan, turn: Tensor) -> None:
    encoder = autoencoder.encoder
    to_mean = torch.eye(3).repeat_interleave(_PATCH**2, dim=1) / _PATCH**2
    _write(encoder.conv_in, {(2, 1, 1): _rows(_COLOURS, torch.cat([to_mean, -to_mean]))})
    encoder.conv_in.bias[3] = _CONSTANT
    for layer in encoder.down_blocks:
        if type(layer).__name__ == "WanResample":
            same = torch.eye(_WIDTH)
            _write(layer.resample[1], {(y, x): same / 4 for y in (0, 1) for x in (0, 1)})
            _write(layer.time_conv, {(1, 0, 0): same / 2, (2, 0, 0): same / 2})
    # What is encoded is the mean; the variance, exp(-10), plays no part where the mean is asked for.
    _write(encoder.conv_out, {(2, 1, 1): _out_of_activation(turn, rows=2 * LATENT_CHANNELS)})
    encoder.conv_out.bias[:LATENT_CHANNELS] = torch.tensor(LATENTS_MEAN)
    encoder.conv_out.bias[LATENT_CHANNELS:] = -10.0
    _write(autoencoder.quant_conv, {(0, 0, 0): torch.eye(2 * LATENT_CHANNELS)})


def _write_decoder(autoencoder: AutoencoderKLWan, turn: Tensor) -> None:
    decoder = autoencoder.decoder
    _write(autoencoder.post_quant_conv, {(0, 0, 0): torch.eye(LATENT_CHANNELS)})
    autoencoder.post_quant_conv.bias[:] = -torch.tensor(LATENTS_MEAN)
    _write(decoder.conv_in, {(2, 1, 1): _rows(_COLOURS, torch.cat([turn.T, -turn.T]))})
    decoder.conv_in.bias[3] = _CONSTANT
    for block in decoder.up_blocks:
        _write_shortcut(block.resnets[0].conv_shortcut)
        for upsampler in block.upsamplers or []:
            # Half of the channels go on: the colours and the constant. Blurred, where doubling the size left edges.
            half = torch.eye(_WIDTH // 2, _WIDTH)
            row = (0.25, 0.5, 0.25)
            _write(upsampler.resample[1], {(y, x): half * row[y] * row[x] for y in range(3) for x in range(3)})
            # Each frame becomes two: one on the way to it, and itself.
            same, none = torch.eye(_WIDTH), torch.zeros(_WIDTH, _WIDTH)
            _write(
                upsampler.time_conv,
                {(1, 0, 0): torch.cat([same / 4, none]), (2, 0, 0): torch.cat([same * 3 / 4, same])},
            )
    colours = _out_of_activation(torch.eye(3), rows=3)
    taps: dict[tuple[int, ...], Tensor] = {
        (2, 1 + y, 1 + x): torch.cat([colours[c : c + 1] * _share(b, y) * _share(a, x) for c, a, b in _patch_order()])
        for y in (-1, 0, 1)
        for x in (-1, 0, 1)
    }
    _write(decoder.conv_out, taps)


def _write(convolution: Any, taps: Mapping[tuple[int, ...], Tensor]) -> None:
    """Make a convolution do nothing but what `taps` say: for places in its kernel, outputs × inputs."""
    convolution.weight.zero_()
    convolution.bias.zero_()
    for place, weights in taps.items():
        convolution.weight[(slice(None), slice(None), *place)] = weights


def _write_shortcut(shortcut: nn.Module) -> None:
    """Add the negative colours to what comes from a layer that had no room for them."""
    if isinstance(shortcut, nn.Conv3d):
        half = torch.eye(_WIDTH // 2)
        negative = -half.clone()
        negative[3] = 0
        _write(shortcut, {(0, 0, 0): torch.cat([half, negative])})


def _rows(channels: list[int], weights: Tensor) -> Tensor:
    """Return a layer's weights (its width × inputs) in which only some channels have any."""
    all_rows = torch.zeros(_WIDTH, weights.shape[1])
    all_rows[channels] = weights
    return all_rows


def _out_of_activation(colours: Tensor, *, rows: int) -> Tensor:
    """Return weights (rows × width) that mix `colours` (n × 3) out of a layer's channels, normed and activated."""
    weights = torch.zeros(rows, _WIDTH)
    # A norm makes the mean square of all channels 1, of which the constant is nearly all there is.
    gain = _CONSTANT / _WIDTH**0.5
    weights[: len(colours), _COLOURS] = torch.cat([colours, -colours], dim=1) * gain
    return weights


def _patch_order() -> list[tuple[int, int, int]]:
    """Return colour, column and row within a patch, for each of the channels that a patch is unfolded from."""
    return [(c, a, b) for c in range(3) for a in range(_PATCH) for b in range(_PATCH)]


def _share(place: int, neighbour: int) -> float:
    """Return how much of a neighbour (-1, 0, 1) is in a patch's pixel: linear between the patches' centres."""
    offset = (place + 0.5) / _PATCH - 0.5
    return 1 - abs(offset) if neighbour == 0 else max(0.0, offset * neighbour)
