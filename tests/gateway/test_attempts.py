"""How attempts end on a real database: the job waits again, goes on to its next stage, or is over."""

import asyncio
from dataclasses import replace
from uuid import UUID

import pytest

from ourvidz_gateway.jobs import JobEvent, JobStage, JobState, Kind
from ourvidz_gateway.queue import Claim
from ourvidz_gateway.records import Records
from support.jobs import Bench, new_job

STAGES = (JobStage.ENHANCING, JobStage.RENDERING)


async def enhancing_job(bench: Bench, session_id: UUID, *, cost: float = 1.0) -> Claim:
    """A job that is being enhanced."""
    await bench.add_slots(address="enhancer:1", kind=Kind.ENHANCER)
    await bench.add_job(kind=Kind.ENHANCER, stages=STAGES, cost=cost)
    claimed = await bench.queue.claim(Kind.ENHANCER, ["enhancer:1"], session_id)
    assert claimed
    return claimed[0]


async def advance(bench: Bench, claim: Claim, session_id: UUID, *, cost: float = 1.0) -> JobEvent | None:
    request = {**claim.request, "enhanced_prompt": "more of it"}
    return await bench.attempts.advance(
        claim, session_id, request=request, warnings=["it was cut"], kind=Kind.SDXL, cost=cost
    )


async def test_a_retry_keeps_its_place_and_waits_out_its_delay(bench: Bench):
    await bench.add_slots(3)
    session_id = await bench.add_session()
    first, second = await bench.add_job(), await bench.add_job()
    claim = await bench.claim(session_id)
    assert claim
    assert claim.job_id == first

    event = await bench.attempts.retry(claim, session_id, reason="ENGINE_DIED", counts=True, delay_s=60, cost=1.0)

    assert event
    assert event.state == JobState.QUEUED
    assert await bench.attempts.failures(first) == 1
    kinds, due_in_s = await bench.queue.promote()
    assert (kinds, round(due_in_s or 0)) == ([], 60)
    await bench.add_job()
    await bench.database.execute("UPDATE queue SET ready_at = now() WHERE job_id = $1", first)
    assert await bench.queue.promote() == ([Kind.SDXL], None)
    assert await bench.lanes_agree_with_queue()
    again = await bench.claim(session_id)
    assert again
    assert (again.job_id, again.attempt) == (first, 2)
    after = await bench.claim(session_id)
    assert after
    assert after.job_id == second


async def test_a_retry_prefers_a_renderer_where_it_has_not_failed(bench: Bench):
    await bench.add_slots(address="first:1")
    session_id = await bench.add_session()
    await bench.add_job()
    claim = await bench.claim(session_id, "first:1")
    assert claim
    await bench.attempts.retry(claim, session_id, reason="ENGINE_DIED", counts=True, delay_s=0, cost=1.0)
    await bench.add_slots(address="second:1")
    await bench.database.execute(
        "UPDATE renderer_slots SET released_at = now() + interval '1 hour' WHERE address = 'second:1'"
    )

    again = await bench.claim(session_id, "first:1", "second:1")

    assert again
    assert again.address == "second:1"


async def test_a_busy_renderers_slot_is_left_alone_for_a_while(bench: Bench):
    await bench.add_slots()
    session_id = await bench.add_session()
    await bench.add_job()
    claim = await bench.claim(session_id)
    assert claim
    await bench.attempts.retry(claim, session_id, reason="BUSY", counts=False, delay_s=0, cool_s=60, cost=1.0)

    assert await bench.attempts.failures(claim.job_id) == 0
    assert await bench.claim(session_id) is None
    await bench.database.execute("UPDATE renderer_slots SET cool_until = now()")
    assert await bench.claim(session_id)


async def test_a_job_that_is_cancelled_as_it_is_retried_ends(bench: Bench):
    session_id = await bench.add_session()
    claim = await bench.running_job(session_id)
    await bench.database.execute("UPDATE jobs SET cancel_requested_at = now()")

    event = await bench.attempts.retry(claim, session_id, reason="BUSY", counts=False, delay_s=0, cost=1)

    assert event
    assert (event.state, event.stage, event.error_message) == (JobState.CANCELLED, None, "The job was cancelled.")
    assert await bench.value("SELECT count(*) FROM queue") == 0
    assert await bench.value("SELECT state FROM jobs WHERE completed_at IS NOT NULL") == "cancelled"
    assert await bench.lanes_agree_with_queue()


async def test_waiting_for_another_attempt_takes_nothing_from_the_time_to_render(bench: Bench):
    session_id = await bench.add_session()
    claim = await bench.running_job(session_id)
    await bench.attempts.retry(claim, session_id, reason="BUSY", counts=False, delay_s=0, cost=1)
    await bench.database.execute("UPDATE jobs SET deadline_at = deadline_at - interval '30 minutes'")
    await bench.database.execute("UPDATE queue SET enqueued_at = enqueued_at - interval '30 minutes'")

    again = await bench.claim(session_id)

    assert again
    assert again.remaining_s == pytest.approx(900, abs=5)


async def test_a_stage_that_is_done_queues_the_next_with_its_plan_and_frees_its_slot(bench: Bench):
    session_id = await bench.add_session()
    claim = await enhancing_job(bench, session_id)
    assert (claim.stage, claim.remaining_s) == (JobStage.ENHANCING, None)

    event = await advance(bench, claim, session_id)

    assert event
    assert (event.state, event.stage, event.sequence) == (JobState.QUEUED, JobStage.QUEUED, 3)
    assert await bench.value("SELECT count(*) FROM renderer_slots WHERE job_id IS NOT NULL") == 0
    assert await bench.value("SELECT outcome FROM attempts") == "completed"
    assert await bench.value("SELECT warnings FROM jobs") == ["it was cut"]
    assert await bench.lanes_agree_with_queue()
    await bench.add_slots()
    following = await bench.claim(session_id)
    assert following
    assert (following.job_id, following.attempt, following.stage) == (claim.job_id, 2, JobStage.RENDERING)
    assert following.request["enhanced_prompt"] == "more of it"
    assert following.remaining_s == pytest.approx(900, abs=1)
    assert await bench.attempts.failures(claim.job_id) == 0


async def test_a_stage_ends_once(bench: Bench):
    session_id = await bench.add_session()
    claim = await enhancing_job(bench, session_id)
    assert await advance(bench, claim, await bench.add_session()) is None

    assert await advance(bench, claim, session_id)

    assert await advance(bench, claim, session_id) is None
    assert await bench.value("SELECT count(*) FROM queue") == 1
    assert await bench.value("SELECT stage_index FROM jobs") == 2
    assert await bench.lanes_agree_with_queue()


async def test_a_job_that_is_cancelled_between_its_stages_ends(bench: Bench):
    session_id = await bench.add_session()
    claim = await enhancing_job(bench, session_id)
    await bench.database.execute("UPDATE jobs SET cancel_requested_at = now()")

    event = await advance(bench, claim, session_id)

    assert event
    assert (event.state, event.stage, event.error_message) == (JobState.CANCELLED, None, "The job was cancelled.")
    assert await bench.value("SELECT state FROM jobs WHERE completed_at IS NOT NULL") == "cancelled"
    assert await bench.value("SELECT count(*) FROM queue") == 0
    assert await bench.lanes_agree_with_queue()


async def test_a_cancel_and_the_end_of_a_stage_at_once_have_one_winner(bench: Bench):
    session_id = await bench.add_session()
    await bench.add_slots(10, address="enhancer:1", kind=Kind.ENHANCER)

    async def cancel(job_id: UUID) -> JobEvent | None:
        await Records(bench.database).request_cancel("alice", job_id)
        return await bench.queue.withdraw(job_id, state=JobState.CANCELLED, message="The job was cancelled.")

    for _ in range(10):
        job_id = await bench.add_job(kind=Kind.ENHANCER, stages=STAGES)
        claimed = await bench.queue.claim(Kind.ENHANCER, ["enhancer:1"], session_id)
        assert claimed
        advanced, withdrawn = await asyncio.gather(advance(bench, claimed[0], session_id), cancel(job_id))
        assert advanced
        assert (advanced.state == JobState.CANCELLED) == (withdrawn is None)
        assert await bench.value("SELECT state FROM jobs WHERE id = $1", job_id) == "cancelled"
    assert await bench.lanes_agree_with_queue()


async def test_a_job_keeps_its_place_among_its_users_jobs_over_its_stages(bench: Bench):
    session_id = await bench.add_session()
    claim = await enhancing_job(bench, session_id)
    later = await bench.add_job()
    await advance(bench, claim, session_id)
    await bench.add_slots(2)

    served = [claimed.job_id for _ in range(2) if (claimed := await bench.claim(session_id))]

    assert served == [claim.job_id, later]


async def test_stages_share_their_kinds_by_work(bench: Bench):
    """One user's long renders weigh nothing at the enhancer, and another's many prompts nothing at the renderer."""
    session_id = await bench.add_session()
    for _ in range(4):
        claim = await enhancing_job(bench, session_id)
        await advance(bench, claim, session_id, cost=50.0)
        await bench.database.execute("DELETE FROM renderer_slots")
    for _ in range(4):
        await bench.add_job("bob", kind=Kind.ENHANCER, stages=STAGES)
        await bench.add_job("alice", kind=Kind.ENHANCER, stages=STAGES)
        await bench.add_job("bob", cost=50.0)
    await bench.add_slots(4, address="enhancer:1", kind=Kind.ENHANCER)
    await bench.add_slots(4)

    enhanced = [await bench.queue.claim(Kind.ENHANCER, ["enhancer:1"], session_id) for _ in range(4)]
    rendered = [await bench.claim(session_id) for _ in range(4)]

    assert sorted(each[0].user_id for each in enhanced if each) == ["alice", "alice", "bob", "bob"]
    assert sorted(each.user_id for each in rendered if each) == ["alice", "alice", "bob", "bob"]


@pytest.mark.parametrize("delay_s", [0, 60])
@pytest.mark.parametrize("more", [0, 1])
async def test_a_claim_that_is_handed_back_is_not_charged(bench: Bench, delay_s: float, more: int):
    await bench.add_slots(2)
    session_id = await bench.add_session()
    await bench.add_job("bob", cost=5.0)  # waits throughout, so that lanes are measured against it
    await bench.add_job("alice", cost=3.0)
    for _ in range(more):
        await bench.add_job("alice", cost=3.0)
    await bench.database.execute("UPDATE lanes SET virtual_time = 100, claimed_at = now() WHERE user_id = 'bob'")
    await bench.database.execute("UPDATE lanes SET virtual_time = 100 WHERE user_id = 'alice'")
    claim = await bench.claim(session_id)
    assert claim
    assert claim.user_id == "alice"
    assert await bench.value("SELECT virtual_time FROM lanes WHERE user_id = 'alice'") == 103

    await bench.attempts.retry(claim, session_id, reason="BUSY", counts=False, delay_s=delay_s, cost=3.0)

    assert await bench.value("SELECT virtual_time FROM lanes WHERE user_id = 'alice'") == 100
    assert await bench.lanes_agree_with_queue()


async def test_work_that_failed_is_charged(bench: Bench):
    await bench.add_slots(2)
    session_id = await bench.add_session()
    await bench.add_job(cost=3.0)
    claim = await bench.claim(session_id)
    assert claim
    await bench.attempts.retry(claim, session_id, reason="ENGINE_DIED", counts=True, delay_s=0, cost=3.0)

    assert await bench.claim(session_id)

    assert await bench.value("SELECT virtual_time FROM lanes") == 6


async def test_only_the_attempts_since_the_last_that_did_something_count_as_handed_back(bench: Bench):
    session_id = await bench.add_session()
    await bench.add_slots()
    job_id = await bench.add_job()
    for counts in (False, True, False):
        assert round(await bench.attempts.handed_back_for_s(job_id)) == (0 if counts is False else 60)
        claim = await bench.claim(session_id)
        assert claim
        await bench.attempts.retry(claim, session_id, reason="BUSY", counts=counts, delay_s=0, cost=1)
        await bench.database.execute("UPDATE attempts SET started_at = started_at - interval '1 minute'")

    assert round(await bench.attempts.handed_back_for_s(job_id)) == 60


async def test_the_time_to_start_is_carried_on_until_a_renderer_has_begun(bench: Bench):
    session_id = await bench.add_session()
    await bench.add_slots(address="enhancer:1", kind=Kind.ENHANCER)
    await bench.add_slots()
    job = replace(new_job(), kind=Kind.ENHANCER, start_timeout_s=60)
    await bench.accept(job, stages=STAGES)
    start_by = await bench.value("SELECT created_at + interval '60 seconds' FROM jobs")
    carried_on = "SELECT start_by FROM queue"
    assert await bench.value(carried_on) == start_by

    claimed = await bench.queue.claim(Kind.ENHANCER, ["enhancer:1"], session_id)
    assert claimed
    await bench.attempts.begun(claimed[0], session_id)
    await bench.attempts.retry(claimed[0], session_id, reason="X", counts=True, delay_s=0, cost=1)
    assert await bench.value(carried_on) == start_by, "an enhancer is no renderer"
    claimed = await bench.queue.claim(Kind.ENHANCER, ["enhancer:1"], session_id)
    assert claimed
    await advance(bench, claimed[0], session_id)
    assert await bench.value(carried_on) == start_by
    claim = await bench.claim(session_id)
    assert claim
    await bench.attempts.retry(claim, session_id, reason="BUSY", counts=False, delay_s=0, cost=1)
    assert await bench.value(carried_on) == start_by, "a renderer that was busy did not begin"
    claim = await bench.claim(session_id)
    assert claim
    await bench.attempts.begun(claim, session_id)
    await bench.attempts.retry(claim, session_id, reason="ENGINE_DIED", counts=True, delay_s=0, cost=1)

    assert await bench.value("SELECT start_by IS NULL FROM queue")
    assert await bench.value("SELECT start_by IS NULL FROM jobs")
