"""Where a text that is too long is cut."""

from __future__ import annotations

import pytest

from ourvidz_enhancer.limits import Limits


def count_words(text: str) -> int:
    return len(text.split()) + 1


def cut(text: str, characters: int = 10_000, tokens: int = 10_000) -> str:
    limits = Limits(characters, tokens, count_words)
    shorter = limits.cut(text)
    assert limits.hold(shorter)
    assert text.startswith(shorter)
    return shorter


@pytest.mark.parametrize(
    ("text", "characters", "expected"),
    [
        ("One sentence is here. Another one starts", 30, "One sentence is here."),
        ("It costs 3.50 in Rome today and more", 12, "It costs"),
        ("一只猫坐在窗台上。阳光照在它的毛上", 12, "一只猫坐在窗台上。"),
        ("Short. Then a long sentence that goes on and on", 40, "Short. Then a long sentence that goes on"),
        ("一只猫坐在窗台上，阳光照在它的毛上", 12, "一只猫坐在窗台上"),
        ("a house, a tree and a river", 22, "a house, a tree and a"),
        ("Donaudampfschifffahrtsgesellschaft", 10, "Donaudampf"),
    ],
)
def test_a_text_is_cut_after_a_sentence_a_clause_or_a_word(text: str, characters: int, expected: str) -> None:
    assert cut(text, characters=characters) == expected


def test_a_text_is_cut_at_the_encoders_limit_its_end_token_included() -> None:
    assert cut("one two three four five six", tokens=5) == "one two three four"


def test_a_text_within_both_limits_holds() -> None:
    assert Limits(9, 4, count_words).hold("one two 3")
    assert not Limits(8, 4, count_words).hold("one two 3")
    assert not Limits(9, 3, count_words).hold("one two 3")
