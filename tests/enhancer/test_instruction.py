"""The operator's instruction file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ourvidz_enhancer.instruction import read_instruction
from ourvidz_enhancer.language import language_of
from ourvidz_enhancer.task import Language, Medium
from ourvidz_miniature.umt5 import make_umt5_tokenizer
from ourvidz_serving.settings import SettingsError

EXAMPLE = 'prompt = "tea"\ndescription = "A cup of tea on a table."\n'


def file_with(*, label: str = '"Prompt:"', example: str = EXAMPLE, more: str = "") -> str:
    parts = []
    for language in Language:
        parts.append(f'[{language}]\nprompt_label = {label}\ndescription_label = "Text:"\n')
        parts += [
            f'[{language}.{medium}]\ninstruction = "Expand."\n[[{language}.{medium}.examples]]\n{example}'
            for medium in Medium
        ]
    return "\n".join([*parts, more])


@pytest.mark.parametrize("language", Language)
@pytest.mark.parametrize("medium", Medium)
def test_the_shipped_descriptions_are_in_their_language_and_fit_a_renderer(language: Language, medium: Medium) -> None:
    tokenizer = make_umt5_tokenizer()
    for example in read_instruction(None).part(language).lesson(medium).examples:
        assert language_of(example.description) is language
        assert len(tokenizer(example.description).input_ids) <= 512


def test_an_operators_file_replaces_the_shipped_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(file_with(), encoding="utf-8")
    lesson = read_instruction(path).part(Language.CHINESE).lesson(Medium.IMAGE)
    assert (lesson.instruction, lesson.examples[0].prompt) == ("Expand.", "tea")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[english", "is not TOML in UTF-8"),
        ("[english]\n", "is wrong at english.prompt_label: Field required"),
        (file_with(label='""'), "is wrong at english.prompt_label"),
        (file_with(example='prompt = "tea"\ndescription = "two\\nlines"\n'), "english.image.examples.0.description"),
        (file_with(example='prompt = "tea"\ndescripton = "typo"\n'), "english.image.examples.0.description"),
        (file_with(more="[german]\n"), "is wrong at german"),
    ],
)
def test_a_bad_file_is_one_line_that_says_where(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=re.escape(problem)) as raised:
        read_instruction(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_or_not_text_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"gone\.toml can't be read: No such file"):
        read_instruction(tmp_path / "gone.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="is not TOML in UTF-8"):
        read_instruction(tmp_path / "binary.toml")
