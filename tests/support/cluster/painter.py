"""A renderer whose engine paints: `python -m support.cluster.painter`. All else in it is the real thing."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic_settings import SettingsConfigDict

from ourvidz_serving import logs
from ourvidz_serving.engines.process import EngineProcess
from ourvidz_serving.rendering.engine import EngineInfo
from ourvidz_serving.rendering.renderer import serve_renderer
from ourvidz_serving.server import run
from ourvidz_serving.settings import ServerSettings, load
from ourvidz_wan.mp4 import Mp4Encoder

BUCKETS = {"sdxl": "pictures", "wan": "clips"}
SIZES = {"sdxl": (64, 48), "wan": (64, 96)}


class PainterSettings(ServerSettings):
    """What it is told."""

    model_config = SettingsConfigDict(env_prefix="OURVIDZ_PAINTER_")

    kind: Literal["sdxl", "wan"]
    steps_file: Path | None = None
    """Where the engine writes down each step that it does."""
    gate: Path | None = None
    """The test's gate, for prompts that hold."""
    broken: bool = False
    """Whether the model can't be loaded."""


def main() -> None:
    """Serve until told to stop."""
    settings = load(PainterSettings)
    logs.configure(settings.log_level, settings.log_format)
    config = {
        "sizes": [SIZES[settings.kind]],
        "max_step_count": 200,
        "max_frame_count": 161 if settings.kind == "wan" else 0,
        "steps_file": settings.steps_file and str(settings.steps_file),
        "gate": settings.gate and str(settings.gate),
        "broken": settings.broken,
    }

    async def serve() -> None:
        engine: EngineProcess[EngineInfo] = EngineProcess(
            "support.fake_engine:create_engine", config, first_backoff_s=0.1, max_backoff_s=1.0
        )
        encoder = Mp4Encoder if settings.kind == "wan" else None
        await serve_renderer(
            settings, engine, kind=settings.kind, buckets=[BUCKETS[settings.kind]], clip_encoder=encoder
        )

    run(serve)


if __name__ == "__main__":
    main()
