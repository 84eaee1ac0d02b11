"""What the SDXL renderer can be told through its environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from ourvidz_serving.model_settings import ModelSettings
from ourvidz_serving.settings import Names, Port


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
    ip_adapter: str | None = Field(
        None,
        min_length=1,
        description="IP-Adapter by which reference images act: miniature, a Hub name or a folder; img2img if not set.",
        examples=["h94/IP-Adapter"],
    )
    ip_adapter_subfolder: str = Field(
        "sdxl_models", description="Folder within the IP-Adapter's that its weights lie in.", examples=["sdxl_models"]
    )
    ip_adapter_weight: str = Field(
        "ip-adapter_sdxl_vit-h.safetensors",
        description="File name of the IP-Adapter's weights; safetensors only.",
        examples=["ip-adapter-plus_sdxl_vit-h.safetensors"],
    )
    ip_adapter_image_encoder: str = Field(
        "models/image_encoder",
        description="Folder within the IP-Adapter's that the image encoder for these weights lies in.",
        examples=["sdxl_models/image_encoder"],
    )
    buckets: Names = Field(
        ("sdxl-image-fast", "sdxl-image-high"),
        min_length=1,
        description="Buckets that outputs may go to, between commas.",
        examples=["sdxl-image-fast,sdxl-image-high"],
    )

    def engine_config(self) -> dict[str, Any]:
        """Return what the engine must know, as plain data that crosses to its process."""
        return {
            **super().engine_config(),
            "single_file_config": str(self.single_file_config) if self.single_file_config else None,
            "ip_adapter": self.ip_adapter_config(),
        }

    def ip_adapter_config(self) -> dict[str, str] | None:
        """Return where the IP-Adapter lies; None for no adapter."""
        if self.ip_adapter is None:
            return None
        return {
            "name": self.ip_adapter,
            "subfolder": self.ip_adapter_subfolder,
            "weight": self.ip_adapter_weight,
            "image_encoder": self.ip_adapter_image_encoder,
        }
