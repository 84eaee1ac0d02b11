"""An enhancer's engine without any model, imported in the child only: it writes the text that it was made with."""

from __future__ import annotations

from typing import Any

from ourvidz_enhancer.task import EnhancerInfo, EnhanceSession, EnhanceTask
from ourvidz_serving.engines.engine import LoadSession


class FixedWriter:
    def __init__(self, config: dict[str, Any]) -> None:
        self._text = config["text"]

    def load(self, session: LoadSession) -> EnhancerInfo:
        return EnhancerInfo("fixed", "none")

    def run(self, task: EnhanceTask, session: EnhanceSession) -> None:
        session.wrote(self._text)
        session.written(self._text, truncated=False, token_count=3)
