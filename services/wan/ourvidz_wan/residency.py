"""Which parts of the models are on the GPU, and which wait in main memory.

What the parts of Wan 2.1 1.3B weigh in bfloat16, the autoencoder in float32: text encoder 11.4 GB, text-to-video
transformer 2.8 GB, VACE transformer 4.3 GB, autoencoder 0.5 GB. Beside what a render itself needs, the most that is on
the GPU at once is so:

- both: 19.0 GB. Nothing is ever moved.
- swap: 16.2 GB. One transformer is there, the other one in main memory. A job of the other kind moves them, which takes
  as long as 7 GB over the bus: about a second.
- one: 11.9 GB. The text encoder makes room for the transformer, and that for the autoencoder, in every job.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import nn

Policy: TypeAlias = Literal["both", "swap", "one"]
Say: TypeAlias = Callable[[str], None]
"""Tells the user which part is being moved, in words."""

TEXT_ENCODER, TEXT_TRANSFORMER, VACE_TRANSFORMER = "text encoder", "text-to-video transformer", "VACE transformer"
_TRANSFORMERS = frozenset({TEXT_TRANSFORMER, VACE_TRANSFORMER})

ROOM_BYTES = 8 * 10**9
"""What must stay free for renders where both transformers are to be resident."""


class Residency:
    """Moves the large parts of the models as its policy says; small ones stay on the device for good."""

    def __init__(self, parts: dict[str, nn.Module], device: torch.device, policy: Policy) -> None:
        self._parts = parts
        self._device = device
        self._there: set[str] = set()
        self.policy = policy

    def fill(self, say: Say) -> None:
        """Move all that the policy lets stay on the device there; text-to-video is what is resident at first."""
        names = [TEXT_ENCODER, TEXT_TRANSFORMER] if self.policy != "one" else []
        for name in [*names, VACE_TRANSFORMER] if self.policy == "both" else names:
            self.need(name, say)

    def need(self, name: str, say: Say) -> bool:
        """Have a part on the device, and those that must make room for it off it; return whether any was moved."""
        leaving = [other for other in sorted(self._there - {name}) if self._makes_room(other, name)]
        for other in leaving:
            self._send_away(other, say)
        coming = name not in self._there
        if coming:
            say(f"{name} onto {self._device}")
            self._move(name, self._device)
            self._there.add(name)
        return coming or bool(leaving)

    def leave_room(self, say: Say) -> None:
        """Before the autoencoder is used: where one large part at a time is there, it needs none of them."""
        if self.policy == "one":
            for name in sorted(self._there):
                self._send_away(name, say)

    def _send_away(self, name: str, say: Say) -> None:
        say(f"{name} into main memory")
        self._move(name, torch.device("cpu"))
        self._there.remove(name)

    def _makes_room(self, other: str, name: str) -> bool:
        return self.policy == "one" or (self.policy == "swap" and {name, other} == _TRANSFORMERS)

    def _move(self, name: str, device: torch.device) -> None:
        self._parts[name].to(device)
        if device.type == "cpu" and self._device.type == "cuda":
            torch.cuda.empty_cache()


def choose_policy(setting: str, parts: dict[str, nn.Module], device: torch.device) -> Policy:
    """Return the policy of a setting; `auto` is both where the device has room for all parts and a render, else swap."""
    if setting != "auto":
        return "both" if setting == "both" else "swap"
    if device.type != "cuda":
        return "both"
    free, _ = torch.cuda.mem_get_info(device)
    weights = sum(tensor.nbytes for part in parts.values() for tensor in (*part.parameters(), *part.buffers()))
    return "both" if free >= weights + ROOM_BYTES else "swap"
