"""How an attempt ends: in one statement that proves the fence, frees the slot, moves the job on and logs it.

The fence is (job, attempt, session). A statement that finds it broken changes nothing and returns no row: somebody
else has the job now.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

from ourvidz.api.render.v1 import render_pb2
from ourvidz_gateway.database import Database
from ourvidz_gateway.events import event_of, insert_milestone
from ourvidz_gateway.jobs import JobEvent, JobState
from ourvidz_gateway.queue import Claim, enter_lane

CANCELLED_MESSAGE = "The job was cancelled."

# $1 job, $2 attempt, $3 session, $4 outcome, $5 reason, $6 seconds for which the slot is left alone
_END = """
mine AS (
  UPDATE attempts SET ended_at = now(), outcome = $4, reason = $5
  WHERE job_id = $1 AND attempt = $2 AND session_id = $3 AND ended_at IS NULL
  RETURNING job_id, attempt, kind, address, slot
),
freed AS (
  UPDATE renderer_slots s SET job_id = NULL, attempt = NULL, released_at = now(),
                              cool_until = now() + make_interval(secs => $6)
  FROM mine WHERE s.kind = mine.kind AND s.address = mine.address AND s.slot = mine.slot
    AND s.job_id = mine.job_id AND s.attempt = mine.attempt
)
"""

_ASSETS = """
assets_stored AS (
  INSERT INTO assets (id, job_id, user_id, index, bucket, key, mime_type, size_bytes, sha256, width_px, height_px,
                      seed, duration_s)
  SELECT a.id, job.id, job.user_id, a.place - 1, a.bucket, a.key, a.mime_type, a.size_bytes, a.sha256, a.width_px,
         a.height_px, a.seed, a.duration_s
  FROM job, unnest($11::uuid[], $12::text[], $13::text[], $14::text[], $15::bigint[], $16::bytea[], $17::integer[],
                   $18::integer[], $19::bigint[], $20::double precision[])
    WITH ORDINALITY AS a (id, bucket, key, mime_type, size_bytes, sha256, width_px, height_px, seed, duration_s, place)
)
"""

_LAST_PROGRESS = """
CASE WHEN $7 = 'completed' THEN 100 ELSE coalesce(
  (SELECT e.progress FROM job_events e WHERE e.job_id = s.id ORDER BY e.sequence DESC LIMIT 1), 0) END
"""

# $7 state, $8 error message, $9 result, $10 warnings, $11… assets
_FINISH = f"""
WITH {_END},
job AS (
  UPDATE jobs SET
    state = $7, error_message = $8, result = $9, warnings = jobs.warnings || $10::text[], completed_at = now(),
    failures = failures + ($4 = 'failed')::integer, quarantined = $21
  FROM mine WHERE jobs.id = mine.job_id
  RETURNING jobs.id, jobs.user_id, jobs.attempt
),
{_ASSETS}
{insert_milestone("job", state="$7", stage="NULL", error="$8::text", progress=_LAST_PROGRESS)}
"""

# $7 whether it counts as a failure, $8 seconds to wait, $9 address to avoid, $10 cost. A job that its user cancels at
# this very moment is found either here or, by the one who cancels, in the queue.
_RETRY = f"""
WITH {_END},
job AS (
  UPDATE jobs SET
    failures = failures + $7::boolean::integer,
    state = CASE WHEN cancel_requested_at IS NULL THEN 'queued' ELSE 'cancelled' END,
    error_message = CASE WHEN cancel_requested_at IS NOT NULL THEN $11::text END,
    completed_at = CASE WHEN cancel_requested_at IS NOT NULL THEN now() END
  FROM mine WHERE jobs.id = mine.job_id
  RETURNING jobs.id, jobs.user_id, jobs.position, jobs.attempt, jobs.state, jobs.error_message
),
waiting AS (
  INSERT INTO queue (job_id, kind, user_id, position, cost, ready, ready_at, last_address)
  SELECT job.id, mine.kind, job.user_id, job.position, $10::double precision, $8::double precision <= 0,
         now() + make_interval(secs => $8::double precision), $9::text
  FROM job, mine WHERE job.state = 'queued'
  RETURNING kind, user_id, position, ready
),
lane AS (
  {enter_lane("FROM waiting WHERE waiting.ready", kind="waiting.kind", user="waiting.user_id", position="waiting.position")}
)
{insert_milestone("job", state="s.state", stage="CASE s.state WHEN 'queued' THEN 'queued' END", error="s.error_message")}
"""

_BEGUN = """
UPDATE attempts SET accepted_at = coalesce(accepted_at, now())
WHERE job_id = $1 AND attempt = $2 AND session_id = $3 AND ended_at IS NULL
"""

_FAILURES = "SELECT failures FROM jobs WHERE id = $1"


class Attempts:
    """The running attempts of one gateway. All calls raise `DatabaseUnavailable` when the database is out of reach.

    Each call that ends an attempt returns the event that it stored, or None when the fence was broken.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begun(self, claim: Claim, session_id: UUID) -> None:
        """Record that the renderer has the attempt: from now on it is only ever attached to."""
        await self._database.execute(_BEGUN, claim.job_id, claim.attempt, session_id)

    async def failures(self, job_id: UUID) -> int:
        """Return how many attempts count against the job."""
        row = await self._database.fetchrow(_FAILURES, job_id)
        return row["failures"] if row else 0

    async def complete(
        self,
        claim: Claim,
        session_id: UUID,
        *,
        outputs: Sequence[render_pb2.Output],
        result: dict[str, Any],
        warnings: Sequence[str],
    ) -> JobEvent | None:
        """End the attempt and the job well: its outputs become assets."""
        return await self._finish(
            claim,
            session_id,
            JobState.COMPLETED,
            "completed",
            None,
            None,
            outputs=outputs,
            result=result,
            warnings=warnings,
        )

    async def fail(
        self, claim: Claim, session_id: UUID, *, reason: str, message: str, quarantine: bool = False
    ) -> JobEvent | None:
        """End the attempt and fail the job for good; `message` is for its user.

        `quarantine` marks a job that took its renderer down each time, for an operator to look at.
        """
        return await self._finish(claim, session_id, JobState.FAILED, "failed", reason, message, quarantine=quarantine)

    async def cancelled(
        self,
        claim: Claim,
        session_id: UUID,
        *,
        message: str,
        outputs: Sequence[render_pb2.Output] = (),
        result: dict[str, Any] | None = None,
    ) -> JobEvent | None:
        """End the attempt and the job because its user cancelled it; outputs already stored become assets."""
        return await self._finish(
            claim, session_id, JobState.CANCELLED, "cancelled", "CANCELLED", message, outputs=outputs, result=result
        )

    async def retry(
        self,
        claim: Claim,
        session_id: UUID,
        *,
        reason: str,
        counts: bool,
        delay_s: float,
        cost: float,
        cool_s: float = 0.0,
    ) -> JobEvent | None:
        """End the attempt and let the job wait again, in its old place; one that is to be cancelled ends instead.

        `counts` tells whether it is one of the attempts that a job has, `cost` is what it brings its lane again;
        `delay_s` is how long the job stays back, and `cool_s` for how long the slot is left alone.
        """
        row = await self._database.fetchrow(
            _RETRY,
            claim.job_id,
            claim.attempt,
            session_id,
            "failed" if counts else "handed_back",
            reason,
            cool_s,
            counts,
            delay_s,
            claim.address if counts else None,
            cost,
            CANCELLED_MESSAGE,
        )
        return None if row is None else event_of(row)

    async def _finish(
        self,
        claim: Claim,
        session_id: UUID,
        state: JobState,
        outcome: str,
        reason: str | None,
        message: str | None,
        *,
        outputs: Sequence[render_pb2.Output] = (),
        result: dict[str, Any] | None = None,
        warnings: Sequence[str] = (),
        quarantine: bool = False,
    ) -> JobEvent | None:
        row = await self._database.fetchrow(
            _FINISH,
            claim.job_id,
            claim.attempt,
            session_id,
            outcome,
            reason,
            0.0,
            state,
            message,
            result or {},
            list(warnings),
            [uuid4() for _ in outputs],
            [output.bucket for output in outputs],
            [output.key for output in outputs],
            [output.mime_type for output in outputs],
            [output.size_bytes for output in outputs],
            [output.sha256 for output in outputs],
            [output.width_px for output in outputs],
            [output.height_px for output in outputs],
            [output.seed for output in outputs],
            [
                output.duration.ToTimedelta().total_seconds() if output.HasField("duration") else None
                for output in outputs
            ],
            quarantine,
        )
        return None if row is None else event_of(row)
