"""The one layer under both fronts: what REST and gRPC can ask of the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol
from uuid import UUID

from ourvidz_gateway.jobs import Accepted, Job, JobEvent, JobFilter, JobState, NewJob, QueueStatus


class Jobs(Protocol):
    """The jobs of all users. Every call that reads takes the user, and knows no other user's job.

    Raises `JobNotFound` for an id that is unknown or another user's, `NoRenderer`, `QueueFull` and `IdempotencyConflict` from `accept`, and
    `DatabaseUnavailable` from any call.
    """

    async def accept(self, job: NewJob) -> Accepted:
        """Store a job and its first stage in one transaction; when this returns, the job is durable."""
        ...

    async def accepted_before(self, user_id: str, idempotency_key: str | None, fingerprint: bytes) -> Accepted | None:
        """Return the job that stands under an idempotency key; None: there is none, or no key.

        Raises `IdempotencyConflict` if it was asked for in other words.
        """
        ...

    async def get(self, user_id: str, job_id: UUID) -> Job:
        """Return one job."""
        ...

    async def page(
        self, user_id: str, where: JobFilter, *, page_size: int, page_token: str | None
    ) -> tuple[list[Job], str | None]:
        """Return a page, newest first, and the token of the next page. Raises `InvalidRequest` for a bad token."""
        ...

    async def cancel(self, user_id: str, job_id: UUID) -> tuple[JobState, Job]:
        """Cancel a job; return the state it was found in, and the job as it stands now. Idempotent."""
        ...

    def watch(self, user_id: str, job_id: UUID, *, after: int = 0) -> AsyncIterator[JobEvent]:
        """Yield the events with a number greater than `after`, then new ones as they are stored, to the terminal one."""
        ...

    async def queue_status(self) -> list[QueueStatus]:
        """Return all queues, at most a second old."""
        ...
