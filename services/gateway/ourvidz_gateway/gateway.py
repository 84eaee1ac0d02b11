"""The gateway behind its fronts: the jobs of all users, from acceptance to what became of them."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from datetime import datetime
from uuid import UUID

import structlog

from ourvidz.api.enhance.v1 import enhance_pb2
from ourvidz_gateway.acceptance import Terms
from ourvidz_gateway.attempts import CANCELLED_MESSAGE, Attempts
from ourvidz_gateway.backlog import BacklogView
from ourvidz_gateway.cleaner import Cleaner
from ourvidz_gateway.database import migrate, open_database
from ourvidz_gateway.dispatch import Dispatcher
from ourvidz_gateway.enhances import EnhanceRun
from ourvidz_gateway.errors import (
    DatabaseUnavailable,
    IdempotencyConflict,
    InsufficientCredits,
    NoRenderer,
    QueueFull,
    RateLimited,
)
from ourvidz_gateway.events import EventWriter
from ourvidz_gateway.feeds import Feeds
from ourvidz_gateway.fetches import FetchRun
from ourvidz_gateway.jobs import (
    Accepted,
    Job,
    JobEvent,
    JobFilter,
    JobStage,
    JobState,
    Kind,
    NewJob,
    QueueStatus,
)
from ourvidz_gateway.parts import Parts, open_parts
from ourvidz_gateway.plan import RenderPlan
from ourvidz_gateway.quarantine import Quarantine
from ourvidz_gateway.queue import Queue
from ourvidz_gateway.records import Records, shown_metadata
from ourvidz_gateway.renderers import Renderers
from ourvidz_gateway.renders import RenderRun
from ourvidz_gateway.runs import RunContext, StageRunFactory, cost_of
from ourvidz_gateway.sessions import Session, SessionCallbacks
from ourvidz_gateway.settings import GatewaySettings
from ourvidz_gateway.signals import Signals
from ourvidz_gateway.webhooks import WebhookSender
from ourvidz_serving.storage import ObjectStore

log = structlog.get_logger()

QUEUE_FULL_RETRY_S = 10.0


class Gateway:
    """Implements `application.Jobs` on the queue. Make one with `open_gateway`."""

    def __init__(
        self,
        *,
        queue: Queue,
        records: Records,
        feeds: Feeds,
        dispatcher: Dispatcher,
        renderers: Renderers,
        signals: Signals,
        backlog: BacklogView,
        parts: Parts,
        quarantine: Quarantine,
        queue_limit: int,
    ) -> None:
        self.parts = parts
        self.quarantine = quarantine
        self._queue = queue
        self._records = records
        self._feeds = feeds
        self._dispatcher = dispatcher
        self._renderers = renderers
        self._signals = signals
        self._backlog = backlog
        self._queue_limit = queue_limit

    async def accept(self, job: NewJob) -> Accepted:
        """Store a job and wake a dispatcher for it.

        It is refused when any queue that it has to pass is full. The queue length that is told is that of the queue
        it renders from, this job counted, though it may have to be fetched for or enhanced before it gets there.
        """
        plan = RenderPlan.from_json(job.request)
        try:
            accepted = await self._enter(job, plan, plan.stages)
        except (NoRenderer, QueueFull, InsufficientCredits, RateLimited):
            # What was accepted under a key stays so, whatever would stand in its way today.
            before = await self.accepted_before(job.user_id, job.idempotency_key, job.fingerprint)
            if before is None:
                raise
            return before
        if accepted is None:
            accepted = await self.accepted_before(job.user_id, job.idempotency_key, job.fingerprint)
        # The key can only have gone in between if its time was up at this very moment.
        return accepted or await self.accept(job)

    async def release(self, job: NewJob, stages: Sequence[JobStage]) -> None:
        """Let in a job that tries a quarantined one again, which an operator wants: its user's limits do not hold.

        Where another one does so already, nothing happens. Raises `InsufficientCredits`, `NoRenderer`, `QueueFull`.
        """
        await self._enter(job, RenderPlan.from_json(job.request), stages, limited=False)

    async def _enter(
        self, job: NewJob, plan: RenderPlan, stages: Sequence[JobStage], *, limited: bool = True
    ) -> Accepted | None:
        """Let a job wait for the first of `stages`, and tell whom it concerns; None when it stands already."""
        kinds = [plan.kind_of(stage) for stage in stages]
        for kind in kinds:
            if kind is not Kind.FETCHER and not self._renderers.configured(kind):
                raise NoRenderer(f"No {kind.server} is configured, so {job.job_type} can't be made here.")
        depths = [await self._backlog.depth(kind) for kind in kinds]
        if max(depths) >= self._queue_limit:
            raise QueueFull(f"{max(depths)} jobs wait already; no more are taken.", retry_after_s=QUEUE_FULL_RETRY_S)
        created_at = await self._queue.accept(
            job, renderer=plan.kind, stages=stages, cost=cost_of(plan, stages[0]), limited=limited
        )
        if created_at is None:
            return None
        self._backlog.accepted(job.kind)
        self._dispatcher.wake(job.kind)
        if job.start_timeout_s is not None:
            self._dispatcher.tend_soon()
        self._signals.work(job.kind)
        return Accepted(_as_accepted(job, created_at), queue_length=depths[-1] + 1)

    async def accepted_before(self, user_id: str, idempotency_key: str | None, fingerprint: bytes) -> Accepted | None:
        """Return the job that stands under the same idempotency key. Raises `IdempotencyConflict` for another request."""
        if idempotency_key is None:
            return None
        found = await self._queue.accepted_before(user_id, idempotency_key)
        if found is None:
            return None
        job_id, of_first, renderer = found
        if of_first != fingerprint:
            raise IdempotencyConflict("Another request was sent under the same idempotency key.")
        return Accepted(await self._records.get(user_id, job_id), await self._backlog.depth(renderer))

    async def get(self, user_id: str, job_id: UUID) -> Job:
        """Return one job."""
        return await self._records.get(user_id, job_id)

    async def page(
        self, user_id: str, where: JobFilter, *, page_size: int, page_token: str | None
    ) -> tuple[list[Job], str | None]:
        """Return a page of jobs and the token of the next."""
        return await self._records.page(user_id, where, page_size=page_size, page_token=page_token)

    async def cancel(self, user_id: str, job_id: UUID) -> tuple[JobState, Job]:
        """Cancel a job: at once while it waits, within a step while it runs."""
        found = await self._records.state(user_id, job_id)
        if not found.terminal:
            await self._records.request_cancel(user_id, job_id)
            event = await self._queue.withdraw(job_id, state=JobState.CANCELLED, message=CANCELLED_MESSAGE)
            if event is not None:
                self._feeds.publish([event])
            elif not self._dispatcher.cancel(job_id):
                self._signals.cancel(job_id)
        return found, await self._records.get(user_id, job_id)

    async def watch(self, user_id: str, job_id: UUID, *, after: int = 0) -> AsyncIterator[JobEvent]:
        """Yield a job's events to the terminal one."""
        await self._records.state(user_id, job_id)
        async with aclosing(self._feeds.watch(job_id, after=after)) as events:
            async for event in events:
                yield event

    async def queue_status(self) -> list[QueueStatus]:
        """Return all queues."""
        return await self._backlog.status()

    def drain(self) -> None:
        """Claim no more work, because the server drains. What runs goes on; others take it over at the end."""
        self._dispatcher.drain()

    def close_watches(self) -> None:
        """End all watches, because the server drains."""
        self._feeds.close()


MAKE_RUNS: Mapping[JobStage, StageRunFactory] = {
    JobStage.FETCHING: FetchRun,
    JobStage.ENHANCING: EnhanceRun,
    JobStage.RENDERING: RenderRun,
}

_LANGUAGES = {
    "zh": enhance_pb2.LANGUAGE_CHINESE,
    "en": enhance_pb2.LANGUAGE_ENGLISH,
    "prompt": enhance_pb2.LANGUAGE_UNSPECIFIED,
}


@asynccontextmanager
async def open_gateway(settings: GatewaySettings, store: ObjectStore) -> AsyncIterator[Gateway]:
    """Bring the schema up to date, start dispatching, and hand everything back at the end."""
    dsn = settings.database_url.get_secret_value()
    await migrate(dsn)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(dsn))
        # A beat must not wait behind requests.
        beat_database = await stack.enter_async_context(open_database(dsn, max_connections=1))
        log_database = await stack.enter_async_context(open_database(dsn, max_connections=1, durable=False))
        operator_webhook = settings.webhook_url is not None
        queue = Queue(database, Terms.from_settings(settings), operator_webhook=operator_webhook)
        webhooks = WebhookSender(database, store, settings)
        feeds = Feeds(database, on_end=webhooks.wake)
        # These six know each other: what one sees, another acts on. The lambdas look the others up when called.
        signals = Signals(
            dsn,
            on_work=lambda kind: dispatcher.wake(kind),  # noqa: PLW0108  # it is made further down
            on_cancel=lambda job_id: dispatcher.cancel(job_id),  # noqa: PLW0108
            on_preview=lambda job_id: parts.previews.wanted(job_id),  # noqa: PLW0108
        )
        cleaner = Cleaner(database, store, settings)
        parts = await stack.enter_async_context(
            open_parts(database, store, settings, ask_others=signals.preview, on_deleted=cleaner.wake)
        )
        renderers = Renderers(
            settings.renderers,
            database,
            service_token=settings.service_token.get_secret_value() if settings.service_token else None,
            on_ready=lambda kind: dispatcher.wake(kind),  # noqa: PLW0108
        )
        session = Session(
            beat_database,
            name=f"{socket.gethostname()}:{os.getpid()}",
            lease_s=settings.lease_s,
            callbacks=SessionCallbacks(
                take_over=lambda claims: dispatcher.take_over(claims),  # noqa: PLW0108  # it is made further down
                cancel=lambda job_id: dispatcher.cancel(job_id),  # noqa: PLW0108
                lost=lambda: dispatcher.abandon(),  # noqa: PLW0108
                running=lambda: dispatcher.jobs,
            ),
        )
        writer = EventWriter(log_database, lambda: session.id, feeds.publish)
        context = RunContext(
            database=database,
            attempts=Attempts(database, operator_webhook=operator_webhook),
            writer=writer,
            feeds=feeds,
            renderers=renderers,
            references=parts.references,
            policy=parts.policy,
            previews=parts.previews,
            enhance_language=_LANGUAGES[settings.enhance_language],
            wait_limit_s=settings.wait_limit_s,
            session_id=lambda: session.id,
        )
        dispatcher = Dispatcher(
            queue,
            context,
            make_runs=MAKE_RUNS,
            tell_others=signals.work,
        )
        gateway = Gateway(
            queue=queue,
            records=Records(database),
            feeds=feeds,
            dispatcher=dispatcher,
            renderers=renderers,
            signals=signals,
            backlog=BacklogView(queue, renderers),
            parts=parts,
            quarantine=Quarantine(database, lambda job, stages: gateway.release(job, stages)),  # noqa: PLW0108
            queue_limit=settings.queue_limit,
        )
        await session.begin()
        failure: Exception | None = None
        # A part that fails takes the process down, to be started anew: half a gateway would accept jobs and lose time.
        async with asyncio.TaskGroup() as group:
            running = [
                group.create_task(part.run(), name=type(part).__name__)
                for part in (
                    renderers,
                    dispatcher,
                    session,
                    writer,
                    feeds,
                    signals,
                    parts.previews,
                    webhooks,
                    cleaner,
                )
            ]
            try:
                yield gateway
            except Exception as error:  # noqa: BLE001  # raised below: the group would wrap it
                failure = error
            finally:
                feeds.close()
                for task in running:
                    task.cancel()
        try:
            await session.release()
        except DatabaseUnavailable:
            log.warning("database away, the lease runs out by itself")
        if failure:
            raise failure


def _as_accepted(job: NewJob, created_at: datetime) -> Job:
    """Return a job as it stands right after it was stored."""
    return Job(
        id=job.id,
        user_id=job.user_id,
        job_type=job.job_type,
        state=JobState.QUEUED,
        stage=JobStage.QUEUED,
        progress=0,
        queue_position=None,
        created_at=created_at,
        started_at=None,
        completed_at=None,
        metadata=shown_metadata(job.metadata, job.request, {}),
        error_message=None,
        credits=job.credits,
        warnings=[],
        project_id=job.project_id,
        video_id=job.video_id,
        image_id=job.image_id,
        retry_of=job.retry_of,
    )
