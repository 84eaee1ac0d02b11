"""Starts the WAN renderer: `python -m ourvidz_wan`."""

from __future__ import annotations

from ourvidz_serving import logs
from ourvidz_serving.engines.process import EngineProcess
from ourvidz_serving.rendering.engine import EngineInfo
from ourvidz_serving.rendering.renderer import serve_renderer
from ourvidz_serving.server import run
from ourvidz_serving.settings import load
from ourvidz_wan.mp4 import Mp4Encoder
from ourvidz_wan.settings import WanSettings


def main() -> None:
    """Read the settings and serve until told to stop."""
    settings = load(WanSettings)
    logs.configure(settings.log_level, settings.log_format)

    async def serve() -> None:
        engine: EngineProcess[EngineInfo] = EngineProcess("ourvidz_wan.engine:WanEngine", settings.engine_config())
        await serve_renderer(settings, engine, kind="wan", buckets=settings.buckets, clip_encoder=Mp4Encoder)

    run(serve)


if __name__ == "__main__":
    main()
