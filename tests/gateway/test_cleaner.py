"""The cleaner, on a real database and a real store: what it takes, and what it leaves. Times are set, not waited for."""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from ourvidz_gateway import cleaner as module
from ourvidz_gateway.cleaner import LEFTOVERS_AFTER, Cleaner
from ourvidz_gateway.database import Database, open_database
from ourvidz_gateway.decoding import Decoder
from ourvidz_gateway.errors import DatabaseUnavailable
from ourvidz_gateway.jobs import JobStage
from ourvidz_gateway.references import BUCKET as REFERENCES
from ourvidz_gateway.uploads import Uploads
from ourvidz_serving.storage import AccessDenied, ObjectStore, open_store
from support import fronts
from support.assets import BUCKET, add_asset
from support.ended import DAY, MINUTE, add_attempt, add_ended_job, put, stored
from support.pictures import file_of, halves
from support.renderer import SwitchedStore

SECOND = timedelta(seconds=1)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SwitchedStore]:
    store = SwitchedStore(tmp_path / "objects")
    yield store
    await store.close()


@pytest.fixture
def cleaner(database: Database, store: SwitchedStore) -> Cleaner:
    return cleaner_of(database, store)


def cleaner_of(database: Database, store: ObjectStore, **settings: Any) -> Cleaner:
    return Cleaner(database, store, fronts.settings(**settings))


class TestDeletedFiles:
    async def add(self, database: Database, store: ObjectStore, table: str, **changes: Any) -> str:
        """A file with its object; returns the object's key."""
        if table == "assets":
            asset_id = await add_asset(database, **changes)
        else:
            uploads = Uploads(database, store, Decoder(), quota_bytes=2**20, on_deleted=lambda: None)
            asset_id = (await uploads.upload("alice", file_of(halves()))).id
        row = await database.fetchrow(f"SELECT bucket, key FROM {table} WHERE id = $1", asset_id)
        return await put(store, row["key"], row["bucket"])

    async def delete(self, database: Database, table: str, key: str, when: str = "now()") -> None:
        await database.execute(f"UPDATE {table} SET deleted_at = {when} WHERE key = $1", key)

    async def keys(self, database: Database, table: str) -> list[str]:
        return [row["key"] for row in await database.fetch(f"SELECT key FROM {table}")]

    @pytest.fixture(params=["assets", "reference_images"])
    def table(self, request) -> str:
        return request.param

    @pytest.fixture
    def bucket(self, table) -> str:
        return BUCKET if table == "assets" else REFERENCES

    async def test_what_was_deleted_goes_with_its_object_and_the_rest_stays(
        self, cleaner, database, store, table, bucket
    ):
        kept, deleted = [await self.add(database, store, table) for _ in range(2)]
        await self.delete(database, table, deleted)

        assert await cleaner.clean() is False

        assert await stored(store, bucket) == [kept]
        assert await self.keys(database, table) == [kept]

    async def test_while_storage_is_down_it_waits(self, cleaner, database, store, table, bucket):
        key = await self.add(database, store, table)
        await self.delete(database, table, key)
        store.down = True

        await cleaner.clean()

        assert await self.keys(database, table) == [key]
        store.down = False
        assert await stored(store, bucket) == [key]
        await cleaner.clean()
        assert await stored(store, bucket) == []
        assert await self.keys(database, table) == []

    async def test_whose_object_has_gone_before_a_crash_goes_too(self, cleaner, database, store, table, bucket):
        key = await self.add(database, store, table)
        await self.delete(database, table, key)
        await store.delete(bucket, key)

        await cleaner.clean()

        assert await self.keys(database, table) == []

    async def test_a_database_that_leaves_between_object_and_row_changes_nothing(
        self, cleaner, database, store, table, bucket, monkeypatch
    ):
        key = await self.add(database, store, table)
        await self.delete(database, table, key)

        async def leave(*_):
            raise DatabaseUnavailable("away")

        with monkeypatch.context() as patch:
            patch.setattr(database, "execute", leave)
            with pytest.raises(DatabaseUnavailable):
                await cleaner.clean()
        assert await stored(store, bucket) == []
        assert await self.keys(database, table) == [key]

        await cleaner.clean()

        assert await self.keys(database, table) == []

    async def test_an_upload_that_is_not_confirmed_has_its_time(self, cleaner, database, store):
        waiting, late = [await self.add(database, store, "reference_images") for _ in range(2)]
        await self.delete(database, "reference_images", waiting, "now() + interval '1 minute'")
        await self.delete(database, "reference_images", late, "now() - interval '1 second'")

        await cleaner.clean()

        assert await stored(store, REFERENCES) == [waiting]
        assert await self.keys(database, "reference_images") == [waiting]

    async def test_a_bucket_that_refuses_keeps_no_other_waiting(self, cleaner, database, store, monkeypatch):
        monkeypatch.setattr(module, "FILES_AT_ONCE", 2)
        refused = [await self.add(database, store, "assets", bucket="refusing") for _ in range(3)]
        fine = await self.add(database, store, "assets")
        delete = store.delete

        async def refuse(bucket: str, key: str) -> None:
            if bucket == "refusing":
                raise AccessDenied("no")
            await delete(bucket, key)

        monkeypatch.setattr(store, "delete", refuse)
        for number, key in enumerate([*refused, fine]):
            await self.delete(database, "assets", key, f"now() - interval '{10 - number} seconds'")

        await cleaner.clean()

        assert await self.keys(database, "assets") == refused
        assert await stored(store) == []

    async def test_what_is_refused_is_not_tried_again_without_a_pause(self, cleaner, database, store, monkeypatch):
        monkeypatch.setattr(module, "FILES_AT_ONCE", 1)
        monkeypatch.setattr(module, "BATCHES", 2)
        for _ in range(3):
            await self.delete(database, "assets", await self.add(database, store, "assets"))

        async def refuse(bucket: str, key: str) -> None:
            raise AccessDenied("no")

        monkeypatch.setattr(store, "delete", refuse)

        assert await cleaner.clean() is False

    async def test_more_than_a_round_takes_is_left_for_the_next(self, cleaner, database, store, monkeypatch):
        monkeypatch.setattr(module, "FILES_AT_ONCE", 2)
        monkeypatch.setattr(module, "BATCHES", 2)
        for _ in range(5):
            await self.delete(database, "assets", await self.add(database, store, "assets"))

        assert await cleaner.clean() is True
        assert len(await stored(store)) == 1
        assert await cleaner.clean() is False
        assert await stored(store) == []


class TestLeftovers:
    @pytest.mark.parametrize("outcome", ["failed", "handed_back", "cancelled"])
    async def test_what_an_attempt_left_that_came_to_nothing_goes(self, cleaner, bench, store, outcome):
        job_id = await add_ended_job(bench)
        await add_attempt(bench, job_id, outcome=outcome)
        for name in ("0.png", "1.png", "manifest.json"):
            await put(store, f"alice/{job_id}/1/{name}")

        await cleaner.clean()

        assert await stored(store) == []
        assert await bench.value("SELECT cleaned_at IS NOT NULL FROM attempts")

    async def test_what_a_completed_one_stored_stays(self, cleaner, bench, store):
        job_id = await add_ended_job(bench)
        await add_attempt(bench, job_id, 1)
        await add_attempt(bench, job_id, 11, outcome="completed")
        await put(store, f"alice/{job_id}/1/0.png")
        kept = [await put(store, f"alice/{job_id}/11/{name}") for name in ("0.png", "manifest.json")]

        await cleaner.clean()

        assert await stored(store) == kept

    @pytest.mark.parametrize("deleted_at", [None, "deleted"])
    async def test_what_is_an_asset_stays(self, cleaner, bench, database, store, deleted_at):
        """Of a job that was cancelled, what was finished is kept. Its user's deleting it is another matter."""
        job_id = await add_ended_job(bench)
        await add_attempt(bench, job_id, outcome="cancelled")
        asset_id = await add_asset(database, job_id=job_id)
        keys = [await put(store, f"alice/{job_id}/1/{name}") for name in ("0.png", "1.png", "manifest.json")]
        if deleted_at:
            await database.execute("UPDATE assets SET deleted_at = now() + interval '1 day' WHERE id = $1", asset_id)

        await cleaner.clean()

        assert await stored(store) == keys[:1]

    @pytest.mark.parametrize(
        "attempt",
        [
            {"ago": LEFTOVERS_AFTER - MINUTE},
            {"outcome": None},
            {"stage": JobStage.FETCHING},
        ],
        ids=["ended a moment ago", "goes on", "fetched"],
    )
    async def test_an_attempt_that_may_still_be_written_for_is_left_alone(self, cleaner, bench, store, attempt):
        job_id = await add_ended_job(bench)
        await add_attempt(bench, job_id, **attempt)
        key = await put(store, f"alice/{job_id}/1/0.png")

        await cleaner.clean()

        assert await stored(store) == [key]

    async def test_it_is_looked_through_once(self, cleaner, bench, store, monkeypatch):
        await add_attempt(bench, await add_ended_job(bench))
        await cleaner.clean()

        async def never(*_):
            raise AssertionError("it was listed again")

        monkeypatch.setattr(store, "list", never)
        await cleaner.clean()

    async def test_while_storage_is_down_it_waits(self, cleaner, bench, store):
        job_id = await add_ended_job(bench)
        await add_attempt(bench, job_id)
        await put(store, f"alice/{job_id}/1/0.png")
        store.down = True
        await cleaner.clean()
        store.down = False

        assert await bench.value("SELECT cleaned_at IS NULL FROM attempts")
        await cleaner.clean()

        assert await stored(store) == []

    async def test_whatever_the_users_id_is(self, cleaner, bench, store):
        job_id = await add_ended_job(bench, user="auth0|1")
        await add_attempt(bench, job_id)
        folder = module.user_folder("auth0|1")
        await put(store, f"{folder}/{job_id}/1/0.png")

        await cleaner.clean()

        assert await stored(store) == []


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


class TestRounds:
    async def test_of_several_gateways_one_cleans_at_a_time(self, dsn, database):
        async with open_database(dsn) as other:
            async with database.alone("clean") as first, other.alone("clean") as second:
                assert (first, second) == (True, False)
                async with other.alone("something else") as third:
                    assert third
            async with other.alone("clean") as second:
                assert second

    async def test_whose_connection_breaks_has_lost_the_right_and_can_have_it_again(self, dsn, database):
        async with open_database(dsn) as other:
            async with database.alone("clean"):
                await other.fetch(
                    "SELECT pg_terminate_backend(pid, 10000) FROM pg_locks WHERE locktype = 'advisory' AND database ="
                    " (SELECT oid FROM pg_database WHERE datname = current_database())"
                )
                async with other.alone("clean") as second:
                    assert second
            async with database.alone("clean") as again:
                assert again

    async def test_two_that_clean_at_once_all_the_same_do_no_harm(self, dsn, database, store, bench):
        """The right to clean hangs on a connection, which may break."""
        kept = await add_asset(database)
        deleted = [await add_asset(database) for _ in range(20)]
        await database.execute("UPDATE assets SET deleted_at = now() WHERE id = ANY($1)", deleted)
        for row in await database.fetch("SELECT key FROM assets"):
            await put(store, row["key"])

        async with open_database(dsn) as other:
            await asyncio.gather(*(cleaner_of(each, store).clean() for each in (database, other)))

        (row,) = await database.fetch("SELECT id, key FROM assets")
        assert row["id"] == kept
        assert await stored(store) == [row["key"]]

    async def test_a_wake_that_another_gateway_kept_from_us_is_made_good_soon(
        self, dsn, database, store, bench, monkeypatch
    ):
        monkeypatch.setattr(module, "SOON_S", 0.01)
        monkeypatch.setattr(module, "BREATH_S", 0.0)
        await add_asset(database, deleted_at=await bench.value("SELECT now()"))
        cleaner = cleaner_of(database, store)
        kept_out = asyncio.Event()
        pause = cleaner._pause

        async def note(pause_s: float) -> bool:
            if pause_s == module.SOON_S:
                kept_out.set()
            return await pause(pause_s)

        monkeypatch.setattr(cleaner, "_pause", note)
        async with open_database(dsn) as other:
            async with other.alone("clean"):
                running = asyncio.create_task(cleaner.run())
                cleaner.wake()
                async with asyncio.timeout(30):
                    await kept_out.wait()
                assert await bench.value("SELECT count(*) FROM assets") == 1
            await bench.until("count(*) = 0 FROM assets")
        running.cancel()

    async def test_an_outage_of_the_database_is_survived(self, database, store, bench, monkeypatch):
        monkeypatch.setattr(module, "SOON_S", 0.01)
        monkeypatch.setattr(module, "BREATH_S", 0.0)
        await add_asset(database, deleted_at=await bench.value("SELECT now()"))
        cleaner = cleaner_of(database, store)
        away = asyncio.Event()
        fetch = database.fetch

        async def leave(*_):
            away.set()
            raise DatabaseUnavailable("away")

        monkeypatch.setattr(database, "fetch", leave)
        running = asyncio.create_task(cleaner.run())
        cleaner.wake()
        async with asyncio.timeout(30):
            await away.wait()
        monkeypatch.setattr(database, "fetch", fetch)

        await bench.until("count(*) = 0 FROM assets")
        assert not running.done()
        running.cancel()

    async def test_what_is_left_is_done_without_a_pause(self, database, store, bench, monkeypatch):
        monkeypatch.setattr(module, "BREATH_S", 0.0)
        monkeypatch.setattr(module, "FILES_AT_ONCE", 1)
        monkeypatch.setattr(module, "BATCHES", 1)
        for index in range(4):
            await add_asset(database, index=index, deleted_at=await bench.value("SELECT now()"))
        cleaner = cleaner_of(database, store)

        running = asyncio.create_task(cleaner.run())
        cleaner.wake()

        await bench.until("count(*) = 0 FROM assets")
        running.cancel()

    async def test_one_chore_that_fails_keeps_no_other_from_being_done(
        self, cleaner, database, store, bench, monkeypatch
    ):
        async def fail() -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(cleaner, "_delete_files", fail)
        job_id = await add_ended_job(bench, ago=91 * DAY)
        await put(store, f"alice/{job_id}/1/manifest.json")

        await cleaner.clean()

        assert await stored(store) == []

    async def test_what_was_cut_off_while_it_was_written_goes_from_a_local_store(self, cleaner, store, tmp_path):
        cut_off, fresh = (tmp_path / "objects" / ".staged" / name for name in ("old", "new"))
        cut_off.parent.mkdir(parents=True)
        for file in (cut_off, fresh):
            file.write_bytes(b"half")
        age(cut_off, timedelta(hours=1) + MINUTE)
        age(fresh, timedelta(hours=1) - MINUTE)

        await cleaner.clean()

        assert list(cut_off.parent.iterdir()) == [fresh]


def age(file: Path, by: timedelta) -> None:
    moment = file.stat().st_mtime - by.total_seconds()
    os.utime(file, (moment, moment))


async def test_on_s3(s3_server, database, bench):
    store = open_store(s3_server.settings())
    try:
        bucket = f"cleaned-{uuid4().hex}"
        job_id = await add_ended_job(bench, ago=91 * DAY)
        await database.execute("UPDATE jobs SET request = jsonb_set(request, '{bucket}', to_jsonb($1::text))", bucket)
        asset_id = await add_asset(database, job_id=job_id, bucket=bucket)
        kept = [await put(store, f"alice/{job_id}/1/0.png", bucket)]
        await put(store, f"alice/{job_id}/1/manifest.json", bucket)

        await cleaner_of(database, store).clean()
        assert await stored(store, bucket) == kept
        assert await bench.value("SELECT count(*) FROM jobs") == 0

        await database.execute("UPDATE assets SET deleted_at = now() WHERE id = $1", asset_id)
        await cleaner_of(database, store).clean()
        assert await stored(store, bucket) == []
        assert await bench.value("SELECT count(*) FROM assets") == 0
    finally:
        await store.close()
