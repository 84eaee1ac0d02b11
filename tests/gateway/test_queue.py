"""The queue on a real database: durable, fair, and claimed once."""

import asyncio
import sys
from dataclasses import replace
from uuid import uuid4

import asyncpg
import pytest

from ourvidz_gateway.database import Database, migrate
from ourvidz_gateway.jobs import JobStage, JobState, Kind
from support.jobs import ADDRESS, Bench, new_job

GATE = 4711
"""The advisory lock at which gated statements wait."""


async def test_migrations_run_once_when_several_gateways_start_together(dsn):
    program = "import asyncio, sys; from ourvidz_gateway.database import migrate; asyncio.run(migrate(sys.argv[1]))"
    gateways = [await asyncio.create_subprocess_exec(sys.executable, "-c", program, dsn) for _ in range(3)]

    assert [await gateway.wait() for gateway in gateways] == [0, 0, 0]

    await migrate(dsn)


async def test_an_accepted_job_has_its_row_its_stage_and_its_first_event(bench: Bench):
    job_id = await bench.add_job()

    assert await bench.value("SELECT state FROM jobs WHERE id = $1", job_id) == "queued"
    assert await bench.value("SELECT kind FROM queue WHERE job_id = $1", job_id) == "sdxl"
    assert await bench.value("SELECT sequence FROM job_events WHERE job_id = $1", job_id) == 1
    assert await bench.lanes_agree_with_queue()


async def test_a_claim_takes_slot_and_job_and_counts_the_attempt(bench: Bench):
    await bench.add_slots()
    session_id = await bench.add_session()
    job_id = await bench.add_job()

    claimed = await bench.queue.claim(Kind.SDXL, [ADDRESS], session_id)

    assert claimed
    claim, event = claimed
    assert (claim.job_id, claim.attempt, claim.address, claim.slot) == (job_id, 1, ADDRESS, 0)
    assert claim.render_id == f"{job_id}/1"
    assert claim.remaining_s == pytest.approx(900, abs=1)
    assert (event.sequence, event.state) == (2, JobState.PROCESSING)
    assert await bench.value("SELECT count(*) FROM queue") == 0
    assert await bench.value("SELECT job_id FROM renderer_slots") == job_id
    assert await bench.lanes_agree_with_queue()


async def test_nothing_is_claimed_without_a_free_slot_at_a_reachable_address(bench: Bench):
    await bench.add_slots()
    session_id = await bench.add_session()
    for _ in range(2):
        await bench.add_job()

    assert await bench.claim(session_id, "127.0.0.1:1") is None
    assert await bench.claim(session_id)
    assert await bench.claim(session_id) is None
    assert await bench.value("SELECT count(*) FROM queue") == 1


async def test_one_user_is_served_in_order(bench: Bench):
    await bench.add_slots(5)
    session_id = await bench.add_session()
    jobs = [await bench.add_job() for _ in range(5)]

    assert [claim.job_id for _ in jobs if (claim := await bench.claim(session_id))] == jobs


async def test_a_burst_of_one_user_does_not_delay_another(bench: Bench):
    await bench.add_slots(4)
    session_id = await bench.add_session()
    for _ in range(200):
        await bench.add_job("alice")
    for _ in range(2):
        assert await bench.claim(session_id)

    bobs = await bench.add_job("bob")

    claim = await bench.claim(session_id)
    assert claim
    assert claim.job_id == bobs


async def test_users_share_by_work_and_not_by_number_of_jobs(bench: Bench):
    await bench.add_slots(12)
    session_id = await bench.add_session()
    for _ in range(12):
        await bench.add_job("many images", cost=6.0)
        await bench.add_job("one image", cost=1.0)

    served = [claim.user_id for _ in range(12) if (claim := await bench.claim(session_id))]

    assert served.count("many images") == 2


async def test_staying_away_saves_up_no_turns(bench: Bench):
    await bench.add_slots(40)
    session_id = await bench.add_session()
    for _ in range(10):
        await bench.add_job("busy")
        assert await bench.claim(session_id)
    for _ in range(6):
        await bench.add_job("busy")
        await bench.add_job("newcomer")

    served = [claim.user_id for _ in range(6) if (claim := await bench.claim(session_id))]

    assert served.count("newcomer") == 3


async def test_dispatchers_that_claim_together_never_take_the_same_job_or_slot(bench: Bench):
    await bench.add_slots(20)
    session_id = await bench.add_session()
    jobs = {await bench.add_job(f"user {number % 3}") for number in range(20)}

    async def claim_all() -> list:
        return [claim for _ in range(40) if (claim := await bench.claim(session_id))]

    claims = [claim for claims in await asyncio.gather(*(claim_all() for _ in range(5))) for claim in claims]

    assert sorted(claim.job_id for claim in claims) == sorted(jobs)
    assert sorted(claim.slot for claim in claims) == list(range(20))
    assert await bench.lanes_agree_with_queue()


async def test_a_waiting_job_can_be_withdrawn_once(bench: Bench):
    await bench.add_slots()
    session_id = await bench.add_session()
    job_id = await bench.add_job()

    event = await bench.queue.withdraw(job_id, state=JobState.CANCELLED, message="The job was cancelled.")

    assert event
    assert (event.state, event.error_message) == (JobState.CANCELLED, "The job was cancelled.")
    assert await bench.queue.withdraw(job_id, state=JobState.FAILED, message="too late") is None
    assert await bench.claim(session_id) is None
    assert await bench.lanes_agree_with_queue()


async def test_withdrawing_and_claiming_at_once_has_one_winner(bench: Bench):
    session_id = await bench.add_session()
    await bench.add_slots(10)
    for _ in range(10):
        job_id = await bench.add_job()
        claim, event = await asyncio.gather(
            bench.claim(session_id), bench.queue.withdraw(job_id, state=JobState.CANCELLED, message="cancelled")
        )
        assert (claim is None) != (event is None)
    assert await bench.lanes_agree_with_queue()


async def test_the_backlog_counts_what_waits_and_runs(bench: Bench):
    await bench.add_slots(1)
    session_id = await bench.add_session()
    assert await bench.queue.backlog() == {}
    for _ in range(3):
        await bench.add_job()
    assert await bench.claim(session_id)

    backlog = (await bench.queue.backlog())[Kind.SDXL]

    assert (backlog.depth, backlog.running) == (2, 1)
    assert backlog.oldest_s is not None


async def test_overdue_jobs_are_those_that_waited_longer(bench: Bench):
    job_id = await bench.add_job()
    await bench.add_job()
    await bench.database.execute("UPDATE queue SET enqueued_at = now() - interval '2 hours' WHERE job_id = $1", job_id)

    assert [(waiting.job_id, kind) for waiting, kind in await bench.queue.overdue(3600)] == [(job_id, Kind.SDXL)]


async def test_a_job_that_was_begun_since_it_was_found_overdue_is_not_given_up(bench: Bench):
    await bench.add_slots()
    job_id = await bench.add_job()
    ((waiting, _),) = await bench.queue.overdue(0)
    session_id = await bench.add_session()
    claim = await bench.claim(session_id)
    await bench.attempts.retry(claim, session_id, reason="BUSY", counts=False, delay_s=0, cost=1)

    given_up = await bench.queue.withdraw(
        job_id, state=JobState.FAILED, message="too late", waiting_since=waiting.since
    )

    assert given_up is None
    assert await bench.value("SELECT count(*) FROM queue") == 1


async def test_late_jobs_are_those_that_nobody_began_in_time(bench: Bench):
    late = replace(new_job(), start_timeout_s=30)
    for job in (new_job(), late, replace(new_job(), start_timeout_s=60)):
        await bench.accept(job)
    assert await bench.queue.late() == []
    assert (await bench.queue.promote())[1] == pytest.approx(30, abs=5)

    for was in ("jobs SET created_at = created_at", "queue SET start_by = start_by"):
        await bench.database.execute(f"UPDATE {was} - interval '50 seconds'")

    assert [(waiting.job_id, limit_s) for waiting, limit_s in await bench.queue.late()] == [(late.id, 30.0)]


async def test_the_position_of_an_unknown_job_is_not_withdrawn(database: Database, bench: Bench):
    assert await bench.queue.withdraw(uuid4(), state=JobState.CANCELLED, message="x") is None


async def test_an_idempotency_key_stores_one_job_under_simultaneous_requests(bench: Bench):
    jobs = [replace(new_job(), idempotency_key="key", fingerprint=b"same") for _ in range(20)]

    replies = await asyncio.gather(
        *(bench.queue.accept(job, renderer=Kind.SDXL, stages=[JobStage.RENDERING], cost=1.0) for job in jobs)
    )

    stored = await bench.value("SELECT id FROM jobs")
    assert [job.id for job, reply in zip(jobs, replies, strict=True) if reply] == [stored]
    assert await bench.value("SELECT count(*) FROM jobs") == 1
    assert await bench.value("SELECT count(*) FROM queue") == 1
    assert await bench.queue.accepted_before("alice", "key") == (stored, b"same", Kind.SDXL)
    assert await bench.queue.accepted_before("bob", "key") is None
    assert await bench.lanes_agree_with_queue()


async def test_a_job_that_enters_a_lane_while_it_is_claimed_from_is_claimed_in_its_turn(dsn: str, bench: Bench):
    """Of two jobs that are accepted at once, the first to take its number may be the last to commit."""
    await bench.add_slots(3)
    session_id = await bench.add_session()
    await bench.database.execute("SELECT setval('job_positions', 10)")
    visible = [await bench.add_job() for _ in range(2)]
    # A claim that has its snapshot, but no lane yet, waits at the gate.
    for statement in (
        f"""CREATE FUNCTION pass() RETURNS boolean LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_advisory_xact_lock_shared({GATE}); RETURN true; END $$""",
        "ALTER TABLE renderer_slots RENAME TO gated_slots",
        "CREATE VIEW renderer_slots AS SELECT * FROM gated_slots WHERE pass()",
    ):
        await bench.database.execute(statement)
    gatekeeper = await asyncpg.connect(dsn)
    await gatekeeper.execute(f"SELECT pg_advisory_lock({GATE})")

    claiming = asyncio.create_task(bench.claim(session_id))
    await bench.until(f"EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = {GATE} AND NOT granted)")
    await bench.database.execute("SELECT setval('job_positions', 1)")
    late = await bench.add_job()
    await gatekeeper.close()

    claims = [await claiming, await bench.claim(session_id), await bench.claim(session_id)]
    assert {claim.job_id for claim in claims if claim} == {late, *visible}
    assert await bench.lanes_agree_with_queue()


async def test_a_job_whose_withdrawal_was_rolled_back_is_still_claimed(dsn: str, bench: Bench):
    await bench.add_slots(2)
    session_id = await bench.add_session()
    first, second = await bench.add_job(), await bench.add_job()
    withdrawing = await asyncpg.connect(dsn)
    transaction = withdrawing.transaction()
    await transaction.start()
    await withdrawing.execute("DELETE FROM queue WHERE job_id = $1", first)

    passed_by = await bench.claim(session_id)
    await transaction.rollback()
    await withdrawing.close()
    claim = await bench.claim(session_id)

    assert passed_by
    assert passed_by.job_id == second
    assert claim
    assert claim.job_id == first


async def test_what_waits_is_found_by_kind(bench: Bench):
    assert await bench.queue.waiting() == []
    await bench.add_job()
    await bench.add_job(kind=Kind.ENHANCER, stages=[JobStage.ENHANCING, JobStage.RENDERING])

    assert set(await bench.queue.waiting()) == {Kind.SDXL, Kind.ENHANCER}
