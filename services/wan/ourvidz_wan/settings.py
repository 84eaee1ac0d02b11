"""What the WAN renderer can be told through its environment."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from ourvidz_serving.model_settings import ModelSettings
from ourvidz_serving.settings import Names, Port

_REAL_VACE_MODEL = "Wan-AI/Wan2.1-VACE-1.3B-diffusers"
_BUCKETS = (
    "image-fast",
    "image-high",
    "video-fast",
    "video-high",
    "image7b-fast-enhanced",
    "image7b-high-enhanced",
    "video7b-fast-enhanced",
    "video7b-high-enhanced",
)


class WanSettings(ModelSettings):
    """The WAN renderer's settings; storage has its own, `StorageSettings`."""

    model_config = SettingsConfigDict(env_prefix="OURVIDZ_WAN_")

    grpc_port: Port = 50062
    metrics_port: Port = 9102

    model: str = Field(
        "miniature",
        min_length=1,
        description="The text-to-video model: miniature, a Hub name or a folder.",
        examples=["Wan-AI/Wan2.1-T2V-1.3B-Diffusers"],
    )
    vace_model: str | None = Field(
        None,
        min_length=1,
        description="The model that follows start and end frames, of which only the transformer is loaded: miniature, a "
        f"Hub name or a folder; miniature beside a miniature, else {_REAL_VACE_MODEL} if not set.",
        examples=[_REAL_VACE_MODEL],
    )
    residency: Literal["auto", "both", "swap"] = Field(
        "auto",
        description="Whether both transformers stay on the GPU, or the idle one waits in main memory; auto is both where "
        "there is room for them.",
        examples=["both"],
    )
    buckets: Names = Field(
        _BUCKETS,
        min_length=1,
        description="Buckets that outputs may go to, between commas.",
        examples=["image-fast,video-fast"],
    )

    def engine_config(self) -> dict[str, Any]:
        """Return what the engine must know, as plain data that crosses to its process."""
        own_vace_model = "miniature" if self.model == "miniature" else _REAL_VACE_MODEL
        return {
            **super().engine_config(),
            "vace_model": self.vace_model or own_vace_model,
            "residency": self.residency,
        }
