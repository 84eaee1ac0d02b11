"""A text as it grows from tokens."""

from __future__ import annotations

import itertools

from ourvidz_enhancer.frame import Frame
from ourvidz_enhancer.writing import Writing

FEW_SHOT = Frame(lambda prompt: prompt, "", labels=("Prompt:", "Text:"), one_line=True)
CHAT = Frame(lambda prompt: prompt, "", labels=(), one_line=False)


def grow(frame: Frame, *parts: str | bytes) -> list[str]:
    """Return what may be shown after each part, until the text has ended; each token stands for one part."""
    encoded = [part if isinstance(part, bytes) else part.encode() for part in parts]
    writing = Writing(frame, lambda tokens: b"".join(encoded[token] for token in tokens).decode(errors="replace"))
    shown = []
    for token in range(len(parts)):
        writing.add(token)
        shown.append(writing.text)
        if writing.ended:
            break
    else:
        writing.end()
        shown.append(writing.text)
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(shown))
    return shown


def test_a_letter_is_shown_when_all_its_bytes_are_there() -> None:
    fox = "🦊".encode()
    assert grow(CHAT, "a ", fox[:1], fox[1:3], fox[3:], "!") == ["a", "a", "a", "a 🦊", "a 🦊!", "a 🦊!"]


def test_bytes_that_never_become_a_letter_are_left_out() -> None:
    assert grow(CHAT, "a", b"\xe4", "b") == ["a", "a", "ab", "ab"]


def test_white_space_and_control_characters_become_single_spaces() -> None:
    assert grow(CHAT, " \n", "One.", "\n\n", "Two\x00", "\ttoo. ")[-1] == "One. Two too."


def test_a_line_break_ends_a_few_shot_text_once_it_has_begun() -> None:
    assert grow(FEW_SHOT, "\n", " A fox.\n\n", "Prompt") == ["", "A fox."]


def test_a_label_ends_a_few_shot_text_and_no_part_of_it_is_ever_shown() -> None:
    assert grow(FEW_SHOT, "A fox. ", "Pro", "mpt", ": a dog") == ["A fox.", "A fox.", "A fox.", "A fox."]


def test_what_only_looks_like_a_label_is_shown_in_the_end() -> None:
    assert grow(FEW_SHOT, "A Pro", "m", "enade at T") == ["A", "A", "A Promenade at", "A Promenade at T"]


def test_a_chat_may_have_several_lines() -> None:
    assert grow(CHAT, "A fox.\n", "Text: a dog.")[-1] == "A fox. Text: a dog."
