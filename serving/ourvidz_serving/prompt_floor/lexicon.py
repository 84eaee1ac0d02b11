"""A table of terms in groups, and where a text has them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from ourvidz_serving.prompt_floor.words import Word, spaced_out, words_of


class Group(StrEnum):
    """What a term says."""

    OUTRIGHT = "outright"
    """What has no other meaning than the sexualising of minors."""
    MINOR = "minor"
    """Somebody under 18."""
    PERHAPS_MINOR = "perhaps_minor"
    """Somebody who may be under 18 or not: what stands close to it decides."""
    SEX = "sex"
    """Sexual acts, and pictures that are made to arouse."""
    NUDITY = "nudity"
    ANATOMY = "anatomy"
    """Sexual parts of the body."""
    SUGGESTIVE = "suggestive"
    """What is harmless by itself, and not of a child."""


EXPLICIT = (Group.SEX, Group.NUDITY, Group.ANATOMY)


@dataclass(frozen=True, slots=True)
class Hit:
    """A term that stands in a folded text."""

    group: Group
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Guarded:
    """A term of a language without blanks, and the neighbours with which it is part of something else."""

    term: str
    not_after: str = ""
    """Single characters."""
    not_before: Sequence[str] = ()


class Lexicon:
    """Terms in groups; made once, since it compiles them.

    `spaced` are the terms of English. A term is a word, or several words in a row; a plural in -s comes by itself, and
    a word that ends in `*` stands for all that begin so. `excused` are phrases whose words in brackets do not count.
    `unspaced` are the terms of Chinese. `not_joined` are pairs of words that are no spaced-out term.
    """

    def __init__(
        self,
        spaced: Mapping[Group, str],
        *,
        excused: str,
        not_joined: str,
        glued: str,
        unspaced: Mapping[Group, Sequence[str | Guarded]],
    ) -> None:
        self._words: dict[str, list[Group]] = {}
        self._prefixes: dict[str, Group] = {}
        self._phrases: dict[str, list[tuple[tuple[str, ...], Group]]] = {}
        for group, terms in spaced.items():
            for term in _listed(terms):
                self._add(term, group)
        self._prefix_lengths = sorted({len(prefix) for prefix in self._prefixes})
        self._excused: dict[str, list[list[tuple[str, bool]]]] = {}
        for phrase in _listed(excused):
            read = [(word.strip("[]"), word.startswith("[")) for word in phrase.split()]
            self._excused.setdefault(read[0][0], []).append(read)
        self._not_joined = {tuple(pair.split()) for pair in _listed(not_joined)}
        self._glued = re.compile("|".join(sorted(_listed(glued), key=len, reverse=True)))
        self._unspaced = [(group, _pattern(terms)) for group, terms in unspaced.items()]

    def find(self, text: str) -> list[Hit]:
        """Return where a folded text has terms, in order of their first character; in linear time."""
        words = words_of(text)
        excused = self._find_excused(words)
        hits = [*self._find_words(words, excused), *self._find_joined(text, words, excused), *self._find_unspaced(text)]
        return sorted(set(hits), key=lambda hit: (hit.start, hit.end))

    def _add(self, term: str, group: Group) -> None:
        if term.endswith("*"):
            term = term[:-1]
            self._prefixes[term] = group
        for form in (term, f"{term}s"):
            first, *rest = form.split()
            if rest:
                self._phrases.setdefault(first, []).append((tuple(rest), group))
            else:
                self._words.setdefault(form, []).append(group)

    def _find_words(self, words: Sequence[Word], excused: set[int]) -> Iterator[Hit]:
        for place, word in enumerate(words):
            if place in excused:
                continue
            for spelling in word.spellings:
                for group in self._groups(spelling):
                    yield Hit(group, word.start, word.end)
                for rest, group in self._phrases.get(spelling, ()):
                    if _goes_on(words, place + 1, rest):
                        yield Hit(group, word.start, words[place + len(rest)].end)

    def _groups(self, spelling: str) -> Iterator[Group]:
        yield from self._words.get(spelling, ())
        for length in self._prefix_lengths:
            if group := self._prefixes.get(spelling[:length]):
                yield group

    def _find_joined(self, text: str, words: Sequence[Word], excused: set[int]) -> Iterator[Hit]:
        """Find terms whose letters stand apart, that are broken in two, or that are written in one with another."""
        for row in spaced_out(text, list(words)):
            yield from self._find_in_one(row, whole=True)
        for word in words:
            yield from self._find_in_one(word, whole=False)
        for place, (before, after) in enumerate(pairwise(words)):
            first, second = before.spellings[0], after.spellings[0]
            if (
                after.start - before.end == 1
                and excused.isdisjoint((place, place + 1))
                and 4 <= len(first) + len(second) <= 16
                and (first, second) not in self._not_joined
            ):
                for group in self._words.get(first + second, ()):
                    yield Hit(group, before.start, after.end)

    def _find_in_one(self, word: Word, *, whole: bool) -> Iterator[Hit]:
        """Find the terms that one word holds; `whole` says that it may be a term itself, too.

        Inside of a word, only a term that fills it together with another, or a long one that no word holds by chance.
        """
        for spelling in word.spellings:
            if whole:
                yield from (Hit(group, word.start, word.end) for group in self._groups(spelling))
            if 6 <= len(spelling) <= 30:
                for cut in range(3, len(spelling) - 2):
                    first, second = self._words.get(spelling[:cut]), self._words.get(spelling[cut:])
                    if first and second:
                        yield from (Hit(group, word.start, word.end) for group in (*first, *second))
            if len(spelling) >= 8:
                groups = {group for match in self._glued.finditer(spelling) for group in self._words[match[0]]}
                # "nineteen" and "childproof" hold one by chance, but nothing holds a minor and something explicit.
                if whole or (Group.MINOR in groups and not groups.isdisjoint(EXPLICIT)):
                    yield from (Hit(group, word.start, word.end) for group in groups)

    def _find_unspaced(self, text: str) -> Iterator[Hit]:
        if _CHINESE.search(text):
            for group, pattern in self._unspaced:
                yield from (Hit(group, *match.span()) for match in pattern.finditer(text))

    def _find_excused(self, words: Sequence[Word]) -> set[int]:
        """Return the places of words that do not count."""
        return {
            place + step
            for place, word in enumerate(words)
            for phrase in self._excused.get(word.spellings[0], ())
            if _goes_on(words, place + 1, [each for each, _ in phrase[1:]], closely=True)
            for step, (_, in_brackets) in enumerate(phrase)
            if in_brackets
        }


def _listed(terms: str) -> Iterable[str]:
    return filter(None, (" ".join(term.split()) for term in terms.split(",")))


def _goes_on(words: Sequence[Word], place: int, rest: Sequence[str], *, closely: bool = False) -> bool:
    """Whether the words from a place on are these."""
    following = words[place : place + len(rest)]
    return len(following) == len(rest) and all(
        wanted in word.spellings and (word.follows_closely or not closely)
        for word, wanted in zip(following, rest, strict=True)
    )


_CHINESE = re.compile(r"[\u4e00-\u9fff]")

_BETWEEN = r"[\s.·・*_~|-]{0,2}"
"""What may stand between the characters of a Chinese term."""


def _pattern(terms: Sequence[str | Guarded]) -> re.Pattern[str]:
    return re.compile("|".join(_alternative(term) for term in terms))


def _alternative(term: str | Guarded) -> str:
    if isinstance(term, str):
        term = Guarded(term)
    before = f"(?<![{term.not_after}])" if term.not_after else ""
    after = f"(?!{'|'.join(term.not_before)})" if term.not_before else ""
    return before + _BETWEEN.join(term.term) + after
