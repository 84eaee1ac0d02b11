"""What the cleaner takes of jobs that ended long ago. Times are set, not waited for."""

from datetime import timedelta
from uuid import uuid4

import pytest

from ourvidz_gateway.cleaner import Cleaner
from ourvidz_gateway.references import BUCKET as REFERENCES
from support.assets import add_asset
from support.cleaners import cleaner_of
from support.ended import DAY, MINUTE, add_attempt, add_ended_job, put, stored

SECOND = timedelta(seconds=1)


class TestJobs:
    KEEP = timedelta(days=2)

    @pytest.fixture
    def cleaner(self, database, store) -> Cleaner:
        return cleaner_of(database, store, keep_jobs=self.KEEP)

    async def test_a_record_goes_with_all_that_is_stored_for_it_but_its_assets_and_what_was_paid(
        self, cleaner, bench, database, store
    ):
        job_id = await add_ended_job(bench, ago=self.KEEP + SECOND)
        await add_attempt(bench, job_id, outcome="completed")
        await add_asset(database, job_id=job_id)
        asset = await put(store, f"alice/{job_id}/1/0.png")
        await put(store, f"alice/{job_id}/1/manifest.json")
        await put(store, f"alice/{job_id}/2/0.png")  # stored so late that nobody looked any more
        await put(store, f"alice/{job_id}/image.png", REFERENCES)
        upload = await put(store, f"alice/{uuid4()}", REFERENCES)
        ledger = await bench.ledger()

        await cleaner.clean()

        for table in ("jobs", "job_events", "attempts"):
            assert await bench.value(f"SELECT count(*) FROM {table}") == 0
        assert await stored(store) == [asset]
        assert await stored(store, REFERENCES) == [upload]
        assert await bench.value("SELECT count(*) FROM assets") == 1
        assert await bench.ledger() == ledger

    async def test_it_stays_until_its_time(self, cleaner, bench, store):
        job_id = await add_ended_job(bench, ago=self.KEEP - MINUTE)
        keys = [await put(store, f"alice/{job_id}/1/manifest.json")]

        await cleaner.clean()

        assert await bench.value("SELECT count(*) FROM jobs") == 1
        assert await stored(store) == keys

    async def test_one_that_has_not_ended_stays_however_old(self, cleaner, bench, database):
        await bench.add_job()
        await database.execute("UPDATE jobs SET created_at = now() - interval '1 year'")

        await cleaner.clean()

        assert await bench.value("SELECT count(*) FROM jobs") == 1

    async def test_one_in_quarantine_goes_like_any_other(self, cleaner, bench, database):
        await add_ended_job(bench, ago=self.KEEP + SECOND)
        await database.execute("UPDATE jobs SET quarantined_at = completed_at")

        await cleaner.clean()

        assert await bench.value("SELECT count(*) FROM jobs") == 0

    async def test_one_that_another_job_repeats_stays_as_long_as_that_one(self, cleaner, bench, database, store):
        first = await add_ended_job(bench, ago=self.KEEP + MINUTE)
        second = await add_ended_job(bench, ago=self.KEEP - MINUTE)
        await database.execute("UPDATE jobs SET retry_of = $1 WHERE id = $2", first, second)
        reference = await put(store, f"alice/{first}/image.png", REFERENCES)

        await cleaner.clean()

        assert await bench.value("SELECT count(*) FROM jobs") == 2
        assert await stored(store, REFERENCES) == [reference]

        await database.execute("UPDATE jobs SET completed_at = completed_at - interval '5 minutes'")
        await cleaner.clean()
        await cleaner.clean()

        assert await bench.value("SELECT count(*) FROM jobs") == 0
        assert await stored(store, REFERENCES) == []

    async def test_one_whose_webhook_is_still_to_be_sent_stays_until_that_has_ended(self, cleaner, bench, database):
        job_id = await add_ended_job(bench, ago=self.KEEP + SECOND)
        await database.execute(
            "INSERT INTO webhook_outbox (id, job_id, user_id, target) VALUES (gen_random_uuid(), $1, 'alice', 'operator')",
            job_id,
        )
        await cleaner.clean()
        assert await bench.value("SELECT count(*) FROM jobs") == 1

        await database.execute("UPDATE webhook_outbox SET next_try_at = NULL, given_up_at = now()")
        await cleaner.clean()

        assert await bench.value("SELECT count(*) FROM jobs") == 0

    async def test_while_storage_is_down_it_waits(self, cleaner, bench, store):
        job_id = await add_ended_job(bench, ago=self.KEEP + SECOND)
        await put(store, f"alice/{job_id}/1/manifest.json")
        store.down = True
        await cleaner.clean()
        store.down = False

        assert await bench.value("SELECT count(*) FROM jobs") == 1
        await cleaner.clean()

        assert await bench.value("SELECT count(*) FROM jobs") == 0
        assert await stored(store) == []

    async def test_it_stays_for_as_long_as_its_idempotency_key(self, database, store, bench):
        await add_ended_job(bench, ago=3 * DAY)

        await cleaner_of(database, store, keep_jobs=DAY, keep_idempotency_keys=7 * DAY).clean()
        assert await bench.value("SELECT count(*) FROM jobs") == 1
        await cleaner_of(database, store, keep_jobs=DAY, keep_idempotency_keys=2 * DAY).clean()

        assert await bench.value("SELECT count(*) FROM jobs") == 0
