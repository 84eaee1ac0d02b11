"""Starts the enhancer: `python -m ourvidz_enhancer`."""

from __future__ import annotations

from ourvidz_enhancer.enhancer import make_engine, serve_enhancer
from ourvidz_enhancer.instruction import read_instruction
from ourvidz_enhancer.settings import EnhancerSettings
from ourvidz_serving import logs
from ourvidz_serving.server import run
from ourvidz_serving.settings import load


def main() -> None:
    """Read the settings and serve until told to stop."""
    settings = load(EnhancerSettings)
    logs.configure(settings.log_level, settings.log_format)

    async def serve() -> None:
        await serve_enhancer(settings, make_engine(settings, read_instruction(settings.instruction)))

    run(serve)


if __name__ == "__main__":
    main()
