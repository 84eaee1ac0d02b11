"""An enhancer whose engine only adds a few words: `python -m support.cluster.scribe`. All else is the real thing."""

from __future__ import annotations

import time
from typing import Any

from pydantic_settings import SettingsConfigDict

from ourvidz_enhancer.enhancer import serve_enhancer
from ourvidz_enhancer.settings import EnhancerSettings
from ourvidz_enhancer.task import EnhancerInfo, EnhanceSession, EnhanceTask
from ourvidz_serving import logs
from ourvidz_serving.engines.engine import LoadSession
from ourvidz_serving.engines.process import EngineProcess
from ourvidz_serving.server import run
from ourvidz_serving.settings import load

ADDED = "in great detail"


class ScribeSettings(EnhancerSettings):
    """What it is told."""

    model_config = SettingsConfigDict(env_prefix="OURVIDZ_SCRIBE_")


class ScribeEngine:
    """Writes the prompt and `ADDED`. A word `write:MS` of the prompt makes it take that many milliseconds a word."""

    def __init__(self, config: dict[str, Any]) -> None:
        pass

    def load(self, session: LoadSession) -> EnhancerInfo:
        return EnhancerInfo("scribe", "none")

    def run(self, task: EnhanceTask, session: EnhanceSession) -> None:
        words = f"{task.prompt} {ADDED}".split()
        pauses = [int(word.removeprefix("write:")) / 1000 for word in words if word.startswith("write:")]
        for word in words:
            session.check()
            session.wrote(f"{word} ")
            time.sleep(sum(pauses))
        session.written(" ".join(words), truncated=False, token_count=len(words))


def main() -> None:
    """Serve until told to stop."""
    settings = load(ScribeSettings)
    logs.configure(settings.log_level, settings.log_format)

    async def serve() -> None:
        engine: EngineProcess[EnhancerInfo] = EngineProcess(
            "support.cluster.scribe:ScribeEngine", {}, first_backoff_s=0.1, max_backoff_s=1.0
        )
        await serve_enhancer(settings, engine)

    run(serve)


if __name__ == "__main__":
    main()
