"""A gateway's lease: one heartbeat for all that it runs, on the database's clock.

A gateway that stops beating is declared dead by another, which takes over its running attempts. The session's id is
part of every attempt's fence, so whatever the dead one still does changes nothing.

A session also brings the slots in which its gateway fetches reference pictures; they come and go with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import structlog

from ourvidz_gateway.database import COMMAND_TIMEOUT_S, Database, reaching_database
from ourvidz_gateway.errors import DatabaseUnavailable
from ourvidz_gateway.jobs import JobStage, Kind
from ourvidz_gateway.queue import Claim

log = structlog.get_logger()

FETCH_SLOTS = 8
"""Jobs that one gateway fetches references for at once."""

_BEGIN = """
WITH session AS (
  INSERT INTO gateway_sessions (id, name, lease_until)
  VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3))
)
INSERT INTO renderer_slots (kind, address, slot) SELECT 'fetcher', $4, generate_series(0, $5::integer - 1)
"""

_BEAT = """
UPDATE gateway_sessions SET lease_until = clock_timestamp() + make_interval(secs => $2)
WHERE id = $1 AND ended_at IS NULL RETURNING id
"""

_CANCELLED = """
SELECT a.job_id FROM attempts a JOIN jobs j ON j.id = a.job_id
WHERE a.session_id = $1 AND a.ended_at IS NULL AND j.cancel_requested_at IS NOT NULL
"""

_AS_CLAIMS = """
SELECT m.job_id, m.attempt, m.stage, m.kind, m.address, m.slot, m.accepted_at IS NOT NULL AS accepted,
       j.user_id, j.job_type, j.request,
       extract(epoch FROM j.deadline_at - now())::double precision AS remaining_s,
       (SELECT max(e.sequence) FROM job_events e WHERE e.job_id = m.job_id) AS sequence
FROM mine m JOIN jobs j ON j.id = m.job_id
"""

# Ours, but not run here: the answer to the claim or to the take-over was lost after it was committed.
_ORPHANS = f"""
WITH mine AS (
  SELECT * FROM attempts
  WHERE session_id = $1 AND ended_at IS NULL AND started_at < now() - make_interval(secs => $2) AND job_id <> ALL($3::uuid[])
)
{_AS_CLAIMS}
"""

_RELEASE = """
WITH slots AS (DELETE FROM renderer_slots WHERE kind = 'fetcher' AND address = $2)
UPDATE gateway_sessions SET ended_at = clock_timestamp(), lease_until = '-infinity' WHERE id = $1
"""

# A session that was released is free at once. One that fell silent is dead only to a gateway that has itself been in
# touch with the database for a whole lease: after an outage everybody gets the time to beat again. A fetch that is taken
# over needs no slot of its successor's: those that a gateway had are gone with it.
_TAKE_OVER = f"""
WITH dead AS (
  SELECT id FROM gateway_sessions s
  WHERE id <> $1 AND lease_until < clock_timestamp()
    AND (CASE WHEN ended_at IS NULL THEN $2 ELSE EXISTS (
           SELECT FROM attempts a WHERE a.session_id = s.id AND a.ended_at IS NULL) END)
  FOR UPDATE SKIP LOCKED
),
ended AS (UPDATE gateway_sessions SET ended_at = coalesce(ended_at, clock_timestamp()) FROM dead WHERE gateway_sessions.id = dead.id),
slots AS (DELETE FROM renderer_slots s USING dead WHERE s.kind = 'fetcher' AND s.address = 'gateway:' || dead.id),
mine AS (
  UPDATE attempts SET session_id = $1 FROM dead WHERE attempts.session_id = dead.id AND attempts.ended_at IS NULL
  RETURNING attempts.*
)
{_AS_CLAIMS}
"""

# A session is kept while anything runs under it: it is what a successor finds the attempt by.
_FORGET = """
DELETE FROM gateway_sessions s WHERE ended_at < now() - interval '1 day'
  AND NOT EXISTS (SELECT FROM attempts a WHERE a.session_id = s.id AND a.ended_at IS NULL)
"""


def fetch_address(session_id: UUID) -> str:
    """Return the address of the slots that a gateway fetches in."""
    return f"gateway:{session_id}"


LOST_ANSWER_S = 1.5 * COMMAND_TIMEOUT_S
"""An attempt that is older than this and not run here is not a claim whose answer is still on its way."""


@dataclass(frozen=True, slots=True)
class SessionCallbacks:
    """What a session tells the dispatcher."""

    take_over: Callable[[list[Claim]], object]
    """These attempts of a dead gateway are now ours."""
    cancel: Callable[[UUID], object]
    """This job of ours is to be cancelled."""
    lost: Callable[[], object]
    """We were declared dead: all that we ran belongs to others."""
    running: Callable[[], Collection[UUID]]
    """The jobs that run here."""


class Session:
    """This gateway's lease. `lease_s` is how long it may be silent; it beats three times in that time."""

    def __init__(self, database: Database, *, name: str, lease_s: float, callbacks: SessionCallbacks) -> None:
        self._database = database
        self._name = name
        self._lease_s = lease_s
        self._callbacks = callbacks
        self.id = uuid4()
        self._in_touch_since = self._beaten_at = time.monotonic()

    async def begin(self) -> None:
        """Start a session; its id is new each time."""
        session_id = uuid4()
        await self._database.execute(
            _BEGIN, session_id, self._name, self._lease_s, fetch_address(session_id), FETCH_SLOTS
        )
        self.id = session_id  # not before: what is claimed under a session that does not stand is nobody's
        await self._database.execute(_FORGET)
        self._in_touch_since = self._beaten_at = time.monotonic()

    async def run(self) -> None:
        """Beat, look for cancelled jobs of ours and for dead gateways, for ever, through outages of the database."""
        while True:
            began = time.monotonic()
            try:
                await self._beat()
            except DatabaseUnavailable:
                self._in_touch_since = time.monotonic()
                log.warning("database away, the lease runs on without a beat")
            await asyncio.sleep(max(0.0, began + self._lease_s / 3 - time.monotonic()))

    async def release(self) -> None:
        """End the session, so that others take over what it runs at once. Raises `DatabaseUnavailable`."""
        with reaching_database():
            # By then it has run out by itself.
            async with asyncio.timeout(self._lease_s):
                await self._database.execute(_RELEASE, self.id, fetch_address(self.id))

    async def _beat(self) -> None:
        with reaching_database():
            # A line that went dead costs this beat and not the lease: the next one comes over a new connection.
            async with asyncio.timeout(self._lease_s / 2):
                stands = await self._database.fetchrow(_BEAT, self.id, self._lease_s)
        silent_s, self._beaten_at = time.monotonic() - self._beaten_at, time.monotonic()
        if silent_s > self._lease_s * 2 / 3:
            # What kept us from beating may have kept the others, too, long enough for their leases to run out.
            self._in_touch_since = self._beaten_at
        if stands is None:
            log.error("this gateway was declared dead while it could not reach the database; it starts anew")
            self._callbacks.lost()
            await self.begin()
            return
        for row in await self._database.fetch(_CANCELLED, self.id):
            self._callbacks.cancel(row["job_id"])
        in_touch_s = time.monotonic() - self._in_touch_since
        rows = await self._database.fetch(_TAKE_OVER, self.id, in_touch_s >= self._lease_s)
        if rows:
            log.warning("taking over from a gateway that is gone", attempts=len(rows))
            self._callbacks.take_over([_claim_of(row) for row in rows])
        rows = await self._database.fetch(_ORPHANS, self.id, LOST_ANSWER_S, list(self._callbacks.running()))
        if rows:
            log.warning("taking up attempts of ours that nobody runs", attempts=len(rows))
            self._callbacks.take_over([_claim_of(row) for row in rows])


def _claim_of(row: Any) -> Claim:
    return Claim(
        job_id=row["job_id"],
        attempt=row["attempt"],
        user_id=row["user_id"],
        job_type=row["job_type"],
        kind=Kind(row["kind"]),
        stage=JobStage(row["stage"]),
        request=row["request"],
        remaining_s=row["remaining_s"],
        address=row["address"],
        slot=row["slot"],
        sequence=row["sequence"],
        accepted=row["accepted"],
    )
