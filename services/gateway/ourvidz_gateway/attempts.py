"""How an attempt ends: in one statement that proves the fence, frees the slot, moves the job on and logs it.

The job ends, waits for its stage again, or goes on to its next stage, which that same statement queues.

The fence is (job, attempt, session). A statement that finds it broken changes nothing and returns no row: somebody
else has the job now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

from ourvidz.api.render.v1 import render_pb2
from ourvidz_gateway.database import Database
from ourvidz_gateway.endings import AFTER_ACCOUNT, end_jobs
from ourvidz_gateway.events import event_of, insert_milestone
from ourvidz_gateway.jobs import JobEvent, JobState, Kind
from ourvidz_gateway.lanes import enter_lane
from ourvidz_gateway.queue import Claim

CANCELLED_MESSAGE = "The job was cancelled."

# $1 job, $2 attempt, $3 session, $4 outcome, $5 reason, $6 seconds for which the slot is left alone
_END = """
mine AS (
  UPDATE attempts SET ended_at = now(), outcome = $4, reason = $5
  WHERE job_id = $1 AND attempt = $2 AND session_id = $3 AND ended_at IS NULL
  RETURNING job_id, attempt, kind, stage, address, slot, accepted_at
),
freed AS (
  UPDATE renderer_slots s SET job_id = NULL, attempt = NULL, released_at = now(),
                              cool_until = now() + make_interval(secs => $6)
  FROM mine WHERE s.kind = mine.kind AND s.address = mine.address AND s.slot = mine.slot
    AND s.job_id = mine.job_id AND s.attempt = mine.attempt
)
"""

# A microsecond between them keeps a job's outputs in their order in a list by time.
_ASSETS = """
assets_stored AS (
  INSERT INTO assets (id, job_id, user_id, index, bucket, key, mime_type, size_bytes, sha256, width_px, height_px,
                      seed, duration_s, job_type, project_id, created_at)
  SELECT a.id, job.id, job.user_id, a.place - 1, a.bucket, a.key, a.mime_type, a.size_bytes, a.sha256, a.width_px,
         a.height_px, a.seed, a.duration_s, job.job_type, job.project_id,
         now() - (a.place - 1) * interval '1 microsecond'
  FROM job, unnest($11::uuid[], $12::text[], $13::text[], $14::text[], $15::bigint[], $16::bytea[], $17::integer[],
                   $18::integer[], $19::bigint[], $20::double precision[])
    WITH ORDINALITY AS a (id, bucket, key, mime_type, size_bytes, sha256, width_px, height_px, seed, duration_s, place)
)
"""

_LAST_PROGRESS = """
CASE WHEN $7 = 'completed' THEN 100 ELSE coalesce(
  (SELECT e.progress FROM job_events e WHERE e.job_id = s.id ORDER BY e.sequence DESC LIMIT 1), 0) END
"""

# A cancelled job costs its share of the price for each output that was stored, rounded up.
_CHARGED = """
CASE $7 WHEN 'completed' THEN price
        WHEN 'cancelled' THEN least(price, (price * cardinality($11::uuid[]) + image_count - 1) / image_count)
        ELSE 0 END
"""

# $7 state, $8 error message, $9 result, $10 warnings, $11… assets, $21 quarantine, $22 whether the operator is told
_FINISH = f"""
WITH {_END},
job AS (
  UPDATE jobs SET
    state = $7, error_message = $8, result = $9, warnings = jobs.warnings || $10::text[], completed_at = now(),
    failures = failures + ($4 = 'failed')::integer, quarantined_at = CASE WHEN $21::boolean THEN now() END
  FROM mine WHERE jobs.id = mine.job_id
  RETURNING jobs.id, jobs.user_id, jobs.attempt, jobs.job_type, jobs.project_id, jobs.webhook_url,
            greatest((jobs.request->>'image_count')::integer, 1) AS image_count
),
{end_jobs("job", operator="$22::boolean", charged=_CHARGED)},
{_ASSETS}
{insert_milestone("job", state="$7", stage="NULL", error="$8::text", progress=_LAST_PROGRESS)}
"""

# A job that its user cancels at this very moment is found either here or, by the one who cancels, in the queue.
_WAITS_OR_IS_CANCELLED = """
    state = CASE WHEN cancel_requested_at IS NULL THEN 'queued' ELSE 'cancelled' END,
    error_message = CASE WHEN cancel_requested_at IS NOT NULL THEN $7::text END,
    completed_at = CASE WHEN cancel_requested_at IS NOT NULL THEN now() END,
    start_by = CASE WHEN mine.stage <> 'rendering' OR mine.accepted_at IS NULL THEN start_by END
  FROM mine WHERE jobs.id = mine.job_id
  RETURNING jobs.id, jobs.user_id, jobs.position, jobs.attempt, jobs.state, jobs.error_message, jobs.start_by,
            jobs.webhook_url
"""

_CANCELLED = "(SELECT * FROM job WHERE state = 'cancelled')"

_WAITS_OR_IS_CANCELLED_EVENT = insert_milestone(
    "job", state="s.state", stage="CASE s.state WHEN 'queued' THEN 'queued' END", error="s.error_message"
)

_REENTER_LANE = enter_lane(
    "FROM waiting WHERE waiting.ready",
    kind="waiting.kind",
    user="waiting.user_id",
    position="waiting.position",
    refund="CASE WHEN $8::boolean THEN 0 ELSE $11::double precision END",
)

# $7 message of a cancel, $8 whether it counts as a failure, $9 seconds to wait, $10 address to avoid, $11 cost,
# $12 whether the operator is told.
# What did not count was no work: its lane gets back what the claim charged, whether or not it enters the lane yet.
_RETRY = f"""
WITH {_END},
job AS (
  UPDATE jobs SET failures = failures + $8::boolean::integer, {_WAITS_OR_IS_CANCELLED}
),
{end_jobs(_CANCELLED, operator="$12::boolean")},
waiting AS (
  INSERT INTO queue (job_id, kind, user_id, position, cost, ready, ready_at, last_address, start_by)
  SELECT job.id, mine.kind, job.user_id, job.position, $11::double precision, $9::double precision <= 0,
         now() + make_interval(secs => $9::double precision), $10::text, job.start_by
  FROM job, mine WHERE job.state = 'queued'
  RETURNING kind, user_id, position, ready
),
refunded AS (
  UPDATE lanes SET virtual_time = virtual_time - $11::double precision
  FROM job, mine WHERE NOT $8::boolean AND lanes.kind = mine.kind AND lanes.user_id = job.user_id
    AND NOT EXISTS (SELECT FROM waiting WHERE waiting.ready) AND {AFTER_ACCOUNT}
),
lane AS (
  {_REENTER_LANE}
)
{_WAITS_OR_IS_CANCELLED_EVENT}
"""

# $7 message of a cancel, $8 request, $9 warnings, $10 kind of the next stage, $11 cost, $12 whether the operator is told.
_ADVANCE = f"""
WITH {_END},
job AS (
  UPDATE jobs SET request = $8, warnings = jobs.warnings || $9::text[], stage_index = stage_index + 1,
    {_WAITS_OR_IS_CANCELLED}
),
{end_jobs(_CANCELLED, operator="$12::boolean")},
waiting AS (
  INSERT INTO queue (job_id, kind, user_id, position, cost, start_by)
  SELECT job.id, $10::text, job.user_id, job.position, $11::double precision, job.start_by
  FROM job WHERE job.state = 'queued'
  RETURNING kind, user_id, position
),
lane AS (
  {enter_lane("FROM waiting", kind="waiting.kind", user="waiting.user_id", position="waiting.position")}
)
{_WAITS_OR_IS_CANCELLED_EVENT}
"""

_BEGUN = """
UPDATE attempts SET accepted_at = coalesce(accepted_at, now())
WHERE job_id = $1 AND attempt = $2 AND session_id = $3 AND ended_at IS NULL
"""

# Done again, it adds no warning twice.
_REVISE = """
UPDATE jobs SET request = $4::jsonb, warnings = jobs.warnings || $5::text[] FROM attempts a
WHERE a.job_id = $1 AND a.attempt = $2 AND a.session_id = $3 AND a.ended_at IS NULL
  AND jobs.id = a.job_id AND jobs.request <> $4::jsonb
"""

_FAILURES = "SELECT failures FROM jobs WHERE id = $1"

_HANDED_BACK = """
SELECT extract(epoch FROM now() - min(started_at))::double precision AS for_s FROM attempts
WHERE job_id = $1 AND outcome = 'handed_back'
  AND attempt > coalesce((SELECT max(attempt) FROM attempts WHERE job_id = $1 AND outcome <> 'handed_back'), 0)
"""


class Attempts:
    """The running attempts of one gateway. All calls raise `DatabaseUnavailable` when the database is out of reach.

    Each call that ends an attempt returns the event that it stored, or None when the fence was broken.
    `operator_webhook` tells whether the operator wants to be told of jobs' ends.
    """

    def __init__(self, database: Database, *, operator_webhook: bool = False) -> None:
        self._database = database
        self._operator_webhook = operator_webhook

    async def begun(self, claim: Claim, session_id: UUID) -> None:
        """Record that the renderer has the attempt: from now on it is only ever attached to."""
        await self._database.execute(_BEGUN, claim.job_id, claim.attempt, session_id)

    async def revise(self, claim: Claim, session_id: UUID, *, request: dict[str, Any], warnings: Sequence[str]) -> None:
        """Change what later attempts at the job read, and add to its warnings; the attempt goes on."""
        await self._database.execute(_REVISE, claim.job_id, claim.attempt, session_id, request, list(warnings))

    async def failures(self, job_id: UUID) -> int:
        """Return how many attempts count against the job."""
        row = await self._database.fetchrow(_FAILURES, job_id)
        return row["failures"] if row else 0

    async def handed_back_for_s(self, job_id: UUID) -> float:
        """Return for how many seconds every attempt at the job has been handed back; 0 if the last one was not."""
        row = await self._database.fetchrow(_HANDED_BACK, job_id)
        return (row["for_s"] if row else None) or 0.0

    async def advance(
        self,
        claim: Claim,
        session_id: UUID,
        *,
        request: dict[str, Any],
        warnings: Sequence[str],
        kind: Kind,
        cost: float,
    ) -> JobEvent | None:
        """End the attempt well and let the job wait for its next stage; one that is to be cancelled ends instead.

        `request` is what the next stage reads, `kind` what it waits for, and `cost` what it brings its lane.
        """
        row = await self._database.fetchrow(
            _ADVANCE,
            claim.job_id,
            claim.attempt,
            session_id,
            "completed",
            None,
            0.0,
            CANCELLED_MESSAGE,
            request,
            list(warnings),
            kind,
            cost,
            self._operator_webhook,
        )
        return None if row is None else event_of(row)

    async def complete(
        self,
        claim: Claim,
        session_id: UUID,
        *,
        outputs: Sequence[render_pb2.Output],
        result: Mapping[str, Any],
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
        result: Mapping[str, Any] | None = None,
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

        `counts` tells whether it is one of the attempts that a job has: if not, its user's lane is given back the
        `cost`. `delay_s` is how long the job stays back, and `cool_s` for how long the slot is left alone.
        """
        row = await self._database.fetchrow(
            _RETRY,
            claim.job_id,
            claim.attempt,
            session_id,
            "failed" if counts else "handed_back",
            reason,
            cool_s,
            CANCELLED_MESSAGE,
            counts,
            delay_s,
            claim.address if counts else None,
            cost,
            self._operator_webhook,
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
        result: Mapping[str, Any] | None = None,
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
            dict(result or {}),
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
            self._operator_webhook,
        )
        return None if row is None else event_of(row)
