"""A text as it is written: from tokens to the words that may be shown."""

from __future__ import annotations

import re
from collections.abc import Callable

from ourvidz_enhancer.frame import Frame, on_one_line

_LINE_BREAK = re.compile(r"[\r\n]")
_HALF = "\ufffd"
"""What a tokenizer decodes to where the bytes of a letter are not all there (yet)."""


class Writing:
    """The text that a model's tokens make, on one line; it only ever grows.

    A letter is shown once all its tokens are there, white space once a word follows, and what may become one of the
    frame's labels once it has become something else.
    """

    def __init__(self, frame: Frame, decode: Callable[[list[int]], str]) -> None:
        self.tokens: list[int] = []
        self.text = ""
        """What may be shown, trimmed."""
        self.ended = False
        """Whether the text is whole: the model said so, or went on to the next line of the frame."""
        self._frame = frame
        self._decode = decode

    def add(self, token: int) -> None:
        """Take the next token."""
        self.tokens.append(token)
        # All of them each time: how a token is written depends on those around it, and texts are short.
        self.text, self.ended = self._read(self._decode(self.tokens).replace(_HALF, ""))

    def end(self) -> None:
        """Take the end of the text: what was held back is shown after all."""
        self.text, self.ended = on_one_line(self._decode(self.tokens).replace(_HALF, "")), True

    def _read(self, written: str) -> tuple[str, bool]:
        """Return what may be shown of a text, and whether the text has ended."""
        written, ended = written.lstrip(), False
        if self._frame.one_line and (line_break := _LINE_BREAK.search(written)):
            written, ended = written[: line_break.start()], True
        labels = [place for label in self._frame.labels if (place := written.find(label)) >= 0]
        if labels:
            written, ended = written[: min(labels)], True
        if not ended:
            held = max((_overlap(written, label) for label in self._frame.labels), default=0)
            written = written[: len(written) - held]
        return on_one_line(written), ended


def _overlap(text: str, label: str) -> int:
    """Return how many letters at the end of the text are the beginning of the label."""
    return next((size for size in range(min(len(text), len(label) - 1), 0, -1) if text.endswith(label[:size])), 0)
