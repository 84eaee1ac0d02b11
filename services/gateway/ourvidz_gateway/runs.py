"""One attempt at a stage, from the claim to its recorded end: what fetching, enhancing and rendering have in common.

What a stage does is a `StageRun`, one class for each stage. How often it is tried, what becomes of a cancel, and how
the end is recorded through outages of the database is the same for all, and stands here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from uuid import UUID

import structlog
import tenacity

from ourvidz.api.enhance.v1 import enhance_pb2
from ourvidz.api.render.v1 import render_pb2
from ourvidz.rpc_status import ParsedError
from ourvidz_gateway.attempts import CANCELLED_MESSAGE, Attempts
from ourvidz_gateway.database import Database
from ourvidz_gateway.errors import DatabaseUnavailable
from ourvidz_gateway.events import EventWriter
from ourvidz_gateway.feeds import Feeds
from ourvidz_gateway.jobs import JobEvent, JobStage, Kind
from ourvidz_gateway.plan import RenderPlan
from ourvidz_gateway.previews import Previews
from ourvidz_gateway.prompt_policy import PromptPolicy
from ourvidz_gateway.queue import Claim
from ourvidz_gateway.renderers import Renderers

log = structlog.get_logger()

MAX_ATTEMPTS = 3
"""Attempts that count, over all stages of a job."""
COOL_S = 1.0
"""How long a slot is left alone whose server said that it is busy, when it gave no time."""
MISCONFIGURED_COOL_S = 10.0

RENDERER_LOST = "RENDERER_LOST"
ENHANCER_LOST = "ENHANCER_LOST"
DEADLY = frozenset({"ENGINE_DIED", RENDERER_LOST, ENHANCER_LOST})
"""Reasons after which a job is suspected of taking servers down."""


@dataclass(frozen=True, slots=True)
class Advanced:
    """The stage is done and another one follows, which reads `plan`; the plan's stages are what they were."""

    plan: RenderPlan
    warnings: Sequence[str] = ()
    """What the user should know, in words; they are added to the job's."""


@dataclass(frozen=True, slots=True)
class Completed:
    """The last stage is done: the outputs are stored."""

    outputs: Sequence[render_pb2.Output]
    result: Mapping[str, Any] = field(default_factory=dict)
    """What it adds to the job's metadata."""
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """Trying again would not help; `message` is for the user."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Retry:
    """Another attempt may work.

    One that `counts` is one of the three that a job has, and the next comes after a delay that doubles. One that does
    not count is not charged to its user, comes again after `delay_s` seconds, and leaves its slot alone for `cool_s`.
    """

    reason: str
    counts: bool
    cool_s: float = 0.0
    delay_s: float = 0.0
    plan: RenderPlan | None = None
    """What the next attempt reads; None: the same."""
    warnings: Sequence[str] = ()
    """What the user should know of the change, in words."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The user cancelled it; these outputs were stored by then."""

    outputs: Sequence[render_pb2.Output] = ()


Outcome = Advanced | Completed | Failed | Retry | Cancelled


class References(Protocol):
    """Where a job's reference pictures come from."""

    async def settle(self, plan: RenderPlan, *, user_id: str, job_id: UUID) -> tuple[RenderPlan, list[str]]:
        """Return the plan with its references stored, and a warning in words for each that can't be had.

        Raises `StorageUnavailable` and `DatabaseUnavailable`. Done again for the same job, it comes to the same.
        """
        ...


@dataclass(frozen=True, slots=True)
class RunContext:
    """What every run of a gateway shares."""

    database: Database
    attempts: Attempts
    writer: EventWriter
    feeds: Feeds
    renderers: Renderers
    references: References
    policy: PromptPolicy
    previews: Previews
    enhance_language: enhance_pb2.Language.ValueType
    """The language that prompts are enhanced in."""
    wait_limit_s: float
    """How long a job waits for a stage to start; then it fails."""
    session_id: Callable[[], UUID]


class StageRun(Protocol):
    """The work of one attempt at one stage. It records nothing: it says how it ended, and `Run` stores that."""

    async def run(self, cancel: asyncio.Event) -> Outcome:
        """Do the work to its end.

        `cancel` is set, perhaps from the start, when the job's user cancels it: then the work is stopped and
        `Cancelled` returned soon (`unless_cancelled` does so for work that needs no more than to be dropped).
        When the task is cancelled instead, this gateway leaves or has lost the attempt: stop at once and let
        `CancelledError` through; a successor runs the same attempt again. What can pass (a server or a store that is
        away) is a `Retry` that does not count. Any exception is a bug of ours and counts as a failure.
        """
        ...


StageRunFactory = Callable[[Claim, RenderPlan, RunContext], StageRun]
"""Makes a stage's run, from what was claimed and the plan as the stages before left it. Touches nothing yet."""


def nobody_was_free(kind: Kind, wait_limit_s: float) -> str:
    """Return what users are told of a job that waited for too long."""
    return f"No {kind.server} was free for {wait_limit_s / 60:g} minutes."


def cost_of(plan: RenderPlan, stage: JobStage) -> float:
    """Return the work that a stage brings its lane; lanes of one kind share by it, and no two kinds share a lane."""
    return plan.cost if stage is JobStage.RENDERING else 1.0


def stage_after(plan: RenderPlan, stage: JobStage) -> JobStage:
    """Return the stage that follows one that is not the last."""
    return plan.stages[plan.stages.index(stage) + 1]


async def unless_cancelled(work: Coroutine[Any, Any, Outcome], cancel: asyncio.Event) -> Outcome:
    """Return how `work` ends; if `cancel` is set before that, stop it and return `Cancelled`."""
    working = asyncio.create_task(work)
    asked = asyncio.create_task(cancel.wait())
    try:
        await asyncio.wait({working, asked}, return_when=asyncio.FIRST_COMPLETED)
        return Cancelled() if asked.done() and not working.done() else await working
    finally:
        for task in (working, asked):
            task.cancel()
        await asyncio.gather(working, asked, return_exceptions=True)


def retry_elsewhere(parsed: ParsedError, claim: Claim) -> Retry | None:
    """Return what follows when a server does not take an attempt that it could make; None for other errors."""
    match parsed.reason:
        case "BUSY" | "DRAINING" | "MODEL_NOT_LOADED":
            return Retry(parsed.reason, counts=False, cool_s=parsed.retry_after_s or COOL_S)
        case "CANCELLED":
            return Retry(parsed.reason, counts=False)
        case "UNAUTHENTICATED" | "PERMISSION_DENIED":
            log.error("the server does not accept this gateway's service token", kind=claim.kind, address=claim.address)
            return Retry(parsed.reason, counts=False, cool_s=MISCONFIGURED_COOL_S)
        case _:
            return None


class Run:
    """One attempt. Cancelling its task abandons it, for a successor to take over."""

    def __init__(self, claim: Claim, make: StageRunFactory, context: RunContext) -> None:
        self.claim = claim
        self._make = make
        self._context = context
        self.session_id = context.session_id()
        self._plan: RenderPlan
        self._cancel = asyncio.Event()

    def cancel(self) -> None:
        """Stop the work because the job's user wants so. Returns at once."""
        self._cancel.set()

    async def run(self) -> Outcome:
        """Do the stage's work and record how it ended; return that."""
        with self._context.feeds.owning(self.claim.job_id), self._context.writer.following(self.claim.job_id):
            try:
                self._plan = RenderPlan.from_json(self.claim.request)
            except (KeyError, TypeError, ValueError):
                log.exception("a job can't be read")
                outcome: Outcome = Failed("UNREADABLE", "The job was stored by a version that this one can't read.")
            else:
                outcome = self._rested(await self._make(self.claim, self._plan, self._context).run(self._cancel))
            await self.record(outcome)
        return outcome

    @tenacity.retry(
        retry=tenacity.retry_if_exception_type(DatabaseUnavailable),
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=5),
        before_sleep=lambda state: log.warning("database away, a result waits", tries=state.attempt_number),
    )
    async def record(self, outcome: Outcome) -> None:
        """Store how the attempt ended, through outages of the database."""
        await self._context.writer.settle(self.claim.job_id)
        event = await self._store(outcome)
        if event is None:
            log.warning("somebody else has this job now, its result here is dropped", outcome=type(outcome).__name__)
            return
        log.info("attempt ended", outcome=type(outcome).__name__, state=event.state)
        self._context.feeds.publish([event])

    def _rested(self, outcome: Outcome) -> Outcome:
        """Take note of how the server did, and let one that fails again and again rest for a while."""
        kind, address = self.claim.kind, self.claim.address
        match outcome:
            case Completed() | Advanced():
                self._context.renderers.note_success(kind, address)
            case Retry(counts=True) if kind is not Kind.FETCHER:
                return replace(outcome, cool_s=self._context.renderers.note_failure(kind, address))
        return outcome

    def next_kind(self, outcome: Outcome) -> Kind | None:
        """Return the kind that the job waits for after this outcome; None when it does not wait."""
        match outcome:
            case Advanced(plan):
                return plan.kind_of(stage_after(plan, self.claim.stage))
            case Retry():
                return self.claim.kind
            case _:
                return None

    async def _store(self, outcome: Outcome) -> JobEvent | None:
        attempts, claim, session_id = self._context.attempts, self.claim, self.session_id
        match outcome:
            case Advanced(plan, warnings):
                stage = stage_after(plan, claim.stage)
                return await attempts.advance(
                    claim,
                    session_id,
                    request=plan.to_json(),
                    warnings=warnings,
                    kind=plan.kind_of(stage),
                    cost=cost_of(plan, stage),
                )
            case Completed(outputs, result, warnings):
                return await attempts.complete(claim, session_id, outputs=outputs, result=result, warnings=warnings)
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
            case Retry():
                return await self._store_retry(outcome)

    async def _store_retry(self, outcome: Retry) -> JobEvent | None:
        attempts, claim, session_id = self._context.attempts, self.claim, self.session_id
        if outcome.plan is not None:
            await attempts.revise(claim, session_id, request=outcome.plan.to_json(), warnings=outcome.warnings)
        failures = await attempts.failures(claim.job_id)
        if outcome.counts and failures + 1 >= MAX_ATTEMPTS:
            return await attempts.fail(
                claim,
                session_id,
                reason=outcome.reason,
                message=f"The job failed {MAX_ATTEMPTS} times; the last time while {claim.stage}: {outcome.reason}.",
                quarantine=outcome.reason in DEADLY,
            )
        limit_s = self._context.wait_limit_s
        # Each claim ends a wait in the queue, so one that comes to nothing again and again would wait for ever.
        if not outcome.counts and await attempts.handed_back_for_s(claim.job_id) >= limit_s:
            message = nobody_was_free(claim.kind, limit_s)
            return await attempts.fail(claim, session_id, reason=outcome.reason, message=message)
        return await attempts.retry(
            claim,
            session_id,
            reason=outcome.reason,
            counts=outcome.counts,
            delay_s=2.0**failures if outcome.counts else outcome.delay_s,
            cool_s=outcome.cool_s,
            cost=cost_of(self._plan, claim.stage),
        )
