from __future__ import annotations

from typing import Any

import pytest
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler, UniPCMultistepScheduler

from ourvidz.api.render.v1 import render_pb2
from ourvidz_sdxl.sampling import make_scheduler
from ourvidz_serving.engines.engine import InvalidForEngine


@pytest.fixture
def config() -> Any:
    return EulerDiscreteScheduler(beta_start=0.001, beta_end=0.02, beta_schedule="scaled_linear", steps_offset=1).config


@pytest.mark.parametrize(
    ("sampler", "kind"),
    [
        (render_pb2.SAMPLER_UNSPECIFIED, DPMSolverMultistepScheduler),
        (render_pb2.SAMPLER_DPMPP_2M_KARRAS, DPMSolverMultistepScheduler),
        (render_pb2.SAMPLER_EULER, EulerDiscreteScheduler),
        (render_pb2.SAMPLER_UNIPC, UniPCMultistepScheduler),
    ],
)
def test_each_sampler_is_a_new_scheduler_with_the_models_own_noise(
    config: Any, sampler: render_pb2.Sampler.ValueType, kind: type[Any]
) -> None:
    first, second = make_scheduler(sampler, config), make_scheduler(sampler, config)
    assert type(first) is kind
    assert first is not second
    assert (first.config.beta_start, first.config.beta_end, first.config.steps_offset) == (0.001, 0.02, 1)


def test_the_default_is_multistep_dpm_solver_with_karras_noise(config: Any) -> None:
    scheduler = make_scheduler(render_pb2.SAMPLER_UNSPECIFIED, config)
    assert scheduler.config.use_karras_sigmas
    assert (scheduler.config.algorithm_type, scheduler.config.solver_order) == ("dpmsolver++", 2)


def test_a_sampler_that_nobody_knows_is_refused(config: Any) -> None:
    with pytest.raises(InvalidForEngine, match="no sampler 99"):
        make_scheduler(99, config)  # type: ignore[arg-type]
