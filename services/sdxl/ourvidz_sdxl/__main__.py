"""Starts the SDXL renderer: `python -m ourvidz_sdxl`."""

from __future__ import annotations

from ourvidz_sdxl.settings import SdxlSettings
from ourvidz_serving import logs
from ourvidz_serving.engines.process import EngineProcess
from ourvidz_serving.rendering.engine import EngineInfo
from ourvidz_serving.rendering.renderer import serve_renderer
from ourvidz_serving.server import run
from ourvidz_serving.settings import load


def main() -> None:
    """Read the settings and serve until told to stop."""
    settings = load(SdxlSettings)
    logs.configure(settings.log_level, settings.log_format)

    async def serve() -> None:
        engine: EngineProcess[EngineInfo] = EngineProcess("ourvidz_sdxl.engine:SdxlEngine", settings.engine_config())
        await serve_renderer(settings, engine, kind="sdxl", buckets=settings.buckets)

    run(serve)


if __name__ == "__main__":
    main()
