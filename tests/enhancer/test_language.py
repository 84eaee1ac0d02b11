"""Which language a prompt is in."""

from __future__ import annotations

import pytest

from ourvidz_enhancer.language import language_of
from ourvidz_enhancer.task import Language


@pytest.mark.parametrize("prompt", ["雪中的红狐狸", "一只穿着Nike运动鞋的猫", "cyberpunk城市夜景,4K", "城市"])
def test_a_prompt_with_many_chinese_letters_is_chinese(prompt: str) -> None:
    assert language_of(prompt) is Language.CHINESE


@pytest.mark.parametrize(
    "prompt", ["a red fox", "a photo of 北京", "una mujer caminando", "Женщина идёт", "12345", "🦊", ""]
)
def test_any_other_prompt_counts_as_english(prompt: str) -> None:
    assert language_of(prompt) is Language.ENGLISH
