"""The servers with a model that a local stack can run."""

from __future__ import annotations

from enum import StrEnum


class EngineServer(StrEnum):
    """One of them. Its module is `ourvidz_<name>`, its own variables begin with `OURVIDZ_<NAME>_`."""

    SDXL = "sdxl"
    WAN = "wan"
    ENHANCER = "enhancer"
