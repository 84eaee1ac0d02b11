"""The floor's rules: which groups of terms may not stand in one text, and how close they must stand."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from ourvidz_serving.prompt_floor import chinese, english
from ourvidz_serving.prompt_floor.ages import ages_under_18
from ourvidz_serving.prompt_floor.folding import fold
from ourvidz_serving.prompt_floor.lexicon import EXPLICIT, Group, Hit, Lexicon

NEAR = 60
"""Characters between two terms that belong together: some ten words."""

_LEXICON = Lexicon(
    english.TERMS,
    excused=english.EXCUSED,
    not_joined=english.NOT_JOINED,
    glued=english.GLUED,
    unspaced=chinese.TERMS,
)

# Not the full stop: it stands in numbers and between letters, too, and a sentence in a negative prompt is one item.
_ITEM_ENDS = re.compile(r"[,;|\n、;]")

_ADULTHOOD = re.compile(
    r"(?:adults?|an adult|(?:adult|grown|grown up) (?:woman|women|man|men|person|people|female|male)|grown ?ups?|"
    r"(?:over |age )?18\+?|over eighteen|成年|成年人|成人|大人)"
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a text says, as far as the terms tell. `text` is folded, and the hits' places are places in it."""

    text: str
    hits: Sequence[Hit]

    def of(self, *groups: Group) -> list[Hit]:
        """Return the hits of these groups, in order."""
        return [hit for hit in self.hits if hit.group in groups]


# The rules are put to a prompt one after the other, and each of them begins with this.
@lru_cache(maxsize=2)
def read(text: str) -> Reading:
    """Find the terms in a text."""
    folded = fold(text)
    ages = [Hit(Group.MINOR, start, end) for start, end in ages_under_18(folded)]
    hits = sorted([*_LEXICON.find(folded), *ages], key=lambda hit: hit.start)
    return Reading(folded, hits)


def floor_violation(prompt: str) -> str | None:
    """Return the name of the rule that a prompt breaks; None when it breaks none."""
    reading = read(prompt)
    if reading.of(Group.OUTRIGHT):
        return "outright"
    return _together(reading.hits)


def negative_floor_violation(negative_prompt: str, prompt: str) -> str | None:
    """Return the name of the rule that a negative prompt breaks, beside the prompt that it belongs to; None: none."""
    if not negative_prompt:
        return None
    reading = read(negative_prompt)
    for item in _items(reading):
        if rule := _together(item):
            return rule
    items = (" ".join(item.replace("-", " ").split()) for item in _ITEM_ENDS.split(reading.text))
    if any(_ADULTHOOD.fullmatch(item) for item in items) and read(prompt).of(*EXPLICIT):
        return "adults_excluded"
    return None


def _together(hits: Sequence[Hit]) -> str | None:
    """Return the rule that terms break by standing in one text."""
    minors = [hit for hit in hits if hit.group is Group.MINOR]
    perhaps = [hit for hit in hits if hit.group is Group.PERHAPS_MINOR]
    explicit = [hit for hit in hits if hit.group in EXPLICIT]
    suggestive = [hit for hit in hits if hit.group is Group.SUGGESTIVE]
    if minors and explicit:
        return "minor_explicit"
    if _near(minors, suggestive):
        return "minor_suggestive"
    if _near(perhaps, explicit):
        return "perhaps_minor_explicit"
    return None


def _near(some: Sequence[Hit], others: Sequence[Hit]) -> bool:
    """Whether one of these stands close to one of those. Both are in order, so neighbours in the order tell."""
    if not some or not others:
        return False
    ends = {True: -NEAR - 1, False: -NEAR - 1}
    for start, end, one_of_some in sorted(
        [*((hit.start, hit.end, True) for hit in some), *((hit.start, hit.end, False) for hit in others)]
    ):
        if start - ends[not one_of_some] <= NEAR:
            return True
        ends[one_of_some] = max(ends[one_of_some], end)
    return False


def _items(reading: Reading) -> list[list[Hit]]:
    """Return the hits item by item of a list."""
    ends = [match.start() for match in _ITEM_ENDS.finditer(reading.text)]
    items: dict[int, list[Hit]] = {}
    for hit in reading.hits:
        items.setdefault(bisect_right(ends, hit.start), []).append(hit)
    return list(items.values())
