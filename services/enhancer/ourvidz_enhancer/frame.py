"""How a prompt is put before the model: in a frame of text that the prompt itself can't leave."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, TypeAlias

from ourvidz_enhancer.instruction import Instruction
from ourvidz_enhancer.task import Language, Medium, Style

Messages: TypeAlias = list[dict[str, str]]
RenderChat: TypeAlias = Callable[[Messages], str]
"""Writes messages in the model's chat template, with the beginning of the answer behind them."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The text around the prompts of one language and medium, and what in it has a meaning."""

    render: Callable[[str], str]
    """Returns the whole text for a prompt that was made harmless."""
    fixed: str
    """How that text begins, whatever the prompt is: whole lines."""
    labels: tuple[str, ...]
    """What begins a line of the frame, and would end the description if the model wrote it."""
    one_line: bool
    """Whether a line break ends the description."""


def make_frame(
    instruction: Instruction, style: Style, language: Language, medium: Medium, *, render_chat: RenderChat
) -> Frame:
    """Return the frame for a language and a medium; `render_chat` is used by the chat style alone."""
    part, lesson = instruction.part(language), instruction.part(language).lesson(medium)
    examples = [(example.prompt, example.description) for example in lesson.examples]
    if style is Style.CHAT:
        messages = [{"role": "system", "content": lesson.instruction}]
        for prompt, description in examples:
            messages += [{"role": "user", "content": prompt}, {"role": "assistant", "content": description}]

        def render(prompt: str) -> str:
            return render_chat([*messages, {"role": "user", "content": prompt}])

        return Frame(render, _common_lines(render), labels=(), one_line=False)

    shown = [f"{part.prompt_label} {prompt}\n{part.description_label} {text}" for prompt, text in examples]
    fixed = "\n\n".join([lesson.instruction, *shown]) + "\n\n"
    return Frame(
        lambda prompt: f"{fixed}{part.prompt_label} {prompt}\n{part.description_label}",
        fixed,
        labels=(part.prompt_label, part.description_label),
        one_line=True,
    )


def chat_renderer(tokenizer: Any) -> RenderChat:
    """Return what writes messages in a tokenizer's chat template."""
    return lambda messages: str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def make_harmless(prompt: str, *, labels: Collection[str], reserved: Collection[str]) -> str:
    """Return the prompt on one line, without anything that has a meaning in the frame.

    A label loses its colon, and a reserved word, which the model knows as a single token (`<|im_end|>`), is taken apart
    by a space: the user's words stay, and are nothing but words.
    """
    # The tokenizer does the same; done here, no letter can become one of a reserved word afterwards.
    text = on_one_line(unicodedata.normalize("NFC", prompt))
    for label in labels:
        words = re.sub(r"\W+$", "", label)
        mark = label.removeprefix(words).strip()
        pattern = "[:：]" if mark in (":", "：") else re.escape(mark)
        text = re.sub(rf"({re.escape(words)})(?:\s*{pattern})+", r"\1", text, flags=re.IGNORECASE)
    for word in reserved:
        text = text.replace(word, f"{word[0]} {word[1:]}")
    return text.strip()


def on_one_line(text: str) -> str:
    """Return the text with single spaces for white space of any kind and for control characters, and trimmed."""
    return " ".join("".join(" " if unicodedata.category(letter) == "Cc" else letter for letter in text).split())


def _common_lines(render: Callable[[str], str]) -> str:
    """Return the whole lines with which every rendering begins."""
    text = render("a")
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(text, render("b"), strict=False)))
    return text[: text.rfind("\n", 0, common) + 1]
