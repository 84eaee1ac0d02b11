"""What the server and its engine say to each other: plain data, and nothing that needs torch."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import StrEnum

from ourvidz_serving.engines.engine import Send, Session

MAX_TOKENS = 512
"""Tokens that the renderer's text encoder reads, its end token among them; what is longer it leaves out."""


class Medium(StrEnum):
    """What a prompt is for."""

    IMAGE = "image"
    VIDEO = "video"


class Language(StrEnum):
    """The language of a prompt."""

    ENGLISH = "english"
    CHINESE = "chinese"


class Style(StrEnum):
    """How the model is talked to: it belongs to the model, since base tokenizers carry chat templates, too."""

    FEW_SHOT = "few_shot"
    """Examples that a base model goes on with."""
    CHAT = "chat"
    """The chat template of an instruct model."""


@dataclass(frozen=True, slots=True)
class EnhancerInfo:
    """What a loaded engine is."""

    model: str
    """The model as configured: `miniature`, a Hub name, or a folder's name."""
    device: str


@dataclass(frozen=True, slots=True)
class Wrote:
    """More of the new prompt: never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class Written:
    """The new prompt is whole; always the last message of a task, which lacks it when the model wrote nothing."""

    text: str
    truncated: bool
    token_count: int
    """Counted by the renderer's text encoder, its end token included."""


class EnhanceSession(Session):
    """What the engine says while it writes."""

    def wrote(self, text: str) -> None:
        """Send more of the text."""
        self.send(Wrote(text))

    def written(self, text: str, *, truncated: bool, token_count: int) -> None:
        """Send the whole text."""
        self.send(Written(text, truncated, token_count))


@dataclass(frozen=True, slots=True)
class EnhanceTask:
    """Asks the engine to rewrite a prompt."""

    prompt: str
    medium: Medium
    language: Language
    max_token_count: int
    max_character_count: int
    seed: int | None
    """None: the likeliest token each time."""

    def open_session(self, send: Send, cancel: threading.Event) -> EnhanceSession:
        """Return the session of this task."""
        return EnhanceSession(send, cancel)
