from __future__ import annotations

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ourvidz_miniature.umt5 import make_umt5_tokenizer

TEXTS = [
    "",
    "a red fox",
    "A Fox",
    "Größe",
    "狐狸在雪地里，一只猫。",
    "龘靐",
    "🦊\u200d🔥",
    "zebra-crossing №7",
    "a\tb\nc",
    "\x00\x7f",
    "<0x41>",
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    """The tokenizer as others meet it: loaded from where it was saved."""
    folder = tmp_path_factory.mktemp("tokenizer")
    make_umt5_tokenizer().save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("text", TEXTS)
def test_every_text_has_tokens_and_comes_back(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    tokens = tokenizer(text).input_ids
    assert tokens[-1] == tokenizer.eos_token_id == 1
    assert bool(tokens[:-1]) == bool(text.strip())
    assert tokenizer.unk_token_id not in tokens
    assert tokenizer.decode(tokens, skip_special_tokens=True) == " ".join(text.split())


def test_it_is_the_same_after_it_was_saved(tokenizer: PreTrainedTokenizerBase) -> None:
    made = make_umt5_tokenizer()
    assert type(made) is type(tokenizer)
    assert made.get_vocab() == tokenizer.get_vocab()
    assert made(TEXTS).input_ids == tokenizer(TEXTS).input_ids


def test_common_words_and_characters_are_one_token(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.tokenize("A red fox at Sunset") == ["▁A", "▁red", "▁fox", "▁at", "▁Sunset"]
    assert tokenizer.tokenize("雪地里的猫。") == ["▁", *"雪地里的猫。"]


def test_texts_are_cut_and_padded_as_wan_asks_for(tokenizer: PreTrainedTokenizerBase) -> None:
    both = tokenizer(["fox", "fox " * 600], padding="max_length", max_length=512, truncation=True)
    assert [len(tokens) for tokens in both.input_ids] == [512, 512]
    assert set(both.input_ids[0][2:]) == {tokenizer.pad_token_id} == {0}
    assert both.input_ids[1][-1] == tokenizer.eos_token_id
    assert [sum(mask) for mask in both.attention_mask] == [2, 512]
    assert tokenizer.model_max_length == 512
