"""Jobs in memory: what tests of the fronts put under them, in place of the queue and its database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from ourvidz_gateway.errors import InvalidRequest, JobNotFound
from ourvidz_gateway.jobs import (
    Accepted,
    Asset,
    Job,
    JobEvent,
    JobFilter,
    JobStage,
    JobState,
    Kind,
    NewJob,
    QueueStatus,
    StepDetail,
)
from ourvidz_serving.errors import ServiceError

BEGINNING = datetime(2026, 1, 27, 12, 0, tzinfo=UTC)


@dataclass
class _Record:
    job: Job
    events: list[JobEvent] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class MemoryJobs:
    """Implements `application.Jobs`; a test moves the jobs along with `step` and `end`."""

    def __init__(self) -> None:
        self.accepted: list[NewJob] = []
        self.watchers = 0
        self._records: dict[UUID, _Record] = {}
        self._failure: ServiceError | Exception | None = None

    @contextmanager
    def failing(self, error: Exception):
        """Let every call raise `error`."""
        self._failure = error
        try:
            yield
        finally:
            self._failure = None

    async def accept(self, job: NewJob) -> Accepted:
        self._check()
        self.accepted.append(job)
        self._records[job.id] = _Record(
            Job(
                id=job.id,
                user_id=job.user_id,
                job_type=job.job_type,
                state=JobState.QUEUED,
                stage=JobStage.QUEUED,
                progress=0,
                queue_position=0,
                created_at=BEGINNING + timedelta(seconds=len(self._records)),
                started_at=None,
                completed_at=None,
                metadata={**job.metadata, "seed": job.request["seed"]},
                error_message=None,
                credits=job.credits,
                warnings=[],
                project_id=job.project_id,
                video_id=job.video_id,
                image_id=job.image_id,
                retry_of=None,
            )
        )
        self._tell(job.id)
        return Accepted(self._records[job.id].job, queue_length=len(self._waiting()))

    async def accepted_before(self, user_id: str, idempotency_key: str | None, fingerprint: bytes) -> Accepted | None:
        self._check()
        return None  # keys are not kept here

    async def get(self, user_id: str, job_id: UUID) -> Job:
        self._check()
        return self._find(user_id, job_id).job

    async def page(self, user_id: str, where: JobFilter, *, page_size: int, page_token: str | None):
        self._check()
        if page_token is not None and not page_token.isdecimal():
            raise InvalidRequest("The page token is not valid.", field="page_token")
        start = int(page_token or 0)
        jobs = [record.job for record in reversed(self._records.values()) if _matches(record.job, user_id, where)]
        end = start + page_size
        return jobs[start:end], str(end) if end < len(jobs) else None

    async def cancel(self, user_id: str, job_id: UUID) -> tuple[JobState, Job]:
        self._check()
        found = self._find(user_id, job_id).job.state
        if not found.terminal:
            self.end(job_id, JobState.CANCELLED, error_message="The job was cancelled.")
        return found, self._find(user_id, job_id).job

    async def watch(self, user_id: str, job_id: UUID, *, after: int = 0) -> AsyncIterator[JobEvent]:
        self._check()
        record = self._find(user_id, job_id)
        self.watchers += 1
        try:
            seen = 0
            while True:
                # Not over a copy: while an event is on its way, more may happen, the end included.
                while seen < len(record.events):
                    event = record.events[seen]
                    seen += 1
                    if event.sequence > after:
                        yield event
                if record.job.state.terminal:
                    return
                record.changed.clear()
                self._check()
                await record.changed.wait()
                self._check()
        finally:
            self.watchers -= 1

    async def queue_status(self):
        self._check()
        depth = len(self._waiting())
        return [
            QueueStatus(Kind.SDXL, depth=depth, running=1, oldest_seconds=2.5 if depth else None, renderers=1),
            QueueStatus(Kind.WAN, depth=0, running=0, oldest_seconds=None, renderers=0),
            QueueStatus(Kind.ENHANCER, depth=0, running=0, oldest_seconds=None, renderers=0),
        ]

    def step(self, job_id: UUID, step: int, *, of: int = 20) -> None:
        """Let a denoising step of the job's only image be done."""
        self._change(
            job_id,
            state=JobState.PROCESSING,
            stage=JobStage.RENDERING,
            progress=100 * step // (of + 1),
            queue_position=None,
            started_at=BEGINNING,
            attempt=1,
        )
        self._tell(job_id, step=StepDetail(step, of, image_index=0, image_count=1))

    def end(self, job_id: UUID, state: JobState = JobState.COMPLETED, *, error_message=None, outputs: int = 0) -> None:
        """Let the job end, with so many outputs."""
        self._change(
            job_id,
            state=state,
            stage=None,
            progress=100 if state is JobState.COMPLETED else 50,
            queue_position=None,
            completed_at=BEGINNING + timedelta(minutes=1),
            error_message=error_message,
            assets=[_asset(job_id, index) for index in range(outputs)],
        )
        self._tell(job_id)

    def interrupt(self, job_id: UUID, error: Exception) -> None:
        """Let whoever watches the job meet `error`."""
        self._failure = error
        self._records[job_id].changed.set()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _find(self, user_id: str, job_id: UUID) -> _Record:
        record = self._records.get(job_id)
        if record is None or record.job.user_id != user_id:
            raise JobNotFound(job_id)
        return record

    def _waiting(self) -> list[_Record]:
        return [record for record in self._records.values() if record.job.state is JobState.QUEUED]

    def _change(self, job_id: UUID, **changes: Any) -> None:
        record = self._records[job_id]
        record.job = replace(record.job, **changes)

    def _tell(self, job_id: UUID, step: StepDetail | None = None) -> None:
        record = self._records[job_id]
        job = record.job
        record.events.append(
            JobEvent(
                job_id=job_id,
                sequence=len(record.events) + 1,
                created_at=BEGINNING + timedelta(seconds=len(record.events)),
                state=job.state,
                stage=job.stage,
                progress=job.progress,
                attempt=0 if job.state is JobState.QUEUED else 1,
                step=step,
                error_message=job.error_message,
            )
        )
        record.job = replace(job, last_sequence=len(record.events))
        record.changed.set()


def _matches(job: Job, user_id: str, where: JobFilter) -> bool:
    return job.user_id == user_id and all(
        wanted is None or wanted == found
        for wanted, found in (
            (where.job_type, job.job_type),
            (where.state, job.state),
            (where.project_id, job.project_id),
            (where.video_id, job.video_id),
            (where.image_id, job.image_id),
        )
    )


def _asset(job_id: UUID, index: int) -> Asset:
    return Asset(
        id=uuid4(),
        job_id=job_id,
        index=index,
        bucket="sdxl-image-fast",
        key=f"alice/{job_id}/1/{index}.png",
        mime_type="image/png",
        size_bytes=1_000_000,
        width_px=1024,
        height_px=1024,
        seed=7 + index,
        duration_s=None,
        created_at=BEGINNING,
    )
