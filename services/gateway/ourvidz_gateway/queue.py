"""The queue: stages of jobs that wait for what does them, in lanes that share it fairly.

A lane is one user's stages of one kind. Each lane has a virtual time, the work that it has been given; the lane with
the lowest is next, so a burst of one user never starves another, and a claim costs the same however many wait.
Every change of `queue` goes with its change of `lanes` in one statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from ourvidz_gateway.acceptance import Acceptance, Terms
from ourvidz_gateway.database import Database
from ourvidz_gateway.endings import AFTER_ACCOUNT, end_jobs
from ourvidz_gateway.events import event_of, insert_milestone
from ourvidz_gateway.jobs import JobEvent, JobStage, Kind, NewJob
from ourvidz_gateway.lanes import enter_lane

# The lane is locked first: two dispatchers that claim at once take different lanes, and a lane's head can't be taken
# twice. A renderer where this job failed before is the last choice.
#
# `head_position` rises only to the first row that this statement sees, be it locked by somebody who may yet let go of
# it, and only if the lane has not changed since the statement began: what entered it in between is not seen, and a
# bound past it would hide it for good.
_CLAIM = f"""
WITH lane AS (
  SELECT user_id, head_position, ctid AS version FROM lanes
  WHERE kind = $1 AND waiting > 0 AND EXISTS (
    SELECT FROM renderer_slots
    WHERE kind = $1 AND job_id IS NULL AND address = ANY($2) AND cool_until <= now())
  ORDER BY virtual_time, claimed_at NULLS FIRST
  LIMIT 1 FOR UPDATE SKIP LOCKED
),
head AS (
  SELECT q.job_id, q.user_id, q.cost, q.enqueued_at, q.last_address FROM queue q, lane
  WHERE q.kind = $1 AND q.user_id = lane.user_id AND q.ready AND q.position >= lane.head_position
  ORDER BY q.position
  LIMIT 1 FOR UPDATE OF q SKIP LOCKED
),
bound AS (
  SELECT CASE WHEN lane.version = (SELECT l.ctid FROM lanes l WHERE l.kind = $1 AND l.user_id = lane.user_id)
              THEN (SELECT min(q.position) FROM queue q WHERE q.kind = $1 AND q.user_id = lane.user_id AND q.ready
                                                          AND q.position >= lane.head_position)
              ELSE lane.head_position END AS position
  FROM lane
),
slot AS (
  SELECT s.address, s.slot FROM renderer_slots s, head
  WHERE s.kind = $1 AND s.job_id IS NULL AND s.address = ANY($2) AND s.cool_until <= now()
  ORDER BY (s.address = head.last_address) IS TRUE, s.released_at
  LIMIT 1 FOR UPDATE OF s SKIP LOCKED
),
claimed AS (SELECT * FROM head, slot),
dequeued AS (DELETE FROM queue USING claimed WHERE queue.job_id = claimed.job_id),
passed AS (
  UPDATE lanes SET waiting = waiting - 1, virtual_time = virtual_time + claimed.cost,
                   head_position = bound.position, claimed_at = clock_timestamp()
  FROM claimed, bound WHERE lanes.kind = $1 AND lanes.user_id = claimed.user_id
),
job AS (
  UPDATE jobs SET
    state = 'processing', attempt = jobs.attempt + 1, started_at = coalesce(started_at, now()),
    deadline_at = coalesce(deadline_at + (now() - claimed.enqueued_at), CASE WHEN stages[stage_index] = 'rendering'
      THEN now() + make_interval(secs => (request->>'deadline_s')::double precision) END)
  FROM claimed WHERE jobs.id = claimed.job_id
  RETURNING jobs.id, jobs.user_id, jobs.job_type, jobs.request, jobs.attempt, stages[stage_index] AS current_stage,
            extract(epoch FROM deadline_at - now())::double precision AS remaining_s
),
taken AS (
  UPDATE renderer_slots s SET job_id = job.id, attempt = job.attempt FROM job, claimed
  WHERE s.kind = $1 AND s.address = claimed.address AND s.slot = claimed.slot
),
begun AS (
  INSERT INTO attempts (job_id, attempt, stage, kind, address, slot, session_id)
  SELECT job.id, job.attempt, job.current_stage, $1, claimed.address, claimed.slot, $3 FROM job, claimed
),
event AS ({insert_milestone("job", state="'processing'", stage="current_stage")})
SELECT job.user_id, job.job_type, job.request, job.remaining_s, claimed.address, claimed.slot, event.*
FROM job, claimed, event
"""

_PROMOTE = f"""
WITH due AS (
  UPDATE queue SET ready = true
  WHERE job_id IN (SELECT job_id FROM queue WHERE NOT ready AND ready_at <= now() FOR UPDATE SKIP LOCKED)
  RETURNING kind, user_id, position
),
lane AS (  -- in one order for all gateways, that none waits for a lane while it holds another's
  SELECT kind, user_id, count(*) AS count, min(position) AS position FROM due GROUP BY kind, user_id ORDER BY 1, 2
),
entered AS ({enter_lane("FROM lane due", kind="due.kind", user="due.user_id", position="due.position", count="due.count")})
SELECT DISTINCT kind FROM due
"""

_NEXT_DUE = """
SELECT extract(epoch FROM least((SELECT min(ready_at) FROM queue WHERE NOT ready), (SELECT min(start_by) FROM queue))
                          - now())::double precision AS due_in_s
"""

_WAITING = """
SELECT kind FROM unnest($1::text[]) AS of (kind)
WHERE EXISTS (SELECT FROM lanes WHERE lanes.kind = of.kind AND lanes.waiting > 0)
"""

_OVERDUE = "SELECT job_id, enqueued_at, kind FROM queue WHERE enqueued_at < now() - make_interval(secs => $1) LIMIT 100"

_LATE = """
SELECT q.job_id, q.enqueued_at, extract(epoch FROM q.start_by - j.created_at)::double precision AS limit_s
FROM queue q JOIN jobs j ON j.id = q.job_id WHERE q.start_by <= now() ORDER BY q.start_by LIMIT 100
"""

# A row that leaves the queue without being claimed: its user cancelled, or it has waited too long. $5: since when; a job
# that was begun meanwhile and waits again has not.
_WITHDRAW = f"""
WITH gone AS (
  DELETE FROM queue WHERE job_id = $1 AND ($5::timestamptz IS NULL OR enqueued_at = $5)
  RETURNING job_id, kind, user_id, ready
),
job AS (
  UPDATE jobs SET state = $2, error_message = $3, completed_at = now() FROM gone WHERE jobs.id = gone.job_id
  RETURNING jobs.id, jobs.user_id, jobs.attempt, jobs.webhook_url
),
{end_jobs("job", operator="$4::boolean")},
lane AS (
  UPDATE lanes SET waiting = waiting - 1 FROM gone
  WHERE gone.ready AND lanes.kind = gone.kind AND lanes.user_id = gone.user_id AND {AFTER_ACCOUNT}
)
{insert_milestone("job", state="$2", stage="NULL", error="$3::text")}
"""

_STATUS = """
SELECT kind, coalesce(depth, 0) AS depth, oldest_s, coalesce(running, 0) AS running
FROM (SELECT kind, count(*) AS depth, extract(epoch FROM now() - min(enqueued_at))::double precision AS oldest_s
      FROM queue GROUP BY kind) q
FULL JOIN (SELECT kind, count(*) AS running FROM attempts WHERE ended_at IS NULL GROUP BY kind) a USING (kind)
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """A stage that this gateway now runs, and where."""

    job_id: UUID
    attempt: int
    user_id: str
    job_type: str
    kind: Kind
    stage: JobStage
    request: dict[str, Any]
    remaining_s: float | None
    """Seconds to the job's deadline, by the database's clock at the claim; None before rendering has begun."""
    address: str
    slot: int
    sequence: int
    """The number of the job's last event."""
    accepted: bool = False
    """Whether the renderer is known to have begun this attempt: then it is only ever attached to."""

    @property
    def render_id(self) -> str:
        """The attempt's name at the renderer; the attempt in it is the fence."""
        return f"{self.job_id}/{self.attempt}"


@dataclass(frozen=True, slots=True)
class Backlog:
    """How much of a kind waits and runs."""

    depth: int
    running: int
    oldest_s: float | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job that waited when the queue was looked at."""

    job_id: UUID
    since: datetime
    """When its stage began to wait."""


class Queue:
    """The waiting stages of all jobs. All calls raise `DatabaseUnavailable` when the database is out of reach.

    `operator_webhook` tells whether the operator wants to be told of jobs' ends.
    """

    def __init__(self, database: Database, terms: Terms, *, operator_webhook: bool = False) -> None:
        self._database = database
        self._operator_webhook = operator_webhook
        self._acceptance = Acceptance(database, terms)

    async def accept(
        self, job: NewJob, *, renderer: Kind, stages: Sequence[JobStage], cost: float, limited: bool = True
    ) -> datetime | None:
        """Store a job and its first stage, and return when they were accepted: from then on they are durable.

        None when the job stands already: its idempotency key is taken, or the job that it tries again was released
        before. Raises `InsufficientCredits`, and `RateLimited` unless it is not `limited`. In all these cases nothing was
        stored.
        """
        return await self._acceptance.accept(job, renderer=renderer, stages=stages, cost=cost, limited=limited)

    async def accepted_before(self, user_id: str, idempotency_key: str) -> tuple[UUID, bytes, Kind] | None:
        """Return the job that was accepted under a key, its request's fingerprint and the kind of its renderer."""
        return await self._acceptance.accepted_before(user_id, idempotency_key)

    async def claim(self, kind: Kind, addresses: Sequence[str], session_id: UUID) -> tuple[Claim, JobEvent] | None:
        """Take the next stage of `kind` and a free slot at one of `addresses` for it; None when either is missing."""
        row = await self._database.fetchrow(_CLAIM, kind, list(addresses), session_id)
        if row is None:
            return None
        event = event_of(row)
        claim = Claim(
            job_id=event.job_id,
            attempt=event.attempt,
            user_id=row["user_id"],
            job_type=row["job_type"],
            kind=kind,
            stage=JobStage(row["stage"]),
            request=row["request"],
            remaining_s=row["remaining_s"],
            address=row["address"],
            slot=row["slot"],
            sequence=event.sequence,
        )
        return claim, event

    async def promote(self) -> tuple[list[Kind], float | None]:
        """Make delayed retries that are due claimable; return their kinds.

        With them come the seconds to when the next one is due or the next job is `late`.
        """
        kinds = [Kind(row["kind"]) for row in await self._database.fetch(_PROMOTE)]
        row = await self._database.fetchrow(_NEXT_DUE)
        return kinds, _present(row)["due_in_s"]

    async def waiting(self) -> list[Kind]:
        """Return the kinds that something waits for."""
        return [Kind(row["kind"]) for row in await self._database.fetch(_WAITING, list(Kind))]

    async def overdue(self, patience_s: float) -> list[tuple[Waiting, Kind]]:
        """Return jobs whose stage has waited for longer than `patience_s` seconds, and for what; at most 100."""
        return [(_waiting_of(row), Kind(row["kind"])) for row in await self._database.fetch(_OVERDUE, patience_s)]

    async def late(self) -> list[tuple[Waiting, float]]:
        """Return jobs that no renderer has begun in time, and the seconds that they gave it; at most 100."""
        return [(_waiting_of(row), row["limit_s"]) for row in await self._database.fetch(_LATE)]

    async def withdraw(
        self, job_id: UUID, *, state: str, message: str, waiting_since: datetime | None = None
    ) -> JobEvent | None:
        """End a job that waits, as cancelled or failed; None when it does not wait, or not `waiting_since` then."""
        row = await self._database.fetchrow(_WITHDRAW, job_id, state, message, self._operator_webhook, waiting_since)
        return None if row is None else event_of(row)

    async def backlog(self) -> dict[Kind, Backlog]:
        """Return how much of each kind waits and runs; kinds with neither are absent."""
        rows = await self._database.fetch(_STATUS)
        return {Kind(row["kind"]): Backlog(row["depth"], row["running"], row["oldest_s"]) for row in rows}


def _waiting_of(row: asyncpg.Record) -> Waiting:
    return Waiting(row["job_id"], row["enqueued_at"])


def _present(row: asyncpg.Record | None) -> asyncpg.Record:
    """Return the row of a statement that always has one."""
    if row is None:
        raise RuntimeError("a statement that returns one row returned none")
    return row
