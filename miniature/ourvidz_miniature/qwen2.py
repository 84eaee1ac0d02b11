"""A small language model of the very shape of Qwen2: the same classes, 1.6 million parameters, trained by ourselves.

It writes descriptions in English and Chinese that take up the words of a prompt, in the enhancer's two styles. What it
knows of the world are the few sentences of its training; `data/qwen2/README.md` says how it was made.
"""

from __future__ import annotations

import json
from importlib.resources import as_file, files
from pathlib import Path

from safetensors.torch import load_model
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from ourvidz_miniature.folders import build_once

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

CONTEXT = 4096
"""How many tokens the model reads."""

_VERSION = 1
"""Part of the folder's name: raise it with every change of what is built."""
_CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""


def ensure_miniature_qwen2(cache_dir: Path) -> Path:
    """Return the folder that holds model and tokenizer, in the layout of `from_pretrained`; write it if it is not there."""
    return build_once(cache_dir, f"miniature-qwen2-{_VERSION}", build_miniature_qwen2)


def build_miniature_qwen2(folder: Path) -> None:
    """Write model and tokenizer into `folder`, weights as safetensors in half precision."""
    data = files("ourvidz_miniature") / "data" / "qwen2"
    vocabulary: dict[str, int] = json.loads((data / "vocab.json").read_text(encoding="utf-8"))
    lines = (data / "merges.txt").read_text(encoding="utf-8").splitlines()
    tokenizer = make_tokenizer(vocabulary, [(left, right) for left, right in (line.split(" ") for line in lines)])
    model = make_model(tokenizer)
    with as_file(data / "model.safetensors") as weights:
        load_model(model, weights)
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_tokenizer(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Qwen2Tokenizer:
    """Return the tokenizer of a byte-level vocabulary; its three special tokens come after it."""
    return Qwen2Tokenizer(
        vocab=vocabulary,
        merges=merges,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        additional_special_tokens=[TURN_START, TURN_END],
        chat_template=_CHAT_TEMPLATE,
        model_max_length=CONTEXT,
    )


def make_model(tokenizer: Qwen2Tokenizer) -> Qwen2ForCausalLM:
    """Return the model with random weights."""
    end_of_text, turn_end = tokenizer.convert_tokens_to_ids([END_OF_TEXT, TURN_END])
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        initializer_range=0.04,
        bos_token_id=end_of_text,
        eos_token_id=end_of_text,
        pad_token_id=end_of_text,
    )
    model = Qwen2ForCausalLM(config)
    model.generation_config = GenerationConfig(
        bos_token_id=end_of_text, eos_token_id=[end_of_text, turn_end], pad_token_id=end_of_text
    )
    return model
