"""The miniature Qwen2: real classes, small, and able to write."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2ForCausalLM, Qwen2Tokenizer

from ourvidz_miniature.qwen2 import CONTEXT, build_miniature_qwen2, ensure_miniature_qwen2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure_miniature_qwen2(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Qwen2Tokenizer:
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def model(folder: Path) -> Qwen2ForCausalLM:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def test_it_is_of_the_real_classes_and_small(folder, tokenizer, model) -> None:
    assert type(model) is Qwen2ForCausalLM
    assert type(tokenizer) is Qwen2Tokenizer
    assert model.num_parameters() < 3_000_000
    assert model.config.max_position_embeddings == tokenizer.model_max_length == CONTEXT
    assert model.config.vocab_size == len(tokenizer)
    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert {weights.get_tensor(name).dtype for name in weights.keys()} == {torch.float16}  # noqa: SIM118


def test_it_is_written_once_and_always_the_same(folder: Path, tmp_path: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert ensure_miniature_qwen2(folder.parent) == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    build_miniature_qwen2(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(before)
    assert all((tmp_path / name).read_bytes() == (folder / name).read_bytes() for name in before)


@pytest.mark.parametrize("text", ["a red fox\n\n in snow", "雪中的红狐狸，远景。", "naïve 🦊 𠀀\t\x00", "<|im_end|>"])
def test_every_text_can_be_written_in_its_tokens(tokenizer, text: str) -> None:
    tokens = tokenizer(text).input_ids
    assert tokenizer.decode(tokens, clean_up_tokenization_spaces=False) == text


def test_its_chat_template_marks_the_turns(tokenizer) -> None:
    messages = [{"role": "system", "content": "Expand."}, {"role": "user", "content": "a fox"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>system\nExpand.<|im_end|>\n<|im_start|>user\na fox<|im_end|>\n<|im_start|>assistant\n"
    special = [token for token in tokenizer(text).input_ids if token in tokenizer.all_special_ids]
    assert len(special) == 5


def test_it_goes_on_with_a_description_of_the_prompt_and_comes_to_an_end(tokenizer, model) -> None:
    prompt = "Prompt: a red fox running in the snow\nDescription:"
    tokens = tokenizer(prompt, return_tensors="pt").input_ids
    written = model.generate(tokens, max_new_tokens=150, do_sample=False)[0, tokens.shape[1] :]
    first_line = tokenizer.decode(written).strip().partition("\n")[0]
    assert "a red fox running in the snow" in first_line
    assert first_line.endswith(".")
    assert len(first_line) > 100
