"""What any server with a model can be told of it through its environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ourvidz_serving.settings import ServerSettings


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ourvidz" / "models"


class ModelSettings(ServerSettings):
    """The settings of a server with an engine; each service's own add to them."""

    model: str = Field(
        "miniature",
        min_length=1,
        description="The model: miniature, a Hub name or a folder.",
        examples=["/models/my-model"],
    )
    model_cache: Path = Field(
        default_factory=_default_cache,
        description="Folder that miniature models are kept in once they are built.",
        examples=["/var/cache/ourvidz/models"],
    )
    device: str = Field(
        "auto",
        min_length=1,
        description="Where to compute; auto is cuda if there is one, else cpu.",
        examples=["cuda:1"],
    )
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="Type of the weights; auto is bfloat16 on cuda and float32 on cpu.", examples=["bfloat16"]
    )
    threads: int | None = Field(
        None, ge=1, description="Threads that torch may use on a CPU; its own choice if not set.", examples=[8]
    )

    def engine_config(self) -> dict[str, Any]:
        """Return what the engine must know, as plain data that crosses to its process."""
        return {
            "model": self.model,
            "model_cache": str(self.model_cache),
            "device": self.device,
            "dtype": self.dtype,
            "threads": self.threads,
        }
