"""What the enhancer can be told through its environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from ourvidz_enhancer.task import Style
from ourvidz_serving.model_settings import ModelSettings
from ourvidz_serving.settings import Port

MINIATURE = "miniature"
WAN = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"


class EnhancerSettings(ModelSettings):
    """The enhancer's settings."""

    model_config = SettingsConfigDict(env_prefix="OURVIDZ_ENHANCER_")

    grpc_port: Port = 50063
    metrics_port: Port = 9103

    model: str = Field(
        MINIATURE,
        min_length=1,
        description="The language model: miniature, a Hub name or a folder.",
        examples=["Qwen/Qwen2.5-7B"],
    )
    style: Style = Field(
        Style.FEW_SHOT,
        description="How the model is talked to: few_shot for a base model, chat for an instruct model.",
        examples=["chat"],
    )
    instruction: Path | None = Field(
        None,
        description="File with the instruction and its examples; the one that comes with the enhancer if not set.",
        examples=["/etc/ourvidz/instruction.toml"],
    )
    tokenizer: str | None = Field(
        None,
        min_length=1,
        description=(
            "Where the renderer's text tokenizer is, to count with: miniature, or the Hub name or folder of a Wan "
            "pipeline. If not set: miniature for the miniature model, Wan's for any other."
        ),
        examples=[WAN],
    )
    temperature: float = Field(
        0.7,
        gt=0,
        le=2,
        description="How freely the model chooses when a request has a seed; without one it takes the likeliest token.",
        examples=[0.7],
    )
    top_k: int = Field(
        20, ge=1, le=1000, description="From how many of the likeliest tokens the model chooses.", examples=[20]
    )
    top_p: float = Field(
        0.8,
        gt=0,
        le=1,
        description="Of those, the likeliest ones that together reach this probability are left.",
        examples=[0.8],
    )
    repetition_penalty: float = Field(
        1.05,
        ge=1,
        le=2,
        description="How much less likely a token gets once the model has written it; 1 changes nothing.",
        examples=[1.05],
    )

    def engine_config(self) -> dict[str, Any]:
        """Return what the engine must know, as plain data that crosses to its process; the instruction comes apart."""
        return {
            **super().engine_config(),
            "style": self.style.value,
            "tokenizer": self.tokenizer or (MINIATURE if self.model == MINIATURE else WAN),
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "repetition_penalty": self.repetition_penalty,
        }
