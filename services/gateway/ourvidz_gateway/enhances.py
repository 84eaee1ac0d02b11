"""The enhancing stage at an enhancer: the prompt goes there, and a longer one comes back.

An enhancer stores nothing, so there is nothing to attach to: a stream that breaks, or whose gateway is gone, is asked
for again, and with the job's seed the same model writes the same.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import grpc

from ourvidz.api.enhance.v1 import enhance_pb2, enhance_pb2_grpc
from ourvidz.rpc_status import parse
from ourvidz_gateway.errors import DatabaseUnavailable, ModerationUnavailable, PromptRefused
from ourvidz_gateway.plan import RenderPlan
from ourvidz_gateway.queue import Claim
from ourvidz_gateway.runs import (
    COOL_S,
    ENHANCER_LOST,
    Advanced,
    Failed,
    Outcome,
    Retry,
    RunContext,
    retry_elsewhere,
    unless_cancelled,
)
from ourvidz_gateway.text import is_prose

MAX_TOKENS = 512
"""WAN's text encoder reads no more."""
MAX_CHARACTERS = 2600
LIMIT_S = 600.0
"""An enhancer that takes longer is stuck; a 7B model on a CPU is done by then."""

CHECK_RETRY_S = 10.0
"""When to try again if what was written can't be checked, or its refusal not be recorded."""

ENHANCER_RULE = "enhancer"
"""In the audit, beside the hash of the prompt that the enhancer was given: the rule that it keeps to itself."""

REFUSED = "The enhanced prompt is not allowed here, so nothing was rendered."
CUT_WARNING = "The enhanced prompt was cut, because it became too long."


class EnhanceRun:
    """One attempt at enhancing a job's prompt. However it ends before its time, its call ends with it."""

    def __init__(self, claim: Claim, plan: RenderPlan, context: RunContext) -> None:
        self._claim = claim
        self._plan = plan
        self._context = context
        self._begun = False
        """Whether the enhancer has taken the prompt."""

    async def run(self, cancel: asyncio.Event) -> Outcome:
        """Enhance the prompt and put the result into the plan."""
        return await unless_cancelled(self._enhance(), cancel)

    async def _enhance(self) -> Outcome:
        async with self._context.renderers.channel(self._claim.kind, self._claim.address) as channel:
            call = enhance_pb2_grpc.EnhanceServiceStub(channel).Enhance(self._request(), timeout=LIMIT_S)
            try:
                async for response in call:
                    self._begun = True
                    if response.WhichOneof("event") == "finished":
                        return await self._outcome_of(response.finished)
                return Retry("STREAM_ENDED", counts=True)
            except grpc.aio.AioRpcError as error:
                return await self._outcome_of_error(error)
            finally:
                call.cancel()

    def _request(self) -> enhance_pb2.EnhanceRequest:
        clip = self._plan.frame_count is not None
        return enhance_pb2.EnhanceRequest(
            prompt=self._plan.prompt,
            medium=enhance_pb2.MEDIUM_VIDEO if clip else enhance_pb2.MEDIUM_IMAGE,
            language=self._context.enhance_language,
            max_token_count=MAX_TOKENS,
            max_character_count=MAX_CHARACTERS,
            seed=self._plan.seed,
        )

    async def _outcome_of(self, finished: enhance_pb2.Finished) -> Outcome:
        if not finished.text or not is_prose(finished.text):
            # A bare prompt is never rendered in its place.
            return Retry("NO_PROMPT", counts=True)
        claim = self._claim
        try:
            await self._context.policy.check_enhanced(
                claim.user_id, claim.job_id, prompt=finished.text, negative_prompt=self._plan.negative_prompt
            )
        except PromptRefused as error:
            return Failed(error.reason, REFUSED)
        except ModerationUnavailable as error:
            delay_s = max(CHECK_RETRY_S, error.retry_after_s or 0.0)
            return Retry("MODERATION_UNAVAILABLE", counts=False, delay_s=delay_s)
        except DatabaseUnavailable as error:
            return Retry(error.reason, counts=False, delay_s=CHECK_RETRY_S)
        warnings = [*finished.warnings, *([CUT_WARNING] if finished.truncated else [])]
        return Advanced(replace(self._plan, enhanced_prompt=finished.text), warnings)

    async def _outcome_of_error(self, error: grpc.aio.AioRpcError) -> Outcome:
        """Say what a broken stream means."""
        parsed = parse(error)
        if retry := retry_elsewhere(parsed, self._claim):
            return retry
        match parsed.reason:
            case "PROMPT_REFUSED":
                return await self._refused_by_enhancer(parsed.message)
            case "INVALID_REQUEST":
                return Failed(parsed.reason, f"The enhancer refused the prompt: {parsed.message}")
            case "UNAVAILABLE":
                return Retry(ENHANCER_LOST, counts=self._begun, cool_s=COOL_S)
            case reason:
                return Retry(reason, counts=True)

    async def _refused_by_enhancer(self, message: str) -> Outcome:
        """Fail the job, and record it: the enhancer keeps the same floor, and tells nobody what it wrote."""
        claim = self._claim
        try:
            await self._context.policy.record(
                claim.user_id, "enhanced_prompt", ENHANCER_RULE, self._plan.prompt, job_id=claim.job_id
            )
        except DatabaseUnavailable as error:
            return Retry(error.reason, counts=False, delay_s=CHECK_RETRY_S)
        return Failed("PROMPT_REFUSED", f"The enhancer refused the prompt: {message}")
