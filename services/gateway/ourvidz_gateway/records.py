"""Jobs and assets as they are read back for their users."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import asyncpg

from ourvidz_gateway.database import Database
from ourvidz_gateway.errors import JobNotFound
from ourvidz_gateway.jobs import Asset, Job, JobFilter, JobStage, JobState
from ourvidz_gateway.pages import make_token, read_token

# How many jobs are likely to start before one that waits: those before it in its own lane, and from each other lane
# as many as get their turn by then. Past 10,000 of its own, nobody is served by an exact number.
_POSITION = """
SELECT own.ahead + coalesce((
    SELECT sum(least(o.waiting, own.ahead + (o.virtual_time <= mine.virtual_time)::integer))
    FROM lanes o WHERE o.kind = mine.kind AND o.user_id <> mine.user_id AND o.waiting > 0), 0)::bigint
FROM queue q
JOIN lanes mine ON mine.kind = q.kind AND mine.user_id = q.user_id,
LATERAL (SELECT count(*) AS ahead FROM (
           SELECT FROM queue b
           WHERE b.kind = q.kind AND b.user_id = q.user_id AND b.ready AND b.position < q.position
           LIMIT 10000) before) own
WHERE q.job_id = j.id
"""

_SELECT = f"""
SELECT j.*, e.stage AS live_stage, e.progress, e.sequence AS last_sequence,
       CASE WHEN j.state = 'queued' THEN ({_POSITION}) END AS queue_position
FROM jobs j LEFT JOIN LATERAL (
  SELECT stage, progress, sequence FROM job_events WHERE job_id = j.id ORDER BY sequence DESC LIMIT 1
) e ON true
"""

_ONE = f"{_SELECT} WHERE j.id = $1 AND j.user_id = $2"

_PAGE = f"""
{_SELECT}
WHERE j.user_id = $1
  AND (j.created_at, j.id) < (coalesce($2::timestamptz, 'infinity'),
                              coalesce($3::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
  AND ($4::text IS NULL OR j.job_type = $4)
  AND ($5::text IS NULL OR j.state = $5)
  AND ($6::text IS NULL OR j.project_id = $6)
  AND ($7::text IS NULL OR j.video_id = $7)
  AND ($8::text IS NULL OR j.image_id = $8)
ORDER BY j.created_at DESC, j.id DESC
LIMIT $9
"""

_ASSETS = "SELECT * FROM assets WHERE job_id = ANY($1) AND deleted_at IS NULL ORDER BY job_id, index"

_EXISTS = "SELECT state FROM jobs WHERE id = $1 AND user_id = $2"

_REQUEST_CANCEL = """
UPDATE jobs SET cancel_requested_at = coalesce(cancel_requested_at, now())
WHERE id = $1 AND user_id = $2 AND state IN ('queued', 'processing')
"""


class Records:
    """Users' jobs. Every call takes the user; another user's job does not exist for them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def state(self, user_id: str, job_id: UUID) -> JobState:
        """Return where a job stands. Raises `JobNotFound`."""
        row = await self._database.fetchrow(_EXISTS, job_id, user_id)
        if row is None:
            raise JobNotFound(job_id)
        return JobState(row["state"])

    async def get(self, user_id: str, job_id: UUID) -> Job:
        """Return one job with its assets. Raises `JobNotFound`."""
        row = await self._database.fetchrow(_ONE, job_id, user_id)
        if row is None:
            raise JobNotFound(job_id)
        return (await self._with_assets([row]))[0]

    async def page(
        self, user_id: str, where: JobFilter, *, page_size: int, page_token: str | None
    ) -> tuple[list[Job], str | None]:
        """Return a page of jobs, newest first, and the token of the next. Raises `InvalidRequest` for a bad token."""
        created_at, job_id = read_token(page_token)
        rows = await self._database.fetch(
            _PAGE,
            user_id,
            created_at,
            job_id,
            where.job_type,
            where.state,
            where.project_id,
            where.video_id,
            where.image_id,
            page_size + 1,
        )
        jobs = await self._with_assets(rows[:page_size])
        return jobs, make_token(jobs[-1].created_at, jobs[-1].id) if len(rows) > page_size else None

    async def request_cancel(self, user_id: str, job_id: UUID) -> None:
        """Mark a job that has not ended, so that whoever runs it cancels it."""
        await self._database.execute(_REQUEST_CANCEL, job_id, user_id)

    async def _with_assets(self, rows: list[asyncpg.Record]) -> list[Job]:
        ended = [row["id"] for row in rows if row["state"] in (JobState.COMPLETED, JobState.CANCELLED)]
        assets: dict[UUID, list[Asset]] = {}
        for row in await self._database.fetch(_ASSETS, ended) if ended else []:
            assets.setdefault(row["job_id"], []).append(asset_of(row))
        return [_job_of(row, assets.get(row["id"], [])) for row in rows]


def shown_metadata(metadata: dict[str, Any], request: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """Return a job's metadata as users see it: what came in, the seed, the enhanced prompt and what rendering added."""
    shown = {**metadata, "seed": request["seed"], "num_images": request["image_count"]}
    if enhanced := request.get("enhanced_prompt"):  # plans from before there were any have no such key
        shown |= {"enhanced_prompt": enhanced, "original_prompt": request["prompt"]}
    return shown | result


def _job_of(row: asyncpg.Record, assets: list[Asset]) -> Job:
    state = JobState(row["state"])
    return Job(
        id=row["id"],
        user_id=row["user_id"],
        job_type=row["job_type"],
        state=state,
        stage=None if state.terminal or not row["live_stage"] else JobStage(row["live_stage"]),
        # The events of a job that ended long ago are gone.
        progress=100 if state is JobState.COMPLETED else row["progress"] or 0,
        queue_position=row["queue_position"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        completed_at=row["completed_at"],
        metadata=shown_metadata(row["metadata"], row["request"], row["result"]),
        error_message=row["error_message"],
        credits=row["credits"],
        warnings=list(row["warnings"]),
        project_id=row["project_id"],
        video_id=row["video_id"],
        image_id=row["image_id"],
        retry_of=row["retry_of"],
        assets=assets,
        attempt=row["attempt"],
        last_sequence=row["last_sequence"] or 1,
    )


def asset_of(row: asyncpg.Record) -> Asset:
    """Read an asset from a row of `assets`."""
    return Asset(
        id=row["id"],
        job_id=row["job_id"],
        index=row["index"],
        bucket=row["bucket"],
        key=row["key"],
        mime_type=row["mime_type"],
        size_bytes=row["size_bytes"],
        width_px=row["width_px"],
        height_px=row["height_px"],
        seed=row["seed"],
        duration_s=row["duration_s"],
        created_at=row["created_at"],
    )
