"""What the SDXL renderer can be told through its environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from ourvidz_serving.model_settings import ModelSettings
from ourvidz_serving.settings import Port


class SdxlSettings(ModelSettings):
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
    single_file_config: Path | None = Field(
        None,
        description="Folder with the configuration of a single-file model; without it, the Hub is asked.",
        examples=["/models/sdxl-base-config"],
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
            **super().engine_config(),
            "single_file_config": str(self.single_file_config) if self.single_file_config else None,
        }
