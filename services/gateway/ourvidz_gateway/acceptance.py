"""How a job is accepted: one statement that charges its user, stores the job and lets its first stage wait.

The user's account comes first: its row is where credits, the limit on open jobs and the rate are exact, however many
requests come in at once. Everything else follows from it, so a refused job leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Self
from uuid import UUID

import asyncpg

from ourvidz_gateway.database import Database
from ourvidz_gateway.errors import InsufficientCredits, RateLimited
from ourvidz_gateway.events import insert_milestone
from ourvidz_gateway.jobs import JobStage, Kind, NewJob
from ourvidz_gateway.lanes import enter_lane
from ourvidz_gateway.settings import GatewaySettings

TAKEN = frozenset({"idempotency_keys_pkey", "jobs_retry_of"})
"""What a request runs into that has been made before."""

# $1 job, $2 user, $8 price, $14 key, $15 fingerprint, $16 welcome, $17 limit of open jobs, $18 seconds that a job takes
# up at the allowed rate, $19 burst, $20 for how long keys are kept, $21 webhook, $22 seconds to its start, $23 retry of.
#
# The row of a new user is only tried where the welcome pays for the job; where there is a row, its own guards decide.
#
# Of several requests under one key, one inserts it. The others waited for the account until that had committed, so
# their insert fails, and all that they did with it: a refusal by a guard could not undo the account's change. A key that
# is too old, or whose job is gone, makes room first. The same holds for the index on `retry_of`: a job is released once.
_ACCEPT = f"""
WITH account AS (
  INSERT INTO accounts AS a (user_id, available, reserved, welcomed_by, open_jobs, rate_at)
  SELECT $2::text, $16::bigint - $8::integer, $8::integer, $1::uuid, 1,
         coalesce(clock_timestamp() + make_interval(secs => $18::double precision), '-infinity')
  WHERE $16::bigint >= $8::integer OR EXISTS (SELECT FROM accounts WHERE user_id = $2::text)
  ON CONFLICT (user_id) DO UPDATE SET
    available = a.available + CASE WHEN a.welcomed_by IS NULL THEN $16::bigint ELSE 0 END - $8::integer,
    reserved = a.reserved + $8::integer,
    welcomed_by = coalesce(a.welcomed_by, $1::uuid),
    open_jobs = a.open_jobs + 1,
    rate_at = CASE WHEN $18::double precision IS NULL THEN a.rate_at
              ELSE greatest(a.rate_at, clock_timestamp()) + make_interval(secs => $18::double precision) END
  WHERE a.available + CASE WHEN a.welcomed_by IS NULL THEN $16::bigint ELSE 0 END >= $8::integer
    AND ($17::integer IS NULL OR a.open_jobs < $17::integer)
    AND ($18::double precision IS NULL OR a.rate_at
         <= clock_timestamp() + make_interval(secs => $18::double precision * ($19::integer - 1)))
  RETURNING user_id, welcomed_by
),
too_old AS (
  DELETE FROM idempotency_keys k USING account
  WHERE k.user_id = account.user_id AND k.key = $14::text
    AND (k.created_at < now() - $20::interval OR NOT EXISTS (SELECT FROM jobs WHERE jobs.id = k.job_id))
  RETURNING k.key
),
key AS (
  INSERT INTO idempotency_keys (user_id, key, request_sha256, job_id)
  SELECT user_id, $14::text, $15::bytea, $1::uuid FROM account
  WHERE $14::text IS NOT NULL AND (SELECT count(*) FROM too_old) IS NOT NULL
),
job AS (
  INSERT INTO jobs (id, user_id, job_type, kind, stages, position, request, metadata, credits,
                    project_id, video_id, image_id, webhook_url, start_by, retry_of)
  SELECT $1::uuid, user_id, $3::text, $4::text, $5::text[], nextval('job_positions'), $6::jsonb, $7::jsonb, $8::integer,
         $9::text, $10::text, $11::text, $21::text, now() + make_interval(secs => $22::double precision), $23::uuid
  FROM account
  RETURNING id, user_id, position, attempt, created_at, start_by, retry_of
),
released AS (UPDATE jobs AS before SET released_as = job.id FROM job WHERE before.id = job.retry_of),
entries AS (
  INSERT INTO credit_ledger (user_id, job_id, entry, amount, note)
  SELECT account.user_id, e.job_id, e.entry, e.amount, e.note FROM account, LATERAL (VALUES
    (NULL, 'grant', CASE WHEN account.welcomed_by = $1::uuid THEN $16::bigint ELSE 0 END, 'welcome'),
    ($1::uuid, 'reserve', $8::bigint, NULL)) AS e (job_id, entry, amount, note)
  WHERE e.amount > 0
),
lane AS ({enter_lane("FROM job", kind="$12::text", user="job.user_id", position="job.position")}),
waiting AS (
  INSERT INTO queue (job_id, kind, user_id, position, cost, start_by)
  SELECT id, $12::text, user_id, position, $13::double precision, start_by FROM job
),
event AS ({insert_milestone("job", state="'queued'", stage="'queued'")})
SELECT created_at FROM job
"""

_ACCOUNT = """
SELECT available + CASE WHEN welcomed_by IS NULL THEN $2::bigint ELSE 0 END AS available, open_jobs,
       extract(epoch FROM greatest(rate_at, clock_timestamp()) - clock_timestamp())::double precision AS ahead_s
FROM accounts WHERE user_id = $1
"""

_KEY = """
SELECT k.job_id, k.request_sha256, j.kind FROM idempotency_keys k JOIN jobs j ON j.id = k.job_id
WHERE k.user_id = $1 AND k.key = $2 AND k.created_at >= now() - $3::interval
"""


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms users' jobs are accepted."""

    welcome: int = 0
    """Credits that each new user is given with their first job."""
    open_jobs: int | None = None
    """Jobs of one user that may be open at once, which is until they end; None: any number."""
    jobs_per_minute: float | None = None
    """Jobs that one user may ask for in a minute, in the long run; None: any number."""
    burst: int = 1
    """Jobs that one user may ask for at once before that rate holds."""
    keep_keys: timedelta = timedelta(hours=24)
    """For how long the same idempotency key means the same job."""

    @classmethod
    def from_settings(cls, settings: GatewaySettings) -> Self:
        """Return the operator's terms."""
        return cls(
            welcome=settings.credits_grant,
            open_jobs=settings.user_open_jobs,
            jobs_per_minute=settings.user_jobs_per_minute,
            burst=settings.user_job_burst,
            keep_keys=settings.keep_idempotency_keys,
        )

    def without_limits(self) -> Self:
        """Return them for what an operator lets in: it is paid for, but no limit of its user holds."""
        return replace(self, open_jobs=None, jobs_per_minute=None)

    @property
    def job_s(self) -> float | None:
        """Seconds that one job takes up at the allowed rate; None: no time at all."""
        return None if self.jobs_per_minute is None else 60 / self.jobs_per_minute


class Acceptance:
    """Accepts jobs on the operator's terms. All calls raise `DatabaseUnavailable`."""

    def __init__(self, database: Database, terms: Terms) -> None:
        self._database = database
        self._terms = terms

    async def accept(
        self, job: NewJob, *, renderer: Kind, stages: Sequence[JobStage], cost: float, limited: bool
    ) -> datetime | None:
        """Store a job and its first stage, and return when they were accepted; None when it stands already.

        Raises `InsufficientCredits` and `RateLimited`; then, too, nothing was stored. `limited` tells whether the limits
        of its user hold.
        """
        terms = self._terms if limited else self._terms.without_limits()
        while True:
            try:
                row = await self._database.fetchrow(
                    _ACCEPT,
                    job.id,
                    job.user_id,
                    job.job_type,
                    renderer,
                    list(stages),
                    job.request,
                    job.metadata,
                    job.credits,
                    job.project_id,
                    job.video_id,
                    job.image_id,
                    job.kind,
                    cost,
                    job.idempotency_key,
                    job.fingerprint,
                    terms.welcome,
                    terms.open_jobs,
                    terms.job_s,
                    terms.burst,
                    terms.keep_keys,
                    job.webhook_url,
                    job.start_timeout_s,
                    job.retry_of,
                )
            except asyncpg.UniqueViolationError as error:
                if error.constraint_name not in TAKEN:
                    raise
                return None
            if row is not None:
                return row["created_at"]  # type: ignore[no-any-return]
            # It may say that nothing is wrong: what stood in the way, a job that has just ended, is gone by now.
            await self._check(job, terms)

    async def accepted_before(self, user_id: str, idempotency_key: str) -> tuple[UUID, bytes, Kind] | None:
        """Return the job that was accepted under a key, its request's fingerprint and the kind of its renderer."""
        row = await self._database.fetchrow(_KEY, user_id, idempotency_key, self._terms.keep_keys)
        return None if row is None else (row["job_id"], row["request_sha256"], Kind(row["kind"]))

    async def _check(self, job: NewJob, terms: Terms) -> None:
        """Raise what stands in the way of a job."""
        row = await self._database.fetchrow(_ACCOUNT, job.user_id, terms.welcome)
        available, open_jobs, ahead_s = tuple(row) if row else (terms.welcome, 0, 0.0)
        if available < job.credits:
            raise InsufficientCredits(f"The job costs {_credits(job.credits)}; there are {available} to spend.")
        if terms.open_jobs is not None and open_jobs >= terms.open_jobs:
            raise RateLimited(
                f"{open_jobs} of your jobs have not ended yet, and no more than {terms.open_jobs} may be open at once."
            )
        if terms.job_s is not None and (wait_s := ahead_s - terms.job_s * (terms.burst - 1)) > 0:
            raise RateLimited(
                f"You ask for jobs too fast: {terms.jobs_per_minute:g} a minute are allowed.", retry_after_s=wait_s
            )


def _credits(number: int) -> str:
    return f"{number} credit" if number == 1 else f"{number} credits"
