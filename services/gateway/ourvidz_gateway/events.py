"""The event log: what happened to each job, numbered without gaps, for watchers to replay and follow.

Milestones (a change of state) are written by the statement that makes the change. Steps come from running renders and
are written many at a time by one `EventWriter` for each gateway.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg
import structlog
import tenacity

from ourvidz_gateway.errors import DatabaseUnavailable
from ourvidz_gateway.jobs import JobEvent, JobStage, JobState, StepDetail

if TYPE_CHECKING:
    from ourvidz_gateway.database import Database

log = structlog.get_logger()

COLUMNS = (
    "job_id, sequence, milestone, state, stage, progress, attempt, "
    "step, step_count, image_index, image_count, error_message, created_at"
)


def insert_milestone(source: str, *, state: str, stage: str, error: str = "NULL", progress: str = "0") -> str:
    """Return the SQL that adds a milestone for each row of `source`, which has the columns `id` and `attempt`."""
    return f"""
    INSERT INTO job_events (job_id, sequence, milestone, state, stage, progress, attempt, error_message)
    SELECT s.id, 1 + coalesce((SELECT max(e.sequence) FROM job_events e WHERE e.job_id = s.id), 0),
           true, {state}, {stage}, {progress}, s.attempt, {error}
    FROM {source} s
    RETURNING {COLUMNS}
    """


def event_of(row: asyncpg.Record) -> JobEvent:
    """Read an event from a row with the columns of `job_events`."""
    step = None
    if row["step"] is not None:
        step = StepDetail(row["step"], row["step_count"], row["image_index"], row["image_count"])
    return JobEvent(
        job_id=row["job_id"],
        sequence=row["sequence"],
        created_at=row["created_at"],
        state=JobState(row["state"]),
        stage=JobStage(row["stage"]) if row["stage"] else None,
        progress=row["progress"],
        attempt=row["attempt"],
        step=step,
        error_message=row["error_message"],
    )


@dataclass(frozen=True, slots=True)
class Progress:
    """Something that a running attempt has to tell, not yet numbered."""

    job_id: UUID
    attempt: int
    stage: JobStage
    percent: int
    render_index: int
    """The renderer's own number of the event in this attempt, from 1."""
    step: StepDetail | None = None
    """None: the stage itself has begun, which is a milestone."""


# An attempt that has ended or that another gateway has taken over tells nothing more. What a successor hears again
# from the start of the render, or a batch that is sent again because its answer was lost, is not stored again.
_APPEND = f"""
WITH told AS (
  SELECT * FROM unnest($2::uuid[], $3::integer[], $4::text[], $5::smallint[],
                       $6::integer[], $7::integer[], $8::integer[], $9::integer[], $10::bigint[], $11::bigint[])
    WITH ORDINALITY AS t (job_id, attempt, stage, progress, step, step_count, image_index, image_count, render_index,
                          given, place)
)
INSERT INTO job_events (job_id, sequence, milestone, state, stage, progress, attempt,
                        step, step_count, image_index, image_count, render_index)
SELECT t.job_id,
       row_number() OVER (PARTITION BY t.job_id ORDER BY t.place)
         + greatest((SELECT max(e.sequence) FROM job_events e WHERE e.job_id = t.job_id), t.given),
       t.step IS NULL, 'processing', t.stage, t.progress, t.attempt, t.step, t.step_count, t.image_index, t.image_count,
       t.render_index
FROM told t JOIN attempts a ON a.job_id = t.job_id AND a.attempt = t.attempt
WHERE a.session_id = $1 AND a.ended_at IS NULL AND t.render_index > coalesce(
  (SELECT e.render_index FROM job_events e
   WHERE e.job_id = t.job_id AND e.attempt = t.attempt AND e.render_index IS NOT NULL
   ORDER BY e.sequence DESC LIMIT 1), 0)
ORDER BY t.place
RETURNING {COLUMNS}
"""

_RESTORE = """
INSERT INTO job_events (job_id, sequence, milestone, state, stage, progress, attempt,
                        step, step_count, image_index, image_count, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
ON CONFLICT DO NOTHING
"""

# A job's end is told from its record where it stands in the log under a number that was passed already, which takes a
# crash of the database's host and of the gateway that ran the job, or not at all, after the time that events are kept.
_AFTER = f"""
WITH watched AS (SELECT * FROM unnest($1::uuid[], $2::bigint[]) AS w (id, after))
SELECT {COLUMNS} FROM job_events e JOIN watched w ON e.job_id = w.id AND e.sequence > w.after
UNION ALL
SELECT j.id, coalesce(last.sequence, 1), true, j.state, NULL,
       CASE j.state WHEN 'completed' THEN 100 ELSE coalesce(last.progress, 0) END, j.attempt,
       NULL, NULL, NULL, NULL, j.error_message, j.completed_at
FROM watched w JOIN jobs j ON j.id = w.id AND j.completed_at IS NOT NULL
LEFT JOIN LATERAL (
  SELECT e.sequence, e.progress FROM job_events e WHERE e.job_id = j.id ORDER BY e.sequence DESC LIMIT 1
) last ON true
WHERE last.sequence IS NULL OR last.sequence <= w.after
ORDER BY job_id, sequence
"""

BACKLOG_LIMIT = 20_000
"""While the database is away, the oldest steps are dropped past this many: progress is worth less than memory."""


async def read_events(database: Database, after: dict[UUID, int]) -> list[JobEvent]:
    """Return the events of each job with a number greater than the one given, in order. One statement for all."""
    return [event_of(row) for row in await database.fetch(_AFTER, list(after), list(after.values()))]


class EventWriter:
    """Writes what running attempts tell, all that has gathered in one statement, then hands it to `publish`.

    An event has its number, and is shown to watchers, only once it is stored. `database` commits asynchronously: steps
    of the last moments may be lost with the database's host, never a milestone that ends a job, and no number that was
    shown is given to another event.
    """

    def __init__(
        self, database: Database, session_id: Callable[[], UUID], publish: Callable[[Sequence[JobEvent]], None]
    ) -> None:
        self._database = database
        self._session_id = session_id
        self._publish = publish
        self._told: deque[Progress] = deque(maxlen=BACKLOG_LIMIT)
        self._shown: dict[UUID, JobEvent] = {}
        """The last event of each job that runs here, as this writer stored it."""
        self._something = asyncio.Event()
        self._writing = asyncio.Lock()

    def tell(self, progress: Progress) -> None:
        """Take an event for writing; returns at once."""
        self._told.append(progress)
        self._something.set()

    async def run(self) -> None:
        """Write what is told, for ever, through outages of the database."""
        while True:
            await self._something.wait()
            await self._write_through_outages()

    @tenacity.retry(
        retry=tenacity.retry_if_exception_type(DatabaseUnavailable),
        wait=tenacity.wait_random_exponential(multiplier=0.1, max=2),
        before_sleep=lambda state: log.warning("database away, progress waits", tries=state.attempt_number),
    )
    async def _write_through_outages(self) -> None:
        await self.flush()

    async def flush(self) -> None:
        """Write all that has been told so far. Raises `DatabaseUnavailable`; then it is kept for the next try.

        What the database refuses is dropped: a number that a renderer made up must not stop all other jobs.
        """
        async with self._writing:
            self._something.clear()
            batch = list(self._told)
            self._told.clear()
            if not batch:
                return
            try:
                rows = await self._append(batch)
            except DatabaseUnavailable:
                self._told = deque([*batch, *self._told], maxlen=BACKLOG_LIMIT)
                self._something.set()
                raise
            except Exception:
                log.exception("progress can't be stored, it is dropped", events=len(batch))
                return
            events = [event_of(row) for row in rows]
            self._shown |= {event.job_id: event for event in events}
            self._publish(events)

    @contextmanager
    def following(self, job_id: UUID) -> Iterator[None]:
        """Keep the last that was stored of a job, for `settle`, to the end of the block."""
        try:
            yield
        finally:
            self._shown.pop(job_id, None)

    async def settle(self, job_id: UUID) -> None:
        """Write all that has been told, and see that what comes next of a job gets a number that was never shown.

        To be called before anybody else writes for the job. Raises `DatabaseUnavailable`, as `flush` does.
        """
        await self.flush()
        if event := self._shown.get(job_id):
            step = event.step
            await self._database.execute(
                _RESTORE,
                event.job_id,
                event.sequence,
                step is None,
                event.state,
                event.stage,
                event.progress,
                event.attempt,
                step and step.step,
                step and step.step_count,
                step and step.image_index,
                step and step.image_count,
                event.created_at,
            )

    # Two gateways can write for one job only in the moment of a take-over; the loser finds itself fenced on the retry.
    @tenacity.retry(
        retry=tenacity.retry_if_exception_type(asyncpg.UniqueViolationError),
        stop=tenacity.stop_after_attempt(5),
        reraise=True,
    )
    async def _append(self, batch: list[Progress]) -> list[asyncpg.Record]:
        steps = [progress.step for progress in batch]
        return await self._database.fetch(
            _APPEND,
            self._session_id(),
            [progress.job_id for progress in batch],
            [progress.attempt for progress in batch],
            [progress.stage for progress in batch],
            [progress.percent for progress in batch],
            [step and step.step for step in steps],
            [step and step.step_count for step in steps],
            [step and step.image_index for step in steps],
            [step and step.image_count for step in steps],
            [progress.render_index for progress in batch],
            [shown.sequence if (shown := self._shown.get(progress.job_id)) else 0 for progress in batch],
        )
