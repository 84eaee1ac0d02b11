"""Jobs whose prompt is enhanced first, for an enhancer that answers what a test has written down."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from ourvidz_gateway.gateway import Gateway
from ourvidz_gateway.jobs import NewJob
from ourvidz_serving.errors import InvalidRequest
from support.jobs import painted_job

Open = Callable[..., AbstractAsyncContextManager[Gateway]]

PROMPT = "a fox"
ENHANCED = "A red fox in deep snow, low sun, slow push-in"


class PromptRefused(InvalidRequest):
    """What an enhancer says that will not write what was asked."""

    reason = "PROMPT_REFUSED"


def enhanced_job(job_type: str = "image7b_fast_enhanced", **request: object) -> NewJob:
    return painted_job(job_type=job_type, prompt=PROMPT, **request)
