"""Credits on a real database: reserved with the job, settled with its end, and every entry in the ledger."""

import asyncio
from dataclasses import replace
from uuid import UUID

import pytest

from ourvidz_gateway.acceptance import Terms
from ourvidz_gateway.credits import MAX_GRANT, Balance, Credits
from ourvidz_gateway.database import Database
from ourvidz_gateway.errors import IdempotencyConflict, InsufficientCredits, InvalidRequest
from ourvidz_gateway.gateway import Gateway
from ourvidz_gateway.jobs import JobStage, JobState, Kind
from ourvidz_gateway.queue import Claim
from support.jobs import Bench, ended, new_job, painted_job, stored_outputs
from support.renderer import Renderer

WELCOME = 1000


async def rows_stored(bench: Bench) -> int:
    """How many rows there are that a job could have left."""
    tables = ("accounts", "credit_ledger", "idempotency_keys", "jobs", "lanes", "queue", "job_events", "webhook_outbox")
    return sum([await bench.value(f"SELECT count(*) FROM {table}") for table in tables])


async def test_a_new_users_first_job_brings_them_credits_and_reserves_its_price(bench: Bench):
    await bench.add_job(credits=3)

    assert await bench.account() == (WELCOME - 3, 3, 1)
    assert await bench.ledger() == [("grant", WELCOME), ("reserve", 3)]
    await bench.add_job()
    assert await bench.ledger() == [("grant", WELCOME), ("reserve", 3), ("reserve", 1)]
    assert await bench.wrong_accounts() == []


async def test_first_jobs_that_come_at_once_bring_the_credits_once(bench: Bench):
    await asyncio.gather(*(bench.add_job() for _ in range(16)))

    assert await bench.account() == (WELCOME - 16, 16, 16)
    assert (await bench.ledger()).count(("grant", WELCOME)) == 1
    assert await bench.wrong_accounts() == []


async def test_a_user_who_was_only_granted_or_only_uploaded_is_still_new(bench: Bench, database: Database):
    await database.execute("INSERT INTO accounts (user_id, reference_bytes) VALUES ('alice', 5)")
    await bench.add_job(credits=2)
    assert await bench.account() == (WELCOME - 2, 2, 1)

    accounts = Credits(database, welcome=WELCOME)
    assert (await accounts.grant("bob", 5, note="", request_id=None, granted_by="op")).available == WELCOME + 5
    await bench.add_job("bob")
    assert await bench.account("bob") == (WELCOME + 4, 1, 1)
    assert await bench.wrong_accounts() == []


@pytest.mark.parametrize("welcome", [0, 4])
async def test_a_job_that_can_not_be_paid_for_is_refused_and_leaves_nothing(database: Database, welcome: int):
    bench = Bench(database, Terms(welcome=welcome))

    with pytest.raises(InsufficientCredits) as caught:
        await bench.accept(replace(new_job(credits=5), idempotency_key="k", fingerprint=b"1"))

    assert caught.value.message == f"The job costs 5 credits; there are {welcome} to spend."
    assert caught.value.suggested_action
    assert await rows_stored(bench) == 0


async def test_credits_are_never_spent_twice_by_jobs_that_come_at_once(database: Database):
    bench = Bench(database, Terms(welcome=10))

    replies = await asyncio.gather(*(bench.add_job(credits=3) for _ in range(12)), return_exceptions=True)

    assert [type(reply) for reply in replies].count(UUID) == 3
    assert await bench.account() == (1, 9, 3)
    assert await bench.value("SELECT count(*) FROM jobs") == 3
    assert await bench.wrong_accounts() == []


async def test_who_is_out_of_welcome_credits_can_spend_what_was_granted(database: Database):
    bench = Bench(database, Terms(welcome=0))
    await Credits(database, welcome=0).grant("alice", 2, note="", request_id=None, granted_by="op")

    await bench.add_job(credits=2)

    assert await bench.account() == (0, 2, 1)
    assert await bench.ledger() == [("grant", 2), ("reserve", 2)]


async def test_a_job_without_a_price_reserves_nothing(bench: Bench):
    session_id = await bench.add_session()
    await bench.add_slots()
    await bench.accept(replace(new_job(), credits=0))
    claim = await bench.claim(session_id)
    assert claim

    await bench.attempts.complete(claim, session_id, outputs=[], result={}, warnings=[])

    assert await bench.ledger() == [("grant", WELCOME)]
    assert await bench.account() == (WELCOME, 0, 0)


async def test_a_completed_job_costs_all_that_was_reserved(bench: Bench):
    session_id = await bench.add_session()
    claim = await bench.running_job(session_id, credits=5, num_images=3)

    await bench.attempts.complete(claim, session_id, outputs=stored_outputs(3), result={}, warnings=[])

    assert await bench.ledger() == [("grant", WELCOME), ("reserve", 5), ("settle", 5)]
    assert await bench.account() == (WELCOME - 5, 0, 0)
    assert await bench.wrong_accounts() == []


async def test_a_failed_job_costs_nothing(bench: Bench):
    session_id = await bench.add_session()
    claim = await bench.running_job(session_id, credits=5)

    await bench.attempts.fail(claim, session_id, reason="X", message="x")

    assert await bench.ledger() == [("grant", WELCOME), ("reserve", 5), ("release", 5)]
    assert await bench.account() == (WELCOME, 0, 0)


@pytest.mark.parametrize(("price", "images", "stored", "charged"), [
    (5, 6, 0, 0), (5, 6, 1, 1), (5, 6, 2, 2), (5, 6, 3, 3), (5, 6, 4, 4), (5, 6, 5, 5), (5, 6, 6, 5),
    (1, 6, 1, 1), (1, 3, 0, 0), (7, 3, 1, 3), (7, 3, 2, 5), (7, 3, 3, 7), (7, 1, 1, 7), (7, 1, 0, 0),
])  # fmt: skip
async def test_a_cancelled_job_costs_its_share_for_each_stored_image_rounded_up(
    bench: Bench, price: int, images: int, stored: int, charged: int
):
    session_id = await bench.add_session()
    claim = await bench.running_job(session_id, credits=price, num_images=images)

    await bench.attempts.cancelled(claim, session_id, message="x", outputs=stored_outputs(stored))

    assert await bench.account() == (WELCOME - charged, 0, 0)
    assert await bench.ledger() == [
        ("grant", WELCOME),
        ("reserve", price),
        *([("settle", charged)] if charged else []),
        *([("release", price - charged)] if charged < price else []),
    ]
    assert await bench.wrong_accounts() == []


async def test_a_job_that_is_cancelled_before_anything_is_stored_costs_nothing(bench: Bench):
    session_id = await bench.add_session()
    cancel = "UPDATE jobs SET cancel_requested_at = now() WHERE state = 'processing'"

    waiting = await bench.add_job(credits=5)
    await bench.queue.withdraw(waiting, state=JobState.CANCELLED, message="x")
    retried = await bench.running_job(session_id, credits=5)
    await bench.database.execute(cancel)
    await bench.attempts.retry(retried, session_id, reason="BUSY", counts=False, delay_s=0, cost=1)
    advanced = await fetching(bench, session_id)
    await bench.database.execute(cancel)
    await bench.attempts.advance(advanced, session_id, request=advanced.request, warnings=[], kind=Kind.SDXL, cost=1)

    assert await bench.value("SELECT count(*) FROM jobs WHERE state = 'cancelled'") == 3
    assert await bench.account() == (WELCOME, 0, 0)
    assert await bench.wrong_accounts() == []
    assert await bench.lanes_agree_with_queue()


async def fetching(bench: Bench, session_id: UUID) -> Claim:
    """A job whose pictures are being fetched."""
    await bench.add_slots(address="gateway", kind=Kind.FETCHER)
    await bench.add_job(credits=5, kind=Kind.FETCHER, stages=[JobStage.FETCHING, JobStage.RENDERING])
    claimed = await bench.queue.claim(Kind.FETCHER, ["gateway"], session_id)
    assert claimed
    return claimed[0]


async def test_a_job_that_waits_again_or_goes_on_keeps_its_credits(bench: Bench):
    session_id = await bench.add_session()
    claim = await fetching(bench, session_id)
    await bench.attempts.advance(claim, session_id, request=claim.request, warnings=[], kind=Kind.SDXL, cost=1)
    await bench.add_slots()
    rendering = await bench.claim(session_id)
    assert rendering
    await bench.attempts.retry(rendering, session_id, reason="X", counts=True, delay_s=0, cost=1)

    assert await bench.account() == (WELCOME - 5, 5, 1)
    assert await bench.value("SELECT count(*) FROM webhook_outbox") == 0


async def test_a_job_from_before_there_were_accounts_ends_without_credits(bench: Bench):
    session_id = await bench.add_session()
    claim = await bench.running_job(session_id, credits=5)
    await bench.database.execute("DELETE FROM credit_ledger WHERE entry = 'reserve'")
    await bench.database.execute("UPDATE accounts SET available = 7, reserved = 0, open_jobs = 0")

    assert await bench.attempts.complete(claim, session_id, outputs=stored_outputs(1), result={}, warnings=[])

    assert await bench.account() == (7, 0, 0)
    assert await bench.ledger() == [("grant", WELCOME)]


async def test_a_result_that_comes_too_late_settles_nothing_twice(bench: Bench):
    session_id = await bench.add_session()
    claim = await bench.running_job(session_id, credits=5)
    await bench.attempts.fail(claim, session_id, reason="X", message="x")

    assert await bench.attempts.complete(claim, session_id, outputs=[], result={}, warnings=[]) is None
    assert await bench.queue.withdraw(claim.job_id, state=JobState.CANCELLED, message="x") is None

    assert await bench.account() == (WELCOME, 0, 0)
    assert await bench.value("SELECT count(*) FROM webhook_outbox") == 1


@pytest.mark.parametrize("end", ["complete", "fail", "cancelled", "withdraw", "retry", "advance"])
async def test_every_end_puts_the_jobs_webhooks_in_the_outbox(bench: Bench, end: str):
    session_id = await bench.add_session()
    job = replace(new_job(), webhook_url="https://hooks.example.com/x")
    await bench.add_slots()
    await bench.accept(job)
    if end != "withdraw":
        claim = await bench.claim(session_id)
        assert claim
        await bench.database.execute("UPDATE jobs SET cancel_requested_at = now()")
    attempts = bench.attempts
    match end:
        case "complete":
            await attempts.complete(claim, session_id, outputs=[], result={}, warnings=[])
        case "fail":
            await attempts.fail(claim, session_id, reason="X", message="x")
        case "cancelled":
            await attempts.cancelled(claim, session_id, message="x")
        case "withdraw":
            await bench.queue.withdraw(job.id, state=JobState.FAILED, message="x")
        case "retry":
            await attempts.retry(claim, session_id, reason="X", counts=True, delay_s=0, cost=1)
        case "advance":
            await attempts.advance(claim, session_id, request=job.request, warnings=[], kind=Kind.SDXL, cost=1)

    rows = await bench.database.fetch("SELECT job_id, user_id, target, url FROM webhook_outbox ORDER BY target")
    assert [tuple(row) for row in rows] == [
        (job.id, "alice", "job", "https://hooks.example.com/x"),
        (job.id, "alice", "operator", None),
    ]


async def test_a_balance_is_what_can_be_spent(bench: Bench, database: Database):
    accounts = Credits(database, welcome=WELCOME)
    assert await accounts.balance("alice") == Balance("alice", WELCOME, 0), "a new user has what the first job brings"
    await bench.add_job(credits=3)

    assert await accounts.balance("alice") == Balance("alice", WELCOME - 3, 3)
    assert await accounts.balance("bob") == Balance("bob", WELCOME, 0)


async def test_a_grant_adds_or_takes_away_and_says_who_why(bench: Bench, database: Database):
    accounts = Credits(database, welcome=0)

    assert await accounts.grant("alice", 50, note="a gift", request_id=None, granted_by="op") == Balance("alice", 50, 0)
    assert await accounts.grant("alice", -20, note="", request_id="", granted_by="op") == Balance("alice", 30, 0)

    rows = await database.fetch("SELECT amount, note, granted_by, request_id FROM credit_ledger ORDER BY id")
    assert [tuple(row) for row in rows] == [(50, "a gift", "op", None), (-20, "", "op", None)]
    assert await bench.wrong_accounts() == []


async def test_no_more_is_taken_away_than_can_be_spent(bench: Bench, database: Database):
    accounts = Credits(database, welcome=10)
    await bench.database.execute("INSERT INTO accounts (user_id, available, reserved) VALUES ('alice', 1, 5)")

    with pytest.raises(InsufficientCredits, match="there are 11 to spend"):
        await accounts.grant("alice", -12, note="", request_id="r", granted_by="op")
    with pytest.raises(InsufficientCredits):
        await accounts.grant("nobody", -11, note="", request_id="r", granted_by="op")
    assert await bench.ledger() == []
    assert (await accounts.grant("alice", -11, note="", request_id="r", granted_by="op")).available == 0
    assert (await accounts.grant("nobody", -10, note="", request_id=None, granted_by="op")).available == 0


async def test_a_grant_under_one_request_id_is_made_once_for_good(bench: Bench, database: Database):
    accounts = Credits(database, welcome=0)

    replies = await asyncio.gather(
        *(accounts.grant("alice", 5, note="n", request_id="r", granted_by="op") for _ in range(20))
    )

    assert set(replies) == {Balance("alice", 5, 0)}
    assert await bench.ledger() == [("grant", 5)]
    for user, amount, note in (("bob", 5, "n"), ("alice", 6, "n"), ("alice", 5, "m"), ("alice", -99, "n")):
        with pytest.raises(IdempotencyConflict):
            await accounts.grant(user, amount, note=note, request_id="r", granted_by="op")
    assert await bench.wrong_accounts() == []


async def test_a_repeated_taking_away_is_answered_though_nothing_is_left(database: Database):
    accounts = Credits(database, welcome=5)
    for _ in range(2):
        balance = await accounts.grant("alice", -5, note="", request_id="r", granted_by="op")
        assert balance == Balance("alice", 0, 0)


@pytest.mark.parametrize(
    "bad",
    [
        {"user_id": ""},
        {"user_id": "a\nb"},
        {"amount": 0},
        {"amount": MAX_GRANT + 1},
        {"amount": -MAX_GRANT - 1},
        {"note": "x" * 501},
        {"note": "\x00"},
        {"request_id": "x" * 201},
        {"request_id": "\x00"},
    ],
)
async def test_a_bad_grant_is_refused_with_its_field(bench: Bench, database: Database, bad: dict[str, str]):
    asked = {"user_id": "alice", "amount": 1, "note": "", "request_id": None, "granted_by": "op", **bad}

    with pytest.raises(InvalidRequest) as caught:
        await Credits(database, welcome=0).grant(**asked)

    assert [violation.field for violation in caught.value.violations] == list(bad)
    assert await bench.value("SELECT count(*) FROM accounts") == 0


async def test_what_is_stored_when_a_cancel_comes_is_kept_and_paid_for(
    gateway: Gateway, renderer: Renderer, bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    """The second of three images is on its way to storage, and the third is being rendered."""
    storing, cancelled = held_writes(renderer, monkeypatch, "1.png")
    job = replace(painted_job(prompt="hold:2:1", images=3), credits=5)
    await gateway.accept(job)
    await renderer.gate.held()

    await gateway.cancel("alice", job.id)
    await cancelled.wait()
    storing.set()
    renderer.gate.release()

    assert (await ended(gateway, job.id)).state == JobState.CANCELLED
    assert [asset.index for asset in (await gateway.get("alice", job.id)).assets] == [0, 1]
    assert await bench.ledger() == [("grant", WELCOME), ("reserve", 5), ("settle", 4), ("release", 1)]


async def test_a_cancel_that_comes_when_all_is_stored_finds_the_job_completed(
    gateway: Gateway, renderer: Renderer, bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    """Nothing could be saved any more: the pictures are there, and are paid for."""
    storing, cancelled = held_writes(renderer, monkeypatch, "manifest.json")
    job = replace(painted_job(images=3), credits=5)
    await gateway.accept(job)
    await renderer.until(lambda: storing.waited_for)

    await gateway.cancel("alice", job.id)
    await cancelled.wait()
    storing.set()

    assert (await ended(gateway, job.id)).state == JobState.COMPLETED
    assert len((await gateway.get("alice", job.id)).assets) == 3
    assert await bench.ledger() == [("grant", WELCOME), ("reserve", 5), ("settle", 5)]


class Noticed(asyncio.Event):
    """An event that tells whether anybody has come to wait for it."""

    waited_for = False

    async def wait(self) -> bool:
        self.waited_for = True
        return await super().wait()


def held_writes(renderer: Renderer, monkeypatch: pytest.MonkeyPatch, name: str) -> tuple[Noticed, asyncio.Event]:
    """Hold the renderer's write of one object until the first event is set; the second tells of a cancel there."""
    go, cancelled = Noticed(), asyncio.Event()
    put, cancel = renderer.store.put, renderer.renders.cancel

    async def held_put(bucket: str, key: str, data: bytes, **more: object) -> object:
        if key.endswith(name):
            await go.wait()
        return await put(bucket, key, data, **more)

    def noted_cancel(render_id: str) -> object:
        cancelled.set()
        return cancel(render_id)

    monkeypatch.setattr(renderer.store, "put", held_put)
    monkeypatch.setattr(renderer.renders, "cancel", noted_cancel)
    return go, cancelled
