"""Which token comes next."""

from __future__ import annotations

import torch


class Sampler:
    """Chooses the tokens of one text, one after the other.

    It chooses on the CPU, whatever the model runs on, so that a seed means the same choices on every device.
    """

    def __init__(
        self, seed: int | None, *, temperature: float, top_k: int, top_p: float, repetition_penalty: float
    ) -> None:
        """Without a seed the likeliest token is taken each time, and only the repetition penalty counts."""
        self._generator = None if seed is None else torch.Generator("cpu").manual_seed(seed)
        self._temperature = temperature
        self._top_k = top_k
        self._top_p = top_p
        self._penalty = repetition_penalty

    def choose(self, logits: torch.Tensor, written: list[int]) -> int:
        """Return the next token, given the model's logits for it (one per token) and the tokens `written` so far.

        The penalty is for what the model wrote itself: the words of the prompt and of the examples stay likely.
        """
        logits = logits.float()
        if written and self._penalty != 1.0:
            tokens = torch.tensor(sorted(set(written)), device=logits.device)
            scores = logits[tokens]
            logits[tokens] = torch.where(scores > 0, scores / self._penalty, scores * self._penalty)
        if self._generator is None:
            return int(logits.argmax())
        scores, tokens = logits.topk(min(self._top_k, len(logits)))
        probabilities = torch.softmax(scores.cpu() / self._temperature, dim=0)
        # The one that reaches the sum is kept: a token goes if those before it have reached it already.
        before = probabilities.cumsum(0) - probabilities
        probabilities[before >= self._top_p] = 0.0
        return int(tokens[torch.multinomial(probabilities, 1, generator=self._generator)])
