"""Rewrites a prompt with our engine, and with plain transformers' `generate` on the very same text."""

from __future__ import annotations

import time
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

from ourvidz_enhancer.frame import chat_renderer, make_frame, make_harmless
from ourvidz_enhancer.instruction import read_instruction
from ourvidz_enhancer.settings import EnhancerSettings
from ourvidz_enhancer.task import EnhanceTask, Language, Medium, Style, Written, Wrote
from ourvidz_serving.engines.engine import Timed
from ourvidz_serving.engines.process import EngineProcess
from recipes import PROMPT

FACTORY = "ourvidz_enhancer.engine:EnhancerEngine"
MAX_TOKENS = 512
MAX_CHARACTERS = 2600


@dataclass(slots=True)
class Enhanced:
    """What was written, and how long it took."""

    text: str = ""
    seconds: float = 0.0
    first_s: float = 0.0
    """Until the first piece came."""
    stages: dict[str, float] = field(default_factory=dict)


def enhancer_config(folder: Path) -> dict[str, Any]:
    """Return our engine's configuration: greedy and without a penalty, so that `generate` can do the same."""
    settings = EnhancerSettings(model=str(folder), tokenizer="miniature", repetition_penalty=1.0)
    return {**settings.engine_config(), "instruction": read_instruction(None).model_dump()}


async def enhance(engine: EngineProcess[Any]) -> Enhanced:
    """Have our engine rewrite the prompt."""
    enhanced = Enhanced()
    begun = time.perf_counter()
    task = EnhanceTask(PROMPT, Medium.VIDEO, Language.ENGLISH, MAX_TOKENS, MAX_CHARACTERS, seed=None)
    async with aclosing(engine.run(task)) as messages:
        async for message in messages:
            match message:
                case Wrote(text):
                    enhanced.first_s = enhanced.first_s or time.perf_counter() - begun
                    enhanced.text += text
                case Timed(stage, seconds):
                    enhanced.stages[stage] = seconds
                case Written(text):
                    enhanced.text = text
    enhanced.seconds = time.perf_counter() - begun
    enhanced.text = readable(enhanced.text)
    return enhanced


class PlainEnhancer:
    """The stock call, on the text that our engine gives its model."""

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype) -> None:
        self._device = device
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self._network = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()
        render_chat = chat_renderer(self._tokenizer)
        frame = make_frame(
            read_instruction(None), Style.FEW_SHOT, Language.ENGLISH, Medium.VIDEO, render_chat=render_chat
        )
        reserved = self._tokenizer.get_added_vocab()
        self._whole = frame.render(make_harmless(PROMPT, labels=frame.labels, reserved=reserved))

    def enhance(self, token_count: int) -> Enhanced:
        """Write this many tokens."""
        begun = time.perf_counter()
        written = self._write(token_count)
        text = readable(self._tokenizer.decode(written))
        return Enhanced(text, time.perf_counter() - begun)

    def count_tokens(self, text: str) -> int:
        """Return how many tokens a text of ours took; where the two part, what is written here counts."""
        written = self._write(2 * MAX_TOKENS)
        return next(
            (
                count
                for count in range(1, len(written))
                if len(readable(self._tokenizer.decode(written[:count]))) >= len(text)
            ),
            len(written),
        )

    def _write(self, token_count: int) -> torch.Tensor:
        tokens = self._tokenizer(self._whole, add_special_tokens=False, return_tensors="pt").to(self._device)
        end = self._tokenizer.pad_token_id
        limits = {"min_new_tokens": token_count, "max_new_tokens": token_count}
        written = self._network.generate(**tokens, do_sample=False, pad_token_id=end, **limits)
        new: torch.Tensor = written[0, tokens.input_ids.shape[1] :]
        return new


def readable(text: str) -> str:
    """Return a text without what random weights write between its words: broken letters and control characters."""
    return "".join(letter for letter in text if letter.isprintable() and letter != "\ufffd").strip()
