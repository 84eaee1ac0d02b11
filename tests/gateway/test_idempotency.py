"""The same request under the same key is the same job: at once, at two gateways, after a restart, whatever came since."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from ourvidz_gateway.acceptance import Terms
from ourvidz_gateway.database import Database
from ourvidz_gateway.errors import IdempotencyConflict, InsufficientCredits, RateLimited
from ourvidz_gateway.jobs import JobStage, Kind, NewJob
from support.gateways import gateway_process
from support.jobs import Bench, new_job, painted_job

NOWHERE = "127.0.0.1:1"
"""Nothing listens there, so that jobs stay."""


def asked(fingerprint: bytes = b"same", **changed: object) -> NewJob:
    """A request under a key."""
    return replace(painted_job(), idempotency_key="key", fingerprint=fingerprint, **changed)


async def test_fifty_requests_at_once_over_two_gateways_are_one_job_also_after_a_restart(
    dsn: str, tmp_path: Path, bench: Bench
):
    async with AsyncExitStack() as stack:
        first, second = await asyncio.gather(
            *(stack.enter_async_context(gateway_process(dsn, tmp_path, sdxl=NOWHERE)) for _ in range(2))
        )
        replies = await asyncio.gather(first.ask_at_once(25, key="key"), second.ask_at_once(25, key="key"))

        [job_id] = {reply.json()["job"]["id"] for reply in [*replies[0], *replies[1]]}
        assert {reply.status_code for reply in [*replies[0], *replies[1]]} == {200}
        assert await bench.ledger() == [("grant", 1000), ("reserve", 2)]
        assert await bench.value("SELECT count(*) FROM jobs") == 1
        assert await bench.value("SELECT count(*) FROM queue") == 1
        assert await bench.wrong_accounts() == []
        conflict = await second.ask("another fox", key="key")
        assert (conflict.status_code, conflict.json()["details"]) == (422, "reason=IDEMPOTENCY_CONFLICT")
        await first.stop()
        await second.stop()

        restarted = await stack.enter_async_context(gateway_process(dsn, tmp_path, sdxl=NOWHERE))
        assert (await restarted.ask(key="key")).json()["job"]["id"] == job_id
        assert (await restarted.ask("another fox", key="key")).status_code == 422
        await restarted.stop()
    assert await bench.account() == (998, 2, 1)


async def test_two_users_under_one_key_have_a_job_each(bench: Bench):
    for user in ("alice", "bob"):
        assert await bench.accept(replace(new_job(user), idempotency_key="key", fingerprint=b"1"))

    assert await bench.value("SELECT count(*) FROM jobs") == 2


async def test_a_repeat_changes_nothing(bench: Bench):
    first = asked()
    assert await bench.accept(first)
    before = await bench.account(), await bench.ledger(), await bench.value("SELECT rate_at FROM accounts")

    assert await bench.accept(asked()) is None

    assert (await bench.account(), await bench.ledger(), await bench.value("SELECT rate_at FROM accounts")) == before
    assert await bench.queue.accepted_before("alice", "key") == (first.id, b"same", Kind.SDXL)
    assert await bench.lanes_agree_with_queue()


async def refusing(open_one, reason: str, **settings: object) -> None:
    """Check that a gateway that takes no new job answers a repeat with its job, and another request with a conflict."""
    async with open_one(**settings) as gateway:
        first = await gateway.accepted_before("alice", "key", b"same")
        assert first
        assert (await gateway.accept(asked())).job.id == first.job.id
        with pytest.raises(IdempotencyConflict):
            await gateway.accept(asked(b"other"))
        with pytest.raises(Exception) as caught:  # its reason is looked at
            await gateway.accept(painted_job())
        assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("reason", "settings"),
    [
        ("INSUFFICIENT_CREDITS", {}),
        ("RATE_LIMITED", {"user_open_jobs": 1}),
        ("RATE_LIMITED", {"user_jobs_per_minute": 0.001, "user_job_burst": 1}),
        ("QUEUE_FULL", {"queue_limit": 1}),
        ("NO_RENDERER", {"renderers_sdxl": ""}),
    ],
)
async def test_a_repeat_is_answered_with_its_job_when_no_new_one_would_be_taken(
    database: Database, open_one, reason: str, settings: dict[str, object]
):
    async with open_one(renderers_sdxl=NOWHERE, user_jobs_per_minute=0.001, user_job_burst=1) as gateway:
        await gateway.accept(asked())
    if reason == "INSUFFICIENT_CREDITS":
        await database.execute("UPDATE accounts SET available = 0")

    await refusing(open_one, reason, **{"renderers_sdxl": NOWHERE, **settings})


async def test_a_key_whose_time_is_up_is_gone_though_nobody_has_deleted_it(database: Database):
    bench = Bench(database, Terms(welcome=1000, keep_keys=timedelta(hours=2)))
    await bench.accept(asked())
    age = "UPDATE idempotency_keys SET created_at = now() - interval '{} minutes'"
    await database.execute(age.format(119))
    assert await bench.accept(asked()) is None
    await database.execute(age.format(121))
    assert await bench.queue.accepted_before("alice", "key") is None

    jobs = [asked(b"another") for _ in range(20)]
    replies = await asyncio.gather(*(bench.accept(job) for job in jobs))

    [new] = [job.id for job, reply in zip(jobs, replies, strict=True) if reply]
    assert await bench.queue.accepted_before("alice", "key") == (new, b"another", Kind.SDXL)
    assert await bench.value("SELECT count(*) FROM jobs") == 2
    assert await bench.wrong_accounts() == []


async def test_a_key_whose_job_is_gone_is_gone_with_it(bench: Bench, database: Database):
    await bench.accept(asked())
    await database.execute("DELETE FROM jobs")

    assert await bench.queue.accepted_before("alice", "key") is None
    assert await bench.accept(asked())


@pytest.mark.parametrize("refusal", [InsufficientCredits, RateLimited])
async def test_a_refused_request_leaves_its_key_free(database: Database, refusal: type[Exception]):
    poor = Bench(database, Terms(welcome=0 if refusal is InsufficientCredits else 1000, open_jobs=1))
    if refusal is RateLimited:
        await poor.accept(new_job())
    with pytest.raises(refusal):
        await poor.accept(asked())

    assert await poor.value("SELECT count(*) FROM idempotency_keys") == 0
    assert await Bench(database).queue.accept(asked(), renderer=Kind.SDXL, stages=[JobStage.RENDERING], cost=1)
