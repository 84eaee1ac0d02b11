"""Leases and fences: who runs what when gateways fall silent, come back, or leave."""

from collections.abc import Collection
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from ourvidz_gateway.database import Database, open_database
from ourvidz_gateway.errors import DatabaseUnavailable
from ourvidz_gateway.events import EventWriter, Progress
from ourvidz_gateway.jobs import JobStage, Kind, StepDetail
from ourvidz_gateway.queue import Claim
from ourvidz_gateway.sessions import FETCH_SLOTS, Session, SessionCallbacks, fetch_address
from support.jobs import Bench

SILENT = timedelta(seconds=-1)


class Heard:
    """What a session told its dispatcher."""

    def __init__(self, running: Collection[UUID]) -> None:
        self.running = running
        self.taken: list[Claim] = []
        self.cancelled: list[UUID] = []
        self.lost = 0

    def _lose(self) -> None:
        self.lost += 1

    @property
    def callbacks(self) -> SessionCallbacks:
        return SessionCallbacks(
            take_over=self.taken.extend, cancel=self.cancelled.append, lost=self._lose, running=lambda: self.running
        )


async def begin(
    database: Database, *, lease_s: float = 60.0, in_touch: bool = True, running: Collection[UUID] = ()
) -> tuple[Session, Heard]:
    heard = Heard(running)
    session = Session(database, name="test", lease_s=lease_s, callbacks=heard.callbacks)
    await session.begin()
    if in_touch:
        session._in_touch_since -= lease_s
    return session, heard


async def test_a_silent_gateways_attempt_goes_on_elsewhere_under_the_same_name(database, bench: Bench):
    dead = await bench.add_session(lease=SILENT)
    claim = await bench.running_job(dead)
    await bench.attempts.begun(claim, dead)

    session, heard = await begin(database)
    await session._beat()

    assert [(each.render_id, each.accepted, each.address) for each in heard.taken] == [
        (claim.render_id, True, claim.address)
    ]
    assert heard.taken[0].request == claim.request
    await session._beat()
    assert len(heard.taken) == 1


async def test_a_living_gateway_is_left_alone(database, bench: Bench):
    alive = await bench.add_session()
    await bench.running_job(alive)

    session, heard = await begin(database)
    await session._beat()

    assert heard.taken == []


async def test_nobody_takes_over_before_having_been_in_touch_for_a_whole_lease(database, bench: Bench):
    dead = await bench.add_session(lease=SILENT)
    await bench.running_job(dead)

    session, heard = await begin(database, in_touch=False)
    await session._beat()
    assert heard.taken == []

    session._in_touch_since -= 60
    await session._beat()
    assert len(heard.taken) == 1


async def test_who_was_silent_itself_takes_nothing_over_for_another_lease(database, bench: Bench):
    """What kept it from beating may have kept the others."""
    dead = await bench.add_session(lease=SILENT)
    await bench.running_job(dead)

    session, heard = await begin(database)
    session._beaten_at -= 45  # of 60 seconds
    await session._beat()
    assert heard.taken == []

    session._in_touch_since -= 60
    await session._beat()
    assert len(heard.taken) == 1


async def test_what_a_leaving_gateway_runs_is_taken_over_at_once(database, bench: Bench):
    leaving, _ = await begin(database)
    await bench.running_job(leaving.id)
    await leaving.release()

    session, heard = await begin(database, in_touch=False)
    await session._beat()

    assert len(heard.taken) == 1


async def test_two_successors_share_nothing(database, bench: Bench):
    dead = await bench.add_session(lease=SILENT)
    await bench.running_job(dead)

    (first, heard_first), (second, heard_second) = await begin(database), await begin(database)
    await first._beat()
    await second._beat()

    assert (len(heard_first.taken), len(heard_second.taken)) == (1, 0)


async def test_a_ghost_changes_nothing(database, bench: Bench):
    ghost = await bench.add_session(lease=SILENT)
    claim = await bench.running_job(ghost)
    successor, _ = await begin(database)
    await successor._beat()
    before = await bench.value("SELECT count(*) FROM job_events")

    shown = []
    writer = EventWriter(database, lambda: ghost, shown.extend)
    writer.tell(Progress(claim.job_id, 1, JobStage.RENDERING, 5, render_index=2, step=StepDetail(1, 20, 0, 1)))
    await writer.flush()

    assert shown == []
    assert await bench.attempts.complete(claim, ghost, outputs=[], result={}, warnings=[]) is None
    assert await bench.attempts.fail(claim, ghost, reason="X", message="x") is None
    assert await bench.attempts.cancelled(claim, ghost, message="x") is None
    assert await bench.attempts.retry(claim, ghost, reason="X", counts=True, delay_s=0, cost=1) is None
    assert await bench.value("SELECT count(*) FROM job_events") == before
    assert await bench.value("SELECT state FROM jobs") == "processing"
    assert await bench.value("SELECT job_id FROM renderer_slots") == claim.job_id
    assert await bench.attempts.complete(claim, successor.id, outputs=[], result={}, warnings=[])


async def test_a_gateway_that_was_declared_dead_starts_anew(database, bench: Bench):
    ghost, heard = await begin(database)
    await bench.running_job(ghost.id)
    await database.execute("UPDATE gateway_sessions SET lease_until = now() - interval '1 second'")
    successor, _ = await begin(database)
    await successor._beat()
    old_id = ghost.id

    await ghost._beat()

    assert heard.lost == 1
    assert ghost.id != old_id
    await ghost._beat()
    assert heard.lost == 1


async def test_a_late_gateway_that_nobody_declared_dead_goes_on(database, bench: Bench):
    session, heard = await begin(database)
    await bench.running_job(session.id)
    await database.execute("UPDATE gateway_sessions SET lease_until = now() - interval '1 minute'")

    await session._beat()

    assert heard.lost == 0
    assert await bench.value("SELECT lease_until > now() FROM gateway_sessions")


async def test_a_beat_finds_jobs_that_are_to_be_cancelled(database, bench: Bench):
    session, heard = await begin(database)
    claim = await bench.running_job(session.id)
    await database.execute("UPDATE jobs SET cancel_requested_at = now()")

    await session._beat()

    assert heard.cancelled == [claim.job_id]


async def test_an_attempt_ends_once(database, bench: Bench):
    session_id = await bench.add_session()
    claim = await bench.running_job(session_id)

    assert await bench.attempts.complete(claim, session_id, outputs=[], result={}, warnings=[])

    assert await bench.attempts.fail(claim, session_id, reason="X", message="x") is None
    assert await bench.attempts.retry(claim, session_id, reason="X", counts=True, delay_s=0, cost=1) is None
    assert await bench.value("SELECT state FROM jobs") == "completed"
    assert await bench.value("SELECT count(*) FROM queue") == 0
    assert await bench.attempts.failures(uuid4()) == 0


async def test_an_attempt_of_ours_that_nobody_runs_is_adopted(database: Database, bench: Bench):
    """The answer to a claim, or to a take-over, can be lost after it was committed."""
    session, heard = await begin(database)
    claim = await bench.running_job(session.id)
    await session._beat()
    assert heard.taken == [], "its answer may still be on the way"
    await database.execute("UPDATE attempts SET started_at = now() - interval '1 minute'")

    await session._beat()

    assert [each.render_id for each in heard.taken] == [claim.render_id]


async def test_an_attempt_that_runs_here_is_not_adopted(database: Database, bench: Bench):
    elsewhere = await bench.add_session()
    claim = await bench.running_job(elsewhere)
    session, heard = await begin(database, running=(claim.job_id,))
    await database.execute("UPDATE attempts SET session_id = $1, started_at = now() - interval '1 minute'", session.id)

    await session._beat()

    assert heard.taken == []


async def test_what_ran_when_all_gateways_left_is_taken_over_days_later(database: Database, bench: Bench):
    left = await bench.add_session()
    await bench.running_job(left)
    await database.execute(
        "UPDATE gateway_sessions SET ended_at = now() - interval '3 days', lease_until = '-infinity'"
    )

    session, heard = await begin(database)
    await session._beat()

    assert len(heard.taken) == 1


async def test_a_session_that_could_not_begin_is_nobodys(dsn: str, database: Database, bench: Bench):
    session, _ = await begin(database)
    async with open_database(dsn, max_connections=1) as closed:
        session._database = closed
    with pytest.raises(DatabaseUnavailable):
        await session.begin()

    assert await bench.value("SELECT count(*) FROM gateway_sessions WHERE id = $1", session.id) == 1


async def fetch_slots(bench: Bench) -> list[str]:
    return await bench.value("SELECT array_agg(DISTINCT address ORDER BY address) FROM renderer_slots") or []


async def test_the_slots_that_a_gateway_fetches_in_come_and_go_with_it(database, bench: Bench):
    leaving, _ = await begin(database)
    dying, _ = await begin(database)
    assert await fetch_slots(bench) == sorted([fetch_address(leaving.id), fetch_address(dying.id)])
    assert await bench.value("SELECT count(*) FROM renderer_slots") == 2 * FETCH_SLOTS

    await leaving.release()
    assert await fetch_slots(bench) == [fetch_address(dying.id)]
    await database.execute(
        "UPDATE gateway_sessions SET lease_until = now() - interval '1 second' WHERE ended_at IS NULL"
    )
    session, _ = await begin(database)
    await session._beat()

    assert await fetch_slots(bench) == [fetch_address(session.id)]


async def test_a_fetch_of_a_gateway_that_is_gone_ends_without_a_slot(database, bench: Bench):
    dead, _ = await begin(database)
    job_id = await bench.add_job(kind=Kind.FETCHER, stages=[JobStage.FETCHING, JobStage.RENDERING])
    claimed = await bench.queue.claim(Kind.FETCHER, [fetch_address(dead.id)], dead.id)
    assert claimed
    await database.execute("UPDATE gateway_sessions SET lease_until = now() - interval '1 second'")
    session, heard = await begin(database)
    await session._beat()
    (claim,) = heard.taken
    assert (claim.job_id, claim.stage, claim.address) == (job_id, JobStage.FETCHING, fetch_address(dead.id))

    event = await bench.attempts.advance(claim, session.id, request=claim.request, warnings=[], kind=Kind.SDXL, cost=1)

    assert event
    assert await bench.value("SELECT kind FROM queue") == "sdxl"
    assert await fetch_slots(bench) == [fetch_address(session.id)]
