"""The miniature family's byte-level vocabulary: every UTF-8 text can be written in it, common words are one token."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

START = "<|startoftext|>"
END = "<|endoftext|>"

_WORD_END = "</w>"

_WORDS = """
a an the of in on at by with and or to from for over under near into through no not very
red green blue yellow orange purple violet pink brown black white grey gold golden silver teal crimson turquoise
dark light bright pale deep warm cold soft sharp vivid muted wet dry old young new small big large tiny giant tall
photo photograph picture image painting drawing sketch watercolor oil portrait landscape render illustration poster
style art artist detailed detail realistic abstract cinematic film studio light lighting shadow shadows background
close up wide angle lens focus blur depth field quality high low best masterpiece sharp focus bokeh macro
sun moon sky star stars cloud clouds rain snow storm fog mist wind fire water ice sea ocean river lake wave waves
mountain mountains hill hills valley forest tree trees flower flowers grass field garden desert island beach sand rock
city street road bridge house houses castle tower church window door room kitchen table chair lamp wall roof harbour
cat dog horse bird fish fox wolf bear lion tiger deer rabbit owl crow butterfly bee dragon robot
man woman girl boy child people person face eyes hair hand hands smile dress coat hat king queen knight
car train boat ship plane bicycle lighthouse clock book cup glass bottle bread apple lemon tea coffee
night day morning evening sunset sunrise dawn dusk spring summer autumn winter
sitting standing walking running flying sleeping looking holding wearing playing
one two three four five many few single double
ugly blurry bad worst noise text watermark logo frame cropped
"""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a byte-pair encoder needs."""

    ids: dict[str, int]
    """Each token's number, from 0 without a gap; START and END are the last two."""
    merges: list[tuple[str, str]]
    """Which neighbours become one token, in the order in which they are tried."""


def make_vocabulary() -> Vocabulary:
    """Return the vocabulary: 256 bytes, the same at a word's end, what the merges make, and the two special tokens."""
    merges = _learn_merges(_WORDS.split())
    letters = byte_letters()
    tokens = [*letters, *(letter + _WORD_END for letter in letters), *dict.fromkeys(a + b for a, b in merges)]
    return Vocabulary({token: number for number, token in enumerate([*tokens, START, END])}, merges)


def byte_letters() -> list[str]:
    """Return the printable letter that stands for each byte, by number of the byte.

    It is the convention of all byte-level encoders: a byte that is a printable Latin-1 character stands for itself, the
    others are numbered from U+0100.
    """
    own = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in own else chr(next(others)) for byte in range(256)]


def _learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Return the merges that make one token of each ASCII word.

    A word is first put together as the merges so far do it, and new ones come after them, so that no later word takes
    an earlier one apart.
    """
    ranks: dict[tuple[str, str], int] = {}
    for word in words:
        parts = [*word[:-1], word[-1] + _WORD_END]
        while len(parts) > 1:
            pairs = list(pairwise(parts))
            known = [pair for pair in pairs if pair in ranks]
            best = min(known, key=ranks.__getitem__) if known else pairs[0]
            ranks.setdefault(best, len(ranks))
            parts = _merge(parts, best)
    return list(ranks)


def _merge(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """Return the parts with each occurrence of the pair made one, from left to right."""
    merged: list[str] = []
    for part in parts:
        if merged and (merged[-1], part) == pair:
            merged[-1] += part
        else:
            merged.append(part)
    return merged
