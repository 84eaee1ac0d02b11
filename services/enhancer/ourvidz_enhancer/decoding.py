"""Runs the language model: it reads a text bit by bit, and says each time what comes next."""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import DynamicCache


class Decoder:
    """One text that a model reads: each token goes in once, and what the model made of it is kept."""

    def __init__(self, network: Any) -> None:
        self._network = network
        self._cache = DynamicCache(config=network.config)

    def read(self, tokens: list[int]) -> torch.Tensor:
        """Read more of the text, at least one token; return the logits of the next one, one per token there is."""
        inputs = torch.tensor([tokens], device=self._network.device)
        output = self._network(input_ids=inputs, cache=self._cache, use_cache=True, logits_to_keep=1)
        logits: torch.Tensor = output.logits[0, -1]
        return logits

    def fork(self) -> Decoder:
        """Return a decoder that has read the same, and goes on by itself."""
        fork = copy.copy(self)
        fork._cache = copy.deepcopy(self._cache)  # noqa: SLF001  # one of its own kind
        return fork
