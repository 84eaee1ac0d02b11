"""Jobs that have ended, with their webhooks in the outbox, as a test finds them in the database."""

from __future__ import annotations

from uuid import UUID, uuid4

from ourvidz_gateway.database import Database
from ourvidz_gateway.outbox import Room, insert_deliveries
from ourvidz_serving.storage import LocalStore

BUCKET = "pictures"

ALL = Room(in_all=100, for_a_host=100, for_hosts={}, silent_hosts=frozenset(), for_silent_hosts=100)
"""Room for all that a test puts there."""

_JOB = """
INSERT INTO jobs (id, user_id, job_type, kind, state, stages, position, request, metadata, result, credits,
                  error_message, webhook_url, completed_at)
VALUES ($1, $2, 'sdxl_image_fast', 'sdxl', $3, '{rendering}', nextval('job_positions'),
        '{"seed": 7, "image_count": 1, "prompt": "a fox"}', '{"prompt": "a fox", "mine": "füchse"}',
        '{"model": "painter"}', 1, $4, $5, now())
"""

_ASSET = """
INSERT INTO assets (id, job_id, user_id, index, bucket, key, mime_type, size_bytes, sha256, width_px, height_px, seed,
                    job_type)
VALUES (gen_random_uuid(), $1, $2, $3, $4, $5, 'image/png', 3, '', 64, 48, 7, 'sdxl_image_fast')
"""

_PUT = f"""
WITH job AS (SELECT id, user_id, webhook_url FROM jobs WHERE id = $1)
{insert_deliveries("job", operator="$2::boolean")} RETURNING webhook_outbox.id
"""


async def ended_job(
    database: Database,
    webhook_url: str | None = None,
    *,
    operator: bool = False,
    user: str = "alice",
    state: str = "completed",
    error_message: str | None = None,
    store: LocalStore | None = None,
    outputs: int = 0,
) -> tuple[UUID, list[UUID]]:
    """Put a job and its webhooks there; return the job's id and the webhooks'. With a `store`, it has outputs."""
    job_id = uuid4()
    await database.execute(_JOB, job_id, user, state, error_message, webhook_url)
    for index in range(outputs):
        key = f"{user}/{job_id}/1/{index}.png"
        if store:
            await store.put(BUCKET, key, b"png", content_type="image/png")
        await database.execute(_ASSET, job_id, user, index, BUCKET, key)
    rows = await database.fetch(_PUT, job_id, operator)
    return job_id, [row["id"] for row in rows]


async def webhook_of(database: Database, job_url: str | None = None, **more: object) -> UUID:
    """Put a job with one webhook there, to the job's URL or else to the operator's; return the webhook's id."""
    _, [webhook_id] = await ended_job(database, job_url, operator=job_url is None, **more)  # type: ignore[arg-type]
    return webhook_id
