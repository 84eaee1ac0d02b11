"""When the cleaner cleans, who of several does, and what it lives through."""

import asyncio
import os
from datetime import timedelta
from pathlib import Path

from ourvidz_gateway import cleaner as module
from ourvidz_gateway.database import open_database
from ourvidz_gateway.errors import DatabaseUnavailable
from support.assets import add_asset
from support.cleaners import cleaner_of
from support.ended import DAY, MINUTE, add_ended_job, put, stored

SECOND = timedelta(seconds=1)


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
