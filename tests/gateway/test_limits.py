"""How many jobs a user may have open and ask for: exact, however many requests come in at once at how many gateways."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from ourvidz_gateway.acceptance import Terms
from ourvidz_gateway.credits import Credits
from ourvidz_gateway.database import Database
from ourvidz_gateway.errors import RateLimited
from ourvidz_gateway.jobs import Accepted, JobState
from support.gateways import gateway_process
from support.jobs import Bench, new_job, painted_job

NOWHERE = "127.0.0.1:1"
"""Nothing listens there, so that jobs stay."""


async def ask_two_gateways_at_once(open_one, count: int, **settings: object) -> list[Accepted | BaseException]:
    """Ask two gateways for that many jobs in the same moment; return their answers."""
    async with AsyncExitStack() as stack:
        gateways = [await stack.enter_async_context(open_one(renderers_sdxl=NOWHERE, **settings)) for _ in range(2)]
        asked = [gateways[number % 2].accept(painted_job()) for number in range(count)]
        return await asyncio.gather(*asked, return_exceptions=True)


async def test_no_more_jobs_are_open_than_allowed(database: Database, bench: Bench, open_one):
    replies = await ask_two_gateways_at_once(open_one, 24, user_open_jobs=7)

    refused = [reply for reply in replies if isinstance(reply, RateLimited)]
    assert [type(reply) for reply in replies].count(Accepted) == 7
    assert len(refused) == 17
    assert refused[0].message == "7 of your jobs have not ended yet, and no more than 7 may be open at once."
    assert refused[0].retry_after_s
    assert await bench.account() == (993, 7, 7)
    assert await bench.wrong_accounts() == []


async def test_no_more_jobs_are_asked_for_at_once_than_the_burst(database: Database, bench: Bench, open_one):
    replies = await ask_two_gateways_at_once(open_one, 24, user_jobs_per_minute=0.1, user_job_burst=5)

    refused = [reply for reply in replies if isinstance(reply, RateLimited)]
    assert [type(reply) for reply in replies].count(Accepted) == 5
    assert len(refused) == 19
    assert all(540 < (reply.retry_after_s or 0) <= 600 for reply in refused), "one job takes up ten minutes"
    assert refused[0].message == "You ask for jobs too fast: 0.1 a minute are allowed."
    assert await bench.value("SELECT count(*) FROM jobs") == 5
    assert await bench.wrong_accounts() == []


async def pass_by(bench: Bench, span: timedelta) -> None:
    """Let time go by for what was asked for."""
    await bench.database.execute("UPDATE accounts SET rate_at = rate_at - $1::interval", span)


async def test_with_time_jobs_may_be_asked_for_again_up_to_the_burst(database: Database):
    bench = Bench(database, Terms(welcome=1000, jobs_per_minute=0.5, burst=3))

    async def asked_for(count: int) -> int:
        replies = await asyncio.gather(*(bench.accept(new_job()) for _ in range(count)), return_exceptions=True)
        return count - [type(reply) for reply in replies].count(RateLimited)

    assert await asked_for(8) == 3
    await pass_by(bench, timedelta(minutes=1.9))
    assert await asked_for(8) == 0
    await pass_by(bench, timedelta(minutes=0.1))
    assert await asked_for(8) == 1
    await pass_by(bench, timedelta(minutes=4))
    assert await asked_for(8) == 2
    await pass_by(bench, timedelta(days=3))
    assert await asked_for(8) == 3, "nobody saves up more than the burst"


async def test_a_refusal_says_when_the_next_job_may_be_asked_for(database: Database):
    bench = Bench(database, Terms(welcome=1000, jobs_per_minute=0.5, burst=1))
    await bench.accept(new_job())
    await pass_by(bench, timedelta(seconds=50))

    with pytest.raises(RateLimited) as caught:
        await bench.accept(new_job())

    assert 60 < (caught.value.retry_after_s or 0) <= 70
    await pass_by(bench, timedelta(seconds=caught.value.retry_after_s or 0))
    assert await bench.accept(new_job())


async def test_a_refused_job_takes_up_no_time(database: Database):
    bench = Bench(database, Terms(welcome=1000, jobs_per_minute=0.5, burst=1, open_jobs=1))
    job = new_job()
    await bench.accept(job)
    before = await bench.value("SELECT rate_at FROM accounts")
    for _ in range(3):
        with pytest.raises(RateLimited):
            await bench.accept(new_job())

    assert await bench.value("SELECT rate_at FROM accounts") == before


async def test_a_job_that_has_ended_makes_room_for_another(database: Database):
    bench = Bench(database, Terms(welcome=1000, open_jobs=1))
    first = await bench.add_job()
    with pytest.raises(RateLimited):
        await bench.add_job()
    assert await bench.add_job("bob"), "one user's limit is not another's"

    await bench.queue.withdraw(first, state=JobState.CANCELLED, message="x")

    assert await bench.add_job()


async def test_who_can_not_pay_is_told_so_before_any_limit(database: Database):
    bench = Bench(database, Terms(welcome=1, open_jobs=1))
    await bench.add_job()

    with pytest.raises(Exception, match="The job costs 1 credit; there are 0 to spend"):
        await bench.accept(replace(new_job(), credits=1))


async def test_refusals_say_over_rest_what_is_short_and_when_to_come_again(dsn: str, tmp_path: Path, bench: Bench):
    limits = {"USER_JOBS_PER_MINUTE": "0.1", "USER_JOB_BURST": "2", "CREDITS_GRANT": "4"}
    async with gateway_process(dsn, tmp_path, sdxl=NOWHERE, **limits) as gateway:
        assert [(await gateway.ask()).status_code for _ in range(2)] == [200, 200]

        short = await gateway.ask()
        await Credits(bench.database, welcome=4).grant("alice", 9, note="", request_id=None, granted_by="op")
        soon = await gateway.ask()
        await gateway.stop()

    assert (short.status_code, short.json()) == (
        402,
        {
            "success": False,
            "error": "The job costs 2 credits; there are 0 to spend.",
            "details": "reason=INSUFFICIENT_CREDITS",
            "retryable": False,
            "suggestedAction": "Get more credits.",
        },
    )
    assert (soon.status_code, soon.json()["retryable"]) == (429, True)
    assert 540 < int(soon.headers["retry-after"]) <= 600
    assert await bench.account() == (9, 4, 2)
