"""One rendering attempt, from the claim to its recorded end.

The renderer keeps the render by its own name, `<job>/<attempt>`, so the run may lose the stream, or hand over to
another gateway, and attach again without a step being rendered twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import grpc
import structlog
import tenacity
from grpc_status import rpc_status

from ourvidz.api.render.v1 import render_pb2, render_pb2_grpc
from ourvidz.rpc_status import parse
from ourvidz_gateway.attempts import CANCELLED_MESSAGE, Attempts
from ourvidz_gateway.database import Database
from ourvidz_gateway.errors import DatabaseUnavailable
from ourvidz_gateway.events import EventWriter, Progress
from ourvidz_gateway.feeds import Feeds
from ourvidz_gateway.jobs import JobEvent, JobStage, StepDetail
from ourvidz_gateway.plan import RenderPlan, plan_to_request
from ourvidz_gateway.queue import Claim
from ourvidz_gateway.renderers import Renderers

log = structlog.get_logger()

MAX_ATTEMPTS = 3
LOST_PATIENCE_S = 10.0
"""How long a renderer may be out of reach before its attempt is given up."""
REATTACH_INTERVAL_S = 0.5
COOL_S = 1.0
"""How long a slot is left alone whose renderer said that it is busy, when it gave no time."""
MISCONFIGURED_COOL_S = 10.0
DENOISING_SHARE = 95
"""Percent of the progress that the steps make up; the rest is decoding and storing."""

RENDERER_LOST = "RENDERER_LOST"
DEADLINE = "DEADLINE_EXCEEDED"
DEADLY = frozenset({"ENGINE_DIED", RENDERER_LOST})
"""Reasons after which a job is suspected of taking renderers down."""


@dataclass(frozen=True, slots=True)
class Completed:
    """The outputs are stored."""

    finished: render_pb2.Finished


@dataclass(frozen=True, slots=True)
class Failed:
    """Trying again would not help; `message` is for the user."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Retry:
    """Another attempt may work. `counts`: this one was one of the three."""

    reason: str
    counts: bool
    cool_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The user cancelled it; these outputs were stored by then."""

    outputs: Sequence[render_pb2.Output] = ()


Outcome = Completed | Failed | Retry | Cancelled


@dataclass(frozen=True, slots=True)
class RunContext:
    """What every run of a gateway shares."""

    database: Database
    attempts: Attempts
    writer: EventWriter
    feeds: Feeds
    renderers: Renderers
    session_id: Callable[[], UUID]


class RenderRun:
    """One attempt at the rendering stage of one job. Cancelling its task abandons it: the renderer keeps the render."""

    def __init__(self, claim: Claim, context: RunContext) -> None:
        self.claim = claim
        self._context = context
        self._session_id = context.session_id()
        self._plan: RenderPlan
        self._begun = claim.accepted
        self._cancel = asyncio.Event()
        self._seen = 0
        """Index of the renderer's last event that was seen."""
        self._steps_done = 0
        self._lost_since: float | None = None
        self._uploading = False

    def cancel(self) -> None:
        """Stop the render because its user wants so. Returns at once."""
        self._cancel.set()

    async def run(self) -> Outcome:
        """Render and record how it ended; return that."""
        with self._context.feeds.owning(self.claim.job_id):
            try:
                self._plan = RenderPlan.from_json(self.claim.request)
            except (KeyError, TypeError, ValueError):
                log.exception("a job can't be read")
                outcome: Outcome = Failed("UNREADABLE", "The job was stored by a version that this one can't read.")
            else:
                outcome = await self._render_in_time()
            await self.record(outcome)
        return outcome

    async def _render_in_time(self) -> Outcome:
        async with self._context.renderers.channel(self.claim.kind, self.claim.address) as channel:
            stub = render_pb2_grpc.RenderServiceStub(channel)
            canceller = asyncio.create_task(self._cancel_when_asked(stub), name=f"cancel {self.claim.render_id}")
            try:
                async with asyncio.timeout(self.claim.remaining_s):
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
                async for response in stub.Render(self._request()):
                    self._lost_since = None
                    if response.index:
                        self._seen = response.index
                    if response.WhichOneof("event") == "finished":
                        return Completed(response.finished)
                    await self._tell(response)
                return Retry("STREAM_ENDED", counts=True)
            except grpc.aio.AioRpcError as error:
                outcome = self._outcome_of(error)
            if outcome is not None:
                return outcome
            await asyncio.sleep(REATTACH_INTERVAL_S)

    def _request(self) -> render_pb2.RenderRequest:
        claim = self.claim
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
                    await self._context.attempts.begun(self.claim, self._session_id)
                except DatabaseUnavailable:
                    # A successor will ask for the render instead of attaching to it, which comes to the same as long
                    # as this renderer lives.
                    log.warning("database away, the start of the render is not recorded")
            case "step":
                step = response.step
                self._steps_done = step.image_index * step.step_count + step.step
                detail = StepDetail(step.step, step.step_count, step.image_index, step.image_count)
                self._progress(JobStage.RENDERING, detail)
            case "uploading" if self._steps_done == self._steps_total and not self._uploading:
                self._uploading = True
                self._progress(JobStage.UPLOADING)

    def _progress(self, stage: JobStage, step: StepDetail | None = None) -> None:
        percent = min(DENOISING_SHARE, DENOISING_SHARE * self._steps_done // self._steps_total)
        self._context.writer.tell(
            Progress(self.claim.job_id, self.claim.attempt, stage, percent, render_index=self._seen, step=step)
        )

    @property
    def _steps_total(self) -> int:
        return self._plan.step_count * self._plan.image_count

    def _outcome_of(self, error: grpc.aio.AioRpcError) -> Outcome | None:
        """Say what a broken stream means; None: attach again."""
        parsed = parse(error)
        match parsed.reason:
            case "CANCELLED" if self._cancel.is_set():
                return Cancelled(_stored_outputs(error))
            case "BUSY" | "DRAINING" | "MODEL_NOT_LOADED":
                return Retry(parsed.reason, counts=False, cool_s=parsed.retry_after_s or COOL_S)
            case "CANCELLED":
                return Retry(parsed.reason, counts=False)
            case "RENDER_NOT_FOUND":
                # It was begun, and its renderer does not know it any more: the renderer has been replaced.
                return Cancelled() if self._cancel.is_set() else Retry(RENDERER_LOST, counts=True)
            case "INVALID_REQUEST" | "RENDER_EXISTS" | "OUTPUT_TOO_LARGE":
                return Failed(parsed.reason, f"The renderer refused the job: {parsed.message}")
            case "UNAUTHENTICATED" | "PERMISSION_DENIED":
                log.error("the renderer does not accept this gateway's service token", address=self.claim.address)
                return Retry(parsed.reason, counts=False, cool_s=MISCONFIGURED_COOL_S)
            case "UNAVAILABLE":
                return self._lost(parsed.message)
            case reason:
                return Cancelled() if self._cancel.is_set() else Retry(reason, counts=True)

    def _lost(self, message: str) -> Outcome | None:
        """Say what to do when the renderer can't be reached: attach again for a while, then give the attempt up."""
        now = time.monotonic()
        self._lost_since = self._lost_since or now
        log.warning("lost the renderer, attaching again", address=self.claim.address, error=message)
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
                render_pb2.CancelRenderRequest(render_id=self.claim.render_id), timeout=5
            )
        except grpc.aio.AioRpcError as error:
            log.warning("cancelling did not reach the renderer", address=self.claim.address, error=error.details())
            return False
        return bool(response.state != render_pb2.CancelRenderResponse.STATE_UNKNOWN)

    @tenacity.retry(
        retry=tenacity.retry_if_exception_type(DatabaseUnavailable),
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=5),
        before_sleep=lambda state: log.warning("database away, a result waits", tries=state.attempt_number),
    )
    async def record(self, outcome: Outcome) -> None:
        """Store how the attempt ended, through outages of the database."""
        await self._context.writer.flush()
        event = await self._store(outcome)
        if event is None:
            log.warning("somebody else has this job now, its result here is dropped", outcome=type(outcome).__name__)
            return
        log.info("attempt ended", outcome=type(outcome).__name__, state=event.state)
        self._context.feeds.publish([event])

    async def _store(self, outcome: Outcome) -> JobEvent | None:
        attempts, claim, session_id = self._context.attempts, self.claim, self._session_id
        match outcome:
            case Completed(finished):
                return await attempts.complete(
                    claim,
                    session_id,
                    outputs=finished.outputs,
                    result=_result_of(finished, self._plan),
                    warnings=list(finished.warnings),
                )
            case Cancelled(outputs):
                return await attempts.cancelled(
                    claim,
                    session_id,
                    message=CANCELLED_MESSAGE,
                    outputs=outputs,
                    result={"seed": self._plan.seed},
                )
            case Failed(reason, message):
                return await attempts.fail(claim, session_id, reason=reason, message=message)
            case Retry(reason, counts, cool_s):
                failures = await attempts.failures(claim.job_id)
                if counts and failures + 1 >= MAX_ATTEMPTS:
                    return await attempts.fail(
                        claim,
                        session_id,
                        reason=reason,
                        message=f"Rendering failed {MAX_ATTEMPTS} times; the last time: {reason}.",
                        quarantine=reason in DEADLY,
                    )
                delay_s = 2.0**failures if counts else 0.0
                return await attempts.retry(
                    claim,
                    session_id,
                    reason=reason,
                    counts=counts,
                    delay_s=delay_s,
                    cool_s=cool_s,
                    cost=self._plan.cost,
                )


def _stored_outputs(error: grpc.aio.AioRpcError) -> Sequence[render_pb2.Output]:
    """Return the outputs that a cancelled render had stored, which come as a detail of its status."""
    status = rpc_status.from_call(error)
    finished = render_pb2.Finished()
    for detail in status.details if status else ():
        if detail.Unpack(finished):
            return finished.outputs
    return ()


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
    if finished.memory_rung:
        result["memory_rung"] = finished.memory_rung
    return result
