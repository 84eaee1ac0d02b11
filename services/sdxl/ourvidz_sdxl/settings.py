"""What the SDXL renderer can be told through its environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from ourvidz_serving.settings import Port, ServerSettings


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ourvidz" / "models"


class SdxlSettings(ServerSettings):
    """The SDXL renderer's settings; storage has its own, `StorageSettings`."""

    model_config = SettingsConfigDict(env_prefix="OURVIDZ_SDXL_")

    grpc_port: Port = 50061
    metrics_port: Port = 9101

    model: str = Field(
        "miniature",
        min_length=1,
        description="The model: miniature, a Hub name, a folder, or a single .safetensors file.",
        examples=["stabilityai/stable-diffusion-xl-base-1.0"],
    )
    model_cache: Path = Field(
        default_factory=_default_cache,
        description="Folder that the miniature model is kept in once it is built.",
        examples=["/var/cache/ourvidz/models"],
    )
    single_file_config: Path | None = Field(
        None,
        description="Folder with the configuration of a single-file model; without it, the Hub is asked.",
        examples=["/models/sdxl-base-config"],
    )
    device: str = Field(
        "auto",
        min_length=1,
        description="Where to render; auto is cuda if there is one, else cpu.",
        examples=["cuda:1"],
    )
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="Type of the weights; auto is bfloat16 on cuda and float32 on cpu.", examples=["bfloat16"]
    )
    threads: int | None = Field(
        None, ge=1, description="Threads that torch may use on a CPU; its own choice if not set.", examples=[8]
    )
    buckets: Annotated[tuple[str, ...], NoDecode] = Field(
        ("sdxl-image-fast", "sdxl-image-high"),
        min_length=1,
        description="Buckets that outputs may go to, between commas.",
        examples=["sdxl-image-fast,sdxl-image-high"],
    )

    @field_validator("buckets", mode="before")
    @classmethod
    def _between_commas(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    def engine_config(self) -> dict[str, Any]:
        """Return what the engine must know, as plain data that crosses to its process."""
        return {
            "model": self.model,
            "model_cache": str(self.model_cache),
            "single_file_config": str(self.single_file_config) if self.single_file_config else None,
            "device": self.device,
            "dtype": self.dtype,
            "threads": self.threads,
        }
