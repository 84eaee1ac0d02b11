"""Jobs that took their servers down at each attempt: set apart for an operator to look at, and to try again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

import asyncpg

from ourvidz_gateway.database import Database
from ourvidz_gateway.errors import JobNotFound, JobNotQuarantined
from ourvidz_gateway.jobs import JobStage, NewJob
from ourvidz_gateway.pages import check_page_size, make_token, read_token
from ourvidz_gateway.plan import RenderPlan

# A server that handed an attempt back never ran it, and fetching pictures takes nobody down.
_SELECT = """
SELECT j.id, j.user_id, j.job_type, j.error_message, j.quarantined_at, j.released_as, ARRAY(
  SELECT a.address FROM attempts a
  WHERE a.job_id = j.id AND a.outcome IS DISTINCT FROM 'handed_back' AND a.kind <> 'fetcher' ORDER BY a.attempt
) AS renderers
FROM jobs j
"""

_PAGE = f"""
{_SELECT}
WHERE j.quarantined_at IS NOT NULL
  AND (j.quarantined_at, j.id) < (coalesce($1::timestamptz, 'infinity'),
                                  coalesce($2::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
  AND ($3::text IS NULL OR j.user_id = $3)
  AND ($4::boolean OR j.released_as IS NULL)
ORDER BY j.quarantined_at DESC, j.id DESC
LIMIT $5
"""

_ONE = f"{_SELECT} WHERE j.id = $1"

_AS_ASKED_FOR = """
SELECT user_id, job_type, request, metadata, credits, project_id, video_id, image_id, webhook_url,
       stages[stage_index:] AS stages
FROM jobs WHERE id = $1
"""


@dataclass(frozen=True, slots=True)
class QuarantinedJob:
    """A job in quarantine. It has failed."""

    job_id: UUID
    user_id: str
    job_type: str
    attempt_count: int
    error_message: str
    renderers: Sequence[str]
    """The addresses that it ran at, in the order of its attempts."""
    quarantined_at: datetime
    released_as: UUID | None
    """The new job that tries it again."""


Enter = Callable[[NewJob, Sequence[JobStage]], Awaitable[None]]
"""How a job comes in that an operator lets in: see `Gateway.release`. The stages are those that are still to be done."""


class Quarantine:
    """All jobs in quarantine; for operators alone. Raises `DatabaseUnavailable` from any call."""

    def __init__(self, database: Database, enter: Enter) -> None:
        self._database = database
        self._enter = enter

    async def page(
        self, *, user_id: str | None, include_released: bool, page_size: int, page_token: str | None
    ) -> tuple[list[QuarantinedJob], str | None]:
        """Return a page, newest first, and the token of the next. Raises `InvalidRequest` for a bad size or token."""
        check_page_size(page_size)
        moment, job_id = read_token(page_token)
        rows = await self._database.fetch(_PAGE, moment, job_id, user_id, include_released, page_size + 1)
        jobs = [_quarantined_job_of(row) for row in rows[:page_size]]
        more = len(rows) > page_size
        return jobs, make_token(jobs[-1].quarantined_at, jobs[-1].job_id) if more else None

    async def release(self, job_id: UUID) -> QuarantinedJob:
        """Let a job be tried again, as a new job whose `retry_of` names the old one; done again, it is the same job.

        It goes on at the stage that it failed in, with what the stages before made of it. Raises `JobNotFound`,
        `JobNotQuarantined`, `InsufficientCredits`, `NoRenderer` and `QueueFull`.
        """
        found = await self._find(job_id)
        if found.released_as is None:
            await self._enter(*await self._again(job_id))
            found = await self._find(job_id)
        return found

    async def _find(self, job_id: UUID) -> QuarantinedJob:
        row = await self._database.fetchrow(_ONE, job_id)
        if row is None:
            raise JobNotFound(job_id)
        if row["quarantined_at"] is None:
            raise JobNotQuarantined(f"The job {job_id} is not in quarantine.")
        return _quarantined_job_of(row)

    async def _again(self, job_id: UUID) -> tuple[NewJob, list[JobStage]]:
        """Return a new job that asks for what a job asked for, and the stages that are still to be done for it."""
        row = await self._database.fetchrow(_AS_ASKED_FOR, job_id)
        if row is None:
            raise JobNotFound(job_id)
        stages = [JobStage(stage) for stage in row["stages"]]
        job = NewJob(
            id=uuid4(),
            user_id=row["user_id"],
            job_type=row["job_type"],
            kind=RenderPlan.from_json(row["request"]).kind_of(stages[0]),
            request=row["request"],
            metadata=row["metadata"],
            credits=row["credits"],
            project_id=row["project_id"],
            video_id=row["video_id"],
            image_id=row["image_id"],
            webhook_url=row["webhook_url"],
            retry_of=job_id,
        )
        return job, stages


def _quarantined_job_of(row: asyncpg.Record) -> QuarantinedJob:
    return QuarantinedJob(
        job_id=row["id"],
        user_id=row["user_id"],
        job_type=row["job_type"],
        attempt_count=len(row["renderers"]),
        error_message=row["error_message"] or "",
        renderers=row["renderers"],
        quarantined_at=row["quarantined_at"],
        released_as=row["released_as"],
    )
