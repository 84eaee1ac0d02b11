"""Which of the two languages a prompt is in."""

from __future__ import annotations

import re

from ourvidz_enhancer.task import Language

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]")

_HAN_SHARE = 0.25
"""A Chinese word takes fewer letters than one of another language, so that less than half of them already tells."""


def language_of(prompt: str) -> Language:
    """Return Chinese if a good part of the prompt's letters are, else English: any other language is left to it."""
    letters = sum(character.isalpha() for character in prompt)
    return Language.CHINESE if len(_HAN.findall(prompt)) > _HAN_SHARE * letters else Language.ENGLISH
