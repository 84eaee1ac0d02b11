"""Jobs that ended long ago and attempts that came to nothing, without anything having run; and objects in a store."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from ourvidz_gateway.jobs import JobStage
from ourvidz_serving.storage import ObjectStore
from support.assets import BUCKET
from support.jobs import Bench

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)


async def put(store: ObjectStore, key: str, bucket: str = BUCKET) -> str:
    await store.put(bucket, key, b"x", content_type="image/png")
    return key


async def stored(store: ObjectStore, bucket: str = BUCKET) -> list[str]:
    return list(await store.list(bucket))


async def add_ended_job(bench: Bench, *, ago: timedelta = MINUTE, user: str = "alice", **columns: Any) -> UUID:
    """A job that was cancelled so long ago, before it ran."""
    job_id = await bench.add_job(user)
    await bench.queue.withdraw(job_id, state="cancelled", message="The job was cancelled.")
    await bench.database.execute(
        "UPDATE jobs SET completed_at = now() - $2::interval, request = jsonb_set(request, '{bucket}', $3) WHERE id = $1",
        job_id,
        ago,
        BUCKET,
    )
    await bench.database.execute("DELETE FROM webhook_outbox WHERE job_id = $1", job_id)
    for name, value in columns.items():
        await bench.database.execute(f"UPDATE jobs SET {name} = $2 WHERE id = $1", job_id, value)
    return job_id


async def add_attempt(
    bench: Bench,
    job_id: UUID,
    number: int = 1,
    *,
    outcome: str | None = "failed",
    ago: timedelta = DAY,
    stage: JobStage = JobStage.RENDERING,
) -> None:
    """An attempt at a job that ended so long ago; without an outcome it goes on."""
    await bench.database.execute(
        "INSERT INTO attempts (job_id, attempt, stage, kind, address, slot, session_id, outcome, ended_at)"
        " VALUES ($1, $2, $3, 'sdxl', 'here', 0, $4, $5::text, CASE WHEN $5::text IS NOT NULL THEN now() - $6::interval END)",
        job_id,
        number,
        stage,
        uuid4(),
        outcome,
        ago,
    )
