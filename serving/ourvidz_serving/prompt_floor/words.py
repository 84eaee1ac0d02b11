"""The words of a text, and the ways in which each may be meant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

_WORD = re.compile(r"[a-z0-9]+")
_WORD_WITH_SIGNS = re.compile(r"[a-z0-9@$!|+*€£¢]+")
_SIGNS_AND_DIGITS = "0123456789@$!|+*€£¢"
# What stands for two letters is read both ways.
_DIGITS_AND_SIGNS = "013456789@$!|+€£¢"
_READ_AS = (
    str.maketrans(_DIGITS_AND_SIGNS, "oieasgtbgasiitelc"),
    str.maketrans(_DIGITS_AND_SIGNS, "oleasgtbgaslltelc"),
)
_VOWELS = "aeiou"

_LONG_RUN = re.compile(r"(.)\1{2,}")
_RUN = re.compile(r"(.)\1+")

_MAX_LETTERS = 40
"""Longer words are none; what they hold is looked for as in any text, but not read in several ways."""
_NARROW_GAPS = (" ", "-", "'", "’", "  ")
_MAX_GAP = 3
"""Characters that may stand between letters that are spaced apart."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word, where it stands in the folded text, and its spellings: as it stands, and as it may be meant."""

    start: int
    end: int
    spellings: tuple[str, ...]
    follows_closely: bool = False
    """Whether there is nothing but a blank or a hyphen between this word and the one before."""


def words_of(text: str) -> list[Word]:
    """Return the words of a folded text, in order."""
    words: list[Word] = []
    signed = _signed(text)
    end_before = 0
    for match in _WORD.finditer(text):
        start, end = match.span()
        spellings = _spellings(match[0])
        if start in signed:
            spellings += tuple(spelling for spelling in signed[start] if spelling not in spellings)
        closely = text[end_before:start] in _NARROW_GAPS
        words.append(Word(start, end, spellings, closely))
        end_before = end
    return words


def spaced_out(text: str, words: list[Word]) -> Iterator[Word]:
    """Yield what single letters make that stand apart ("w o r d", "w.o.r.d"): all in a row, and what wide gaps part."""
    row: list[Word] = []
    for word in [*words, Word(len(text) + _MAX_GAP + 1, len(text) + _MAX_GAP + 2, ())]:
        if row and (word.end - word.start > 1 or word.start - row[-1].end > _MAX_GAP):
            if len(row) > 2:
                yield from _rows(text, row)
            row = []
        if word.end - word.start == 1:
            row.append(word)


def _rows(text: str, row: list[Word]) -> Iterator[Word]:
    yield _joined(text, row)
    gaps = [after.start - before.end for before, after in pairwise(row)]
    narrow = min(gaps)
    if max(gaps) > narrow:
        part = [row[0]]
        for gap, word in zip(gaps, row[1:], strict=True):
            if gap > narrow:
                yield _joined(text, part)
                part = []
            part.append(word)
        yield _joined(text, part)


def _joined(text: str, row: list[Word]) -> Word:
    letters = "".join(text[word.start] for word in row)
    return Word(row[0].start, row[-1].end, _spellings(letters))


def _signed(text: str) -> dict[int, tuple[str, ...]]:
    """Return the spellings of words with signs for letters ("w@rd", "w*rd"), by where their first letter stands."""
    found: dict[int, tuple[str, ...]] = {}
    for match in _WORD_WITH_SIGNS.finditer(text):
        written = match[0].strip("!|+*")
        if written.isalnum() or len(written) > _MAX_LETTERS:
            continue
        first = _WORD.search(match[0])
        if first is None:
            continue
        if written.count("*") == 1:
            meant = tuple(written.replace("*", vowel) for vowel in _VOWELS)
        else:
            read = dict.fromkeys(written.translate(table) for table in _READ_AS)
            meant = tuple(dict.fromkeys(spelling for each in read for spelling in _spellings(each)))
        found[match.start() + first.start()] = meant
    return found


def _spellings(written: str) -> tuple[str, ...]:
    """Return a word as it stands first, then without digits around it, with letters for digits, and unstretched."""
    if len(written) > _MAX_LETTERS:
        return (written,)
    found = [written]
    if not written.isalpha() and not written.isdecimal():
        bare = written.strip(_SIGNS_AND_DIGITS)
        found += [bare, *(each.translate(table) for each in (written, bare) for table in _READ_AS)]
    if _RUN.search(written) or len(found) > 1:
        found += [
            shorter
            for each in tuple(found)
            for shorter in (_LONG_RUN.sub(r"\1", each), _LONG_RUN.sub(r"\1\1", each), _RUN.sub(r"\1", each))
        ]
    return tuple(dict.fromkeys(found))
