"""Samplers: the schedulers of diffusers under the names that requests use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler, UniPCMultistepScheduler

from ourvidz.api.render.v1 import render_pb2
from ourvidz_serving.engines.engine import InvalidForEngine


def make_scheduler(sampler: render_pb2.Sampler.ValueType, config: Mapping[str, Any]) -> Any:
    """Return a new scheduler with the noise schedule of the model's own `config`.

    A scheduler keeps the state of its last run, so each image gets one of its own.
    """
    match sampler:
        case render_pb2.SAMPLER_UNSPECIFIED | render_pb2.SAMPLER_DPMPP_2M_KARRAS:
            return DPMSolverMultistepScheduler.from_config(config, use_karras_sigmas=True)
        case render_pb2.SAMPLER_EULER:
            return EulerDiscreteScheduler.from_config(config)
        case render_pb2.SAMPLER_UNIPC:
            return UniPCMultistepScheduler.from_config(config)
    raise InvalidForEngine(f"this renderer has no sampler {sampler}")
