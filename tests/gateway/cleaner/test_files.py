"""What the cleaner takes of files that were deleted or that nobody names. Times are set, not waited for."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from ourvidz_gateway import cleaner as module
from ourvidz_gateway.cleaner import LEFTOVERS_AFTER
from ourvidz_gateway.database import Database
from ourvidz_gateway.decoding import Decoder
from ourvidz_gateway.errors import DatabaseUnavailable
from ourvidz_gateway.jobs import JobStage
from ourvidz_gateway.references import BUCKET as REFERENCES
from ourvidz_gateway.uploads import Uploads
from ourvidz_serving.storage import AccessDenied, ObjectStore, open_store
from support.assets import BUCKET, add_asset
from support.cleaners import cleaner_of
from support.ended import DAY, MINUTE, add_attempt, add_ended_job, put, stored
from support.pictures import file_of, halves

SECOND = timedelta(seconds=1)


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
