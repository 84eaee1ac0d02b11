"""Trains the miniature Qwen2 and writes its data into the package: run by hand, about a quarter of an hour on one core.

OMP_NUM_THREADS=1 nice -n 10 python miniature/training/train_qwen2.py --minutes 14
"""

# ruff: noqa: INP001, S311, T201  # a program, not a package; chance makes sequences here, and it prints

from __future__ import annotations

import argparse
import copy
import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from corpus import CHINESE, ENGLISH, IMAGE, VIDEO, make_pair
from safetensors.torch import save_model
from tokenizers import pre_tokenizers, trainers
from transformers import Qwen2Tokenizer

from ourvidz_enhancer.frame import Frame, chat_renderer, make_frame
from ourvidz_enhancer.instruction import read_instruction
from ourvidz_enhancer.task import Language, Medium, Style
from ourvidz_miniature.qwen2 import TURN_END, TURN_START, make_model, make_tokenizer

DATA = Path(__file__).parents[1] / "ourvidz_miniature" / "data" / "qwen2"

SEED = 20_250_115
VOCABULARY_SIZE = 2048
SHORT, LONG = (6, 128), (1, 1024)
"""Sequences a step, and tokens a sequence."""
SHORT_SHARE = 0.65
"""The share of the time that goes to short ones."""
PEAK_RATE = 3e-3
WARMUP = 0.03
"""The share of the time in which the learning rate rises."""
IGNORED = -100

Segment = tuple[str, bool]
"""A stretch of text, and whether the model is to learn to write it."""


def train_tokenizer() -> Qwen2Tokenizer:
    """Return a tokenizer of Qwen2's kind for what the model reads and writes."""
    chance = random.Random(SEED)
    texts = [_frame(Style.FEW_SHOT, language, medium).fixed for language in Language for medium in Medium] * 20
    for _ in range(20_000):
        pair = make_pair(chance, chance.choice((ENGLISH, CHINESE)), chance.choice((IMAGE, VIDEO)))
        texts += [pair.prompt, pair.description]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE - 3,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=16,
        show_progress=False,
    )
    blank = Qwen2Tokenizer().backend_tokenizer
    blank.train_from_iterator(texts, trainer)
    model = json.loads(blank.to_str())["model"]
    vocabulary = {token: number for token, number in model["vocab"].items() if not token.startswith("<|")}
    return make_tokenizer(vocabulary, [tuple(merge) for merge in model["merges"]])


class Sequences:
    """Endless sequences of tokens: a frame of either style, and prompts with their descriptions in it.

    Short ones are a prompt or two with the first sentences alone, from which copying is learnt soonest. Of the long
    ones, some begin as the enhancer's own frames do, since that is what the model will read; the others begin with the
    instruction alone or with nothing, so that the model goes by the last prompt and not by its place.
    """

    def __init__(self, tokenizer: Qwen2Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._chance = random.Random(SEED + 1)

    def batch(self, count: int, size: int, *, short: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Return so many sequences of `size` tokens and, for each token, what is to be learnt: itself or IGNORED."""
        tokens, labels = zip(*(self._sequence(size, short=short) for _ in range(count)), strict=True)
        return torch.tensor(tokens), torch.tensor(labels)

    def _sequence(self, size: int, *, short: bool) -> tuple[list[int], list[int]]:
        tokens: list[int] = []
        labels: list[int] = []
        for text, is_learnt in self._segments(short=short):
            more = self._tokenizer(text, add_special_tokens=False).input_ids
            tokens += more
            labels += more if is_learnt else [IGNORED] * len(more)
            if len(tokens) >= size:
                break
        return tokens[:size], labels[:size]

    def _segments(self, *, short: bool) -> Iterator[Segment]:
        style, language, medium = (self._chance.choice(list(kind)) for kind in (Style, Language, Medium))
        part = _INSTRUCTION.part(language)
        draw = 1.0 if short else self._chance.random()
        if draw < 0.4:
            yield _frame(style, language, medium, self._tokenizer).fixed, False
        elif draw < 0.7:
            instruction = part.lesson(medium).instruction
            chat = f"{TURN_START}system\n{instruction}{TURN_END}\n"
            yield (chat if style is Style.CHAT else f"{instruction}\n\n"), False
        while True:
            count = self._chance.choice((1, 1, 2, 6)) if short else 6
            pair = make_pair(self._chance, language.value, medium.value, sentence_count=count)
            if style is Style.CHAT:
                yield f"{TURN_START}user\n{pair.prompt}{TURN_END}\n{TURN_START}assistant\n", False
                yield f"{pair.description}{TURN_END}", True
                yield "\n", False
            else:
                yield f"{part.prompt_label} {pair.prompt}\n{part.description_label}", False
                yield f" {pair.description}\n\n", True


def train(minutes: float) -> None:
    """Train for so many minutes and write vocabulary and weights."""
    torch.manual_seed(SEED)
    tokenizer = train_tokenizer()
    model = make_model(tokenizer).train()
    print(f"{model.num_parameters():,} parameters, {len(tokenizer):,} tokens")
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.05)
    sequences = Sequences(tokenizer)
    begun, done, step = time.monotonic(), 0.0, 0
    while done < 1.0:
        rate = PEAK_RATE * min(1.0, done / WARMUP + 0.01) * (0.05 + 0.95 * math.cos(done * math.pi / 2) ** 2)
        for group in optimizer.param_groups:
            group["lr"] = rate
        short = done < SHORT_SHARE
        tokens, labels = sequences.batch(*(SHORT if short else LONG), short=short)
        loss = model(input_ids=tokens, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        done = (time.monotonic() - begun) / (minutes * 60)
        if step % 100 == 0:
            print(f"step {step}, {done:.0%}, loss {loss.item():.3f}", flush=True)
        if step % 500 == 0:
            write(tokenizer, model)
    write(tokenizer, model)


def write(tokenizer: Qwen2Tokenizer, model: torch.nn.Module) -> None:
    """Write what `ourvidz_miniature.qwen2` reads."""
    DATA.mkdir(parents=True, exist_ok=True)
    backend = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    (DATA / "vocab.json").write_text(json.dumps(backend["vocab"], ensure_ascii=False) + "\n", encoding="utf-8")
    merges = [" ".join(merge) + "\n" for merge in backend["merges"]]
    (DATA / "merges.txt").write_text("".join(merges), encoding="utf-8")
    weights = DATA / "model.safetensors"
    save_model(copy.deepcopy(model).eval().half(), str(weights))
    weights.chmod(0o644)


_INSTRUCTION = read_instruction(None)


def _frame(style: Style, language: Language, medium: Medium, tokenizer: Qwen2Tokenizer | None = None) -> Frame:
    return make_frame(_INSTRUCTION, style, language, medium, render_chat=chat_renderer(tokenizer))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=14.0)
    train(parser.parse_args().minutes)
