"""Rows that the cleaner takes by their age alone, on a real database. Times are set, not waited for."""

import asyncio
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from ourvidz_gateway import cleaner as module
from ourvidz_gateway.cleaner import Cleaner
from ourvidz_gateway.database import Database
from ourvidz_gateway.feeds import Feeds
from ourvidz_serving.storage import LocalStore
from support import fronts
from support.ended import DAY, MINUTE, add_ended_job


@pytest.fixture
async def store(tmp_path: Path):
    store = LocalStore(tmp_path / "objects")
    yield store
    await store.close()


@pytest.fixture
def cleaner(database: Database, store: LocalStore) -> Cleaner:
    return cleaner_of(database, store)


def cleaner_of(database: Database, store: LocalStore, **settings: Any) -> Cleaner:
    return Cleaner(database, store, fronts.settings(**settings))


class TestRows:
    """Rows that go by their age alone: each stays until its time and is gone after it."""

    DELIVERY = (
        "INSERT INTO webhook_outbox (id, job_id, user_id, target, next_try_at, created_at, last_try_at, {end})"
        " VALUES (gen_random_uuid(), $1, 'alice', 'operator', NULL, now() - interval '30 days',"
        " now() - $2::interval, now() - $2::interval)"
    )
    KEY = (
        "INSERT INTO idempotency_keys (user_id, key, request_sha256, job_id, created_at)"
        " VALUES ('alice', 'key', '', $1, now() - $2::interval)"
    )
    REFUSAL = (
        "INSERT INTO policy_audit (user_id, job_id, field, rule, prompt_sha256, created_at)"
        " VALUES ('alice', $1, 'prompt', 'rule', '', now() - $2::interval)"
    )
    TICKET = (
        "INSERT INTO stream_tickets (ticket_sha256, user_id, job_id, expires_at)"
        " VALUES ('', 'alice', $1, now() - $2::interval)"
    )
    PREVIEW = (
        "INSERT INTO job_previews (job_id, attempt, image_index, step, jpeg, updated_at)"
        " VALUES ($1, 1, 0, 1, '', now() - $2::interval)"
    )
    EVENT = (
        "INSERT INTO job_events (job_id, sequence, milestone, state, progress, attempt, created_at)"
        " VALUES ($1, 9, {milestone}, 'processing', 0, 1, now() - $2::interval)"
    )

    @pytest.fixture
    def cleaner(self, database, store) -> Cleaner:
        return cleaner_of(
            database,
            store,
            keep_milestones=3 * DAY,
            keep_deliveries=4 * DAY,
            keep_idempotency_keys=5 * DAY,
            keep_policy_audit=6 * DAY,
        )

    @pytest.mark.parametrize(
        ("statement", "rows", "kept"),
        [
            (EVENT.format(milestone="false"), "job_events WHERE NOT milestone", MINUTE),
            (EVENT.format(milestone="true"), "job_events WHERE sequence = 9", 3 * DAY),
            (DELIVERY.format(end="delivered_at"), "webhook_outbox", 4 * DAY),
            (DELIVERY.format(end="given_up_at"), "webhook_outbox", 4 * DAY),
            (KEY, "idempotency_keys", 5 * DAY),
            (REFUSAL, "policy_audit", 6 * DAY),
            (TICKET, "stream_tickets", timedelta()),
            (PREVIEW, "job_previews", MINUTE),
        ],
        ids=[
            "steps",
            "milestones",
            "delivered webhooks",
            "webhooks given up",
            "idempotency keys",
            "policy audit",
            "stream tickets",
            "previews",
        ],
    )
    async def test_they_stay_until_their_time(self, cleaner, bench, database, statement, rows, kept):
        job_id = await add_ended_job(bench, ago=10 * DAY)
        margin = timedelta(seconds=30)

        for age, left in ((kept - margin, 1), (kept + margin, 0)):
            await database.execute(statement, job_id, age)
            await cleaner.clean()
            assert await bench.value(f"SELECT count(*) FROM {rows}") == left
            await database.execute(f"DELETE FROM {rows}")

    @pytest.mark.parametrize("milestone", ["true", "false"])
    async def test_events_stay_while_their_job_goes_on_and_for_their_time_after_it(
        self, cleaner, bench, database, milestone
    ):
        job_id = await bench.add_job()
        await database.execute(self.EVENT.format(milestone=milestone), job_id, 30 * DAY)

        await cleaner.clean()
        assert await bench.value("SELECT count(*) FROM job_events WHERE sequence = 9") == 1
        await bench.queue.withdraw(job_id, state="cancelled", message="")
        await cleaner.clean()

        assert await bench.value("SELECT count(*) FROM job_events WHERE sequence = 9") == 1

    @pytest.mark.parametrize("after", [0, 1, 2])
    async def test_who_watches_an_old_job_still_sees_its_end(self, cleaner, bench, database, after):
        job_id = await add_ended_job(bench, ago=10 * DAY)
        await database.execute("UPDATE job_events SET created_at = now() - interval '10 days'")
        await cleaner.clean()

        feeds = Feeds(database)
        running = asyncio.create_task(feeds.run())
        async with asyncio.timeout(30), aclosing(feeds.watch(job_id, after=after)) as events:
            seen = [event async for event in events]
        running.cancel()

        assert await bench.value("SELECT count(*) FROM job_events") == 1
        assert [(event.sequence, event.state) for event in seen] == [(2, "cancelled")][: 2 - after]

    async def test_a_preview_of_a_job_that_runs_stays(self, cleaner, bench, database):
        claim = await bench.running_job(await bench.add_session())
        await database.execute(
            "INSERT INTO job_previews (job_id, attempt, image_index, step, jpeg, updated_at)"
            " VALUES ($1, 1, 0, 1, '', now() - interval '1 day')",
            claim.job_id,
        )

        await cleaner.clean()

        assert await bench.value("SELECT count(*) FROM job_previews") == 1

    async def test_a_webhook_that_is_sent_again_stays(self, cleaner, bench, database):
        await database.execute(self.DELIVERY.format(end="given_up_at"), uuid4(), 30 * DAY)
        await database.execute("UPDATE webhook_outbox SET next_try_at = now() + interval '1 day'")

        await cleaner.clean()

        assert await bench.value("SELECT count(*) FROM webhook_outbox") == 1

    async def test_more_than_a_batch_goes_in_one_round(self, cleaner, bench, database, monkeypatch):
        monkeypatch.setattr(module, "ROWS_AT_ONCE", 10)
        await database.execute(
            "INSERT INTO stream_tickets SELECT n::text::bytea, 'alice', $1, now() - interval '1 day'"
            " FROM generate_series(1, 25) n",
            uuid4(),
        )

        assert await cleaner.clean() is False
        assert await bench.value("SELECT count(*) FROM stream_tickets") == 0

    async def test_more_than_a_round_takes_is_left_for_the_next(self, cleaner, bench, database, monkeypatch):
        monkeypatch.setattr(module, "ROWS_AT_ONCE", 10)
        monkeypatch.setattr(module, "BATCHES", 2)
        await database.execute(
            "INSERT INTO stream_tickets SELECT n::text::bytea, 'alice', $1, now() - interval '1 day'"
            " FROM generate_series(1, 25) n",
            uuid4(),
        )

        assert await cleaner.clean() is True
        assert await bench.value("SELECT count(*) FROM stream_tickets") == 5


class TestLanes:
    async def add(self, database: Database, user: str, virtual_time: float, *, waiting: int = 0, ago=2 * DAY) -> None:
        await database.execute(
            "INSERT INTO lanes (kind, user_id, waiting, virtual_time, head_position, claimed_at)"
            " VALUES ('sdxl', $1, $2, $3, 0, now() - $4::interval)",
            user,
            waiting,
            virtual_time,
            ago,
        )

    async def users(self, database: Database) -> set[str]:
        return {row["user_id"] for row in await database.fetch("SELECT user_id FROM lanes")}

    async def test_those_behind_where_a_new_one_would_start_go(self, cleaner, database):
        await self.add(database, "behind", 1)
        await self.add(database, "claimed a moment ago", 1, ago=MINUTE)
        await self.add(database, "furthest", 9)

        await cleaner.clean()

        assert await self.users(database) == {"claimed a moment ago", "furthest"}

    async def test_while_somebody_waits_those_ahead_of_them_stay(self, cleaner, database):
        await self.add(database, "behind", 1)
        await self.add(database, "waits", 5, waiting=1)
        await self.add(database, "ahead", 7)
        await self.add(database, "furthest", 9)

        await cleaner.clean()

        assert await self.users(database) == {"waits", "ahead", "furthest"}

    async def test_whose_lane_is_gone_starts_where_they_would_have(self, cleaner, database, bench):
        await self.add(database, "alice", 1)
        await self.add(database, "bob", 1, ago=MINUTE)
        await self.add(database, "furthest", 9)
        await cleaner.clean()
        assert "alice" not in await self.users(database)

        for user in ("alice", "bob"):
            await bench.add_job(user)

        rows = await database.fetch("SELECT DISTINCT virtual_time FROM lanes WHERE waiting > 0")
        assert [row["virtual_time"] for row in rows] == [9]
