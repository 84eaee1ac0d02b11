"""The rendering stage at a renderer.

The renderer keeps the render by its own name, `<job>/<attempt>`, so the run may lose the stream, or hand over to
another gateway, and attach again without a step being rendered twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import grpc
import structlog
import tenacity
from grpc_status import rpc_status

from ourvidz.api.render.v1 import render_pb2, render_pb2_grpc
from ourvidz.rpc_status import parse
from ourvidz_gateway.answers import Nonsense, check_event, check_finished, check_outputs
from ourvidz_gateway.errors import DatabaseUnavailable
from ourvidz_gateway.events import Progress
from ourvidz_gateway.jobs import JobStage, StepDetail
from ourvidz_gateway.plan import RenderPlan, plan_to_request
from ourvidz_gateway.previews import Preview
from ourvidz_gateway.queue import Claim
from ourvidz_gateway.references import without_lost
from ourvidz_gateway.runs import (
    RENDERER_LOST,
    Cancelled,
    Completed,
    Failed,
    Outcome,
    Retry,
    RunContext,
    retry_elsewhere,
)

log = structlog.get_logger()

LOST_PATIENCE_S = 10.0
"""How long a renderer may be out of reach before its attempt is given up."""
REATTACH_INTERVAL_S = 0.5
DENOISING_SHARE = 95
"""Percent of the progress that the steps make up; the rest is decoding and storing."""
DEADLINE = "DEADLINE_EXCEEDED"


class RenderRun:
    """One attempt at rendering a job. When its task is cancelled, the renderer keeps the render."""

    def __init__(self, claim: Claim, plan: RenderPlan, context: RunContext) -> None:
        self._claim = claim
        self._plan = plan
        self._context = context
        self._session_id = context.session_id()
        self._begun = claim.accepted
        self._cancel: asyncio.Event
        self._seen = 0
        """Index of the renderer's last event that was seen."""
        self._steps_done = 0
        self._steps_total = plan.step_count * plan.image_count
        """As planned, until the renderer says how many it takes: towards a reference picture, it takes fewer."""
        self._lost_since: float | None = None
        self._uploading = False

    async def run(self, cancel: asyncio.Event) -> Outcome:
        """Render, in the time that the job has left."""
        self._cancel = cancel
        claim = self._claim
        with self._context.previews.rendering(claim.job_id):
            async with self._context.renderers.channel(claim.kind, claim.address) as channel:
                return await self._run(render_pb2_grpc.RenderServiceStub(channel))

    async def _run(self, stub: render_pb2_grpc.RenderServiceAsyncStub) -> Outcome:
        canceller = asyncio.create_task(self._cancel_when_asked(stub), name=f"cancel {self._claim.render_id}")
        try:
            async with asyncio.timeout(self._claim.remaining_s):
                return await self._render(stub)
        except TimeoutError:
            await self._stop(stub)
            minutes = self._plan.deadline_s / 60
            return Failed(DEADLINE, f"Rendering took longer than {minutes:g} minutes and was stopped.")
        finally:
            canceller.cancel()
            await asyncio.gather(canceller, return_exceptions=True)

    async def _render(self, stub: render_pb2_grpc.RenderServiceAsyncStub) -> Outcome:
        while True:
            if self._cancel.is_set() and not self._begun:
                return Cancelled()
            try:
                request = self._request()
                async for response in stub.Render(request):
                    self._lost_since = None
                    check_event(response, self._plan, seen=self._seen)
                    if response.index:
                        self._seen = response.index
                    if response.WhichOneof("event") == "finished":
                        finished = response.finished
                        check_finished(finished, request, self._plan)
                        return Completed(finished.outputs, _result_of(finished, self._plan), list(finished.warnings))
                    await self._tell(response)
                return Retry("STREAM_ENDED", counts=True)
            except Nonsense as nonsense:
                log.error("the renderer answers nonsense", address=self._claim.address, error=str(nonsense))
                await self._stop(stub)
                return Retry("NONSENSE", counts=True)
            except grpc.aio.AioRpcError as error:
                outcome = self._outcome_of(error)
            if outcome is not None:
                return outcome
            await asyncio.sleep(REATTACH_INTERVAL_S)

    def _request(self) -> render_pb2.RenderRequest:
        claim = self._claim
        request = plan_to_request(self._plan, claim.render_id, claim.user_id, claim.job_id, claim.attempt)
        request.attach_only = self._begun
        request.resume_from = self._seen
        return request

    async def _tell(self, response: render_pb2.RenderResponse) -> None:
        """Pass on what the renderer says, as the job's progress."""
        match response.WhichOneof("event"):
            case "accepted" if not self._begun:
                self._begun = True
                try:
                    await self._context.attempts.begun(self._claim, self._session_id)
                except DatabaseUnavailable:
                    # A successor will ask for the render instead of attaching to it, which comes to the same as long
                    # as this renderer lives.
                    log.warning("database away, the start of the render is not recorded")
            case "step":
                step = response.step
                self._steps_done = step.image_index * step.step_count + step.step
                self._steps_total = step.image_count * step.step_count
                detail = StepDetail(step.step, step.step_count, step.image_index, step.image_count)
                self._progress(JobStage.RENDERING, detail)
            case "preview":
                shown = response.preview
                self._context.previews.show(
                    Preview(self._claim.job_id, self._claim.attempt, shown.image_index, shown.step, shown.jpeg)
                )
            case "uploading" if self._steps_done == self._steps_total and not self._uploading:
                self._uploading = True
                self._progress(JobStage.UPLOADING)

    def _progress(self, stage: JobStage, step: StepDetail | None = None) -> None:
        percent = min(DENOISING_SHARE, DENOISING_SHARE * self._steps_done // self._steps_total)
        self._context.writer.tell(
            Progress(self._claim.job_id, self._claim.attempt, stage, percent, render_index=self._seen, step=step)
        )

    def _outcome_of(self, error: grpc.aio.AioRpcError) -> Outcome | None:
        """Say what a broken stream means; None: attach again."""
        parsed = parse(error)
        if parsed.reason == "CANCELLED" and self._cancel.is_set():
            return Cancelled(self._stored_outputs(error))
        if retry := retry_elsewhere(parsed, self._claim):
            return retry
        if lost := without_lost(self._plan, [field.field for field in parsed.fields]):
            # Its user deleted it. The next attempt has another name at the renderer, so that it may ask for something else.
            plan, warnings = lost
            return Retry("REFERENCE_GONE", counts=False, plan=plan, warnings=warnings)
        match parsed.reason:
            case "RENDER_NOT_FOUND":
                # It was begun, and its renderer does not know it any more: the renderer has been replaced.
                return Cancelled() if self._cancel.is_set() else Retry(RENDERER_LOST, counts=True)
            case "INVALID_REQUEST" | "PROMPT_REFUSED" | "RENDER_EXISTS" | "OUTPUT_TOO_LARGE":
                return Failed(parsed.reason, f"The renderer refused the job: {parsed.message}")
            case "STORAGE_UNAVAILABLE" if parsed.retry_after_s is not None and not self._cancel.is_set():
                # It could not begin, which no renderer could now. One that can't store what it made gives no time.
                return Retry(parsed.reason, counts=False, delay_s=parsed.retry_after_s)
            case "UNAVAILABLE":
                return self._lost(parsed.message)
            case reason:
                return Cancelled() if self._cancel.is_set() else Retry(reason, counts=True)

    def _stored_outputs(self, error: grpc.aio.AioRpcError) -> Sequence[render_pb2.Output]:
        """Return the outputs that a cancelled render had stored, which come as a detail of its status."""
        status = rpc_status.from_call(error)
        finished = render_pb2.Finished()
        for detail in status.details if status else ():
            if detail.Unpack(finished):
                try:
                    check_outputs(list(finished.outputs), self._request(), self._plan, complete=False)
                except Nonsense as nonsense:
                    log.error("the renderer answers nonsense", address=self._claim.address, error=str(nonsense))
                    return ()
                return finished.outputs
        return ()

    def _lost(self, message: str) -> Outcome | None:
        """Say what to do when the renderer can't be reached: attach again for a while, then give the attempt up."""
        now = time.monotonic()
        self._lost_since = self._lost_since or now
        log.warning("lost the renderer, attaching again", address=self._claim.address, error=message)
        if now - self._lost_since < LOST_PATIENCE_S:
            return None
        return Cancelled() if self._cancel.is_set() else Retry(RENDERER_LOST, counts=self._begun)

    async def _cancel_when_asked(self, stub: render_pb2_grpc.RenderServiceAsyncStub) -> None:
        await self._cancel.wait()
        heard = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_result(lambda heard: not heard), wait=tenacity.wait_fixed(REATTACH_INTERVAL_S)
        )
        await heard(self._stop, stub)

    async def _stop(self, stub: render_pb2_grpc.RenderServiceAsyncStub) -> bool:
        """Cancel the render at the renderer; return whether it heard, and not before the render was there."""
        try:
            response = await stub.CancelRender(
                render_pb2.CancelRenderRequest(render_id=self._claim.render_id), timeout=5
            )
        except grpc.aio.AioRpcError as error:
            log.warning("cancelling did not reach the renderer", address=self._claim.address, error=error.details())
            return False
        return bool(response.state != render_pb2.CancelRenderResponse.STATE_UNKNOWN)


def _result_of(finished: render_pb2.Finished, plan: RenderPlan) -> dict[str, Any]:
    """Return what the result adds to the job's metadata."""
    result: dict[str, Any] = {
        "seed": finished.outputs[0].seed if finished.outputs else plan.seed,
        "model": finished.model,
        "width": plan.width_px,
        "height": plan.height_px,
        "timings": {timing.stage: timing.duration.ToTimedelta().total_seconds() for timing in finished.timings},
        "peak_memory_bytes": finished.peak_memory_bytes,
    }
    if plan.frame_count is not None and finished.outputs:
        clip = finished.outputs[0]
        result["frames"] = clip.frame_count
        result["duration_seconds"] = clip.duration.ToTimedelta().total_seconds()
    if finished.memory_rung:
        result["memory_rung"] = finished.memory_rung
    if finished.reference_engine:
        result["reference_engine"] = finished.reference_engine
    return result
