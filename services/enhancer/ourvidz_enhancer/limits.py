"""How long a new prompt may be, and where one that is longer is cut."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

_SENTENCE_END = re.compile(r"[。！？…]|[.!?](?=\s|$)")
_CLAUSE_END = re.compile(r"(?=[，、；：]|[,;:]?\s|$)")
_LEAST_SHARE = 0.5
"""A cut at a better place may cost this much of the text, and no more."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Both limits of a text."""

    max_character_count: int
    max_token_count: int
    count_tokens: Callable[[str], int]
    """Counts as the renderer's text encoder does, with its end token."""

    def hold(self, text: str) -> bool:
        """Return whether the text is within both limits."""
        return len(text) <= self.max_character_count and self.count_tokens(text) <= self.max_token_count

    def cut(self, text: str) -> str:
        """Return the beginning of a text that is too long: whole sentences, if they are at least half of what fits.

        Otherwise whole clauses or words, and where there are none, such as in a single long word, letters.
        """
        longest = text[: self._most_characters(text)]
        for end in (_SENTENCE_END, _CLAUSE_END):
            # In the whole text: what follows tells whether a full stop is one, and whether a word is whole.
            places = [place for match in end.finditer(text) if (place := match.end()) <= len(longest)]
            if places and places[-1] >= _LEAST_SHARE * len(longest):
                shorter = longest[: places[-1]].rstrip()
                # A tokenizer may take a shorter text apart into more tokens, if hardly ever.
                if self.hold(shorter):
                    return shorter
        return longest.rstrip()

    def _most_characters(self, text: str) -> int:
        """Return a number of characters that fit, by halving: one more may not."""
        fits, too_many = 0, min(len(text), self.max_character_count) + 1
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            if self.hold(text[:middle]):
                fits = middle
            else:
                too_many = middle
        return fits
