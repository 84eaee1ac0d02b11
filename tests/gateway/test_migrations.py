"""A database that an earlier version made, with its jobs in it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import alembic.command
import alembic.config
import asyncpg

import ourvidz_gateway
from ourvidz_gateway.assets import AssetFilter
from ourvidz_gateway.gateway import Gateway
from ourvidz_gateway.jobs import JobFilter, JobState
from support.jobs import ended, painted_job

LATER_FIELDS = {"references", "reference_type", "reference_strength", "enhanced_prompt"}
"""What plans did not have when the schema was at 0001."""


@dataclass
class OldDatabase:
    """A database of an earlier version."""

    connection: asyncpg.Connection

    async def add_job(self, *, state: str = "queued", **columns: object) -> UUID:
        """A job of alice's in some state, with its plan as it was then; one that is queued waits."""
        job = painted_job()
        plan = {name: value for name, value in job.request.items() if name not in LATER_FIELDS}
        assert plan.keys() | LATER_FIELDS == job.request.keys()
        values = {
            "id": uuid4(),
            "user_id": "alice",
            "job_type": job.job_type,
            "kind": "sdxl",
            "state": state,
            "stages": ["rendering"],
            "position": 1,
            "request": json.dumps(plan),
            "metadata": json.dumps(job.metadata),
            "credits": 1,
            **columns,
        }
        await self.add("jobs", **values)
        job_id = values["id"]
        assert isinstance(job_id, UUID)
        if state == "queued":
            await self.add("queue", job_id=job_id, kind="sdxl", user_id="alice", position=1, cost=2.0)
            await self.add("lanes", kind="sdxl", user_id="alice", waiting=1, virtual_time=0.0, head_position=1)
        await self.add(
            "job_events",
            job_id=job_id,
            sequence=1,
            milestone=True,
            state=state,
            stage="queued" if state == "queued" else None,
            progress=0,
            attempt=0,
        )
        return job_id

    async def add(self, table: str, **columns: object) -> None:
        """A row."""
        places = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
        await self.connection.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", *columns.values()
        )


@asynccontextmanager
async def database_of(dsn: str, revision: str) -> AsyncIterator[OldDatabase]:
    """Make the database of an earlier version."""
    config = alembic.config.Config(attributes={"dsn": dsn})
    config.set_main_option("script_location", str(Path(ourvidz_gateway.__file__).parent / "migrations"))
    await asyncio.to_thread(alembic.command.upgrade, config, revision)
    connection = await asyncpg.connect(dsn)
    try:
        yield OldDatabase(connection)
    finally:
        await connection.close()


async def test_jobs_of_the_first_schema_are_shown_and_rendered(dsn: str, open_one):
    async with database_of(dsn, "0001") as old:
        job_id = await old.add_job()

    async with open_one() as gateway:
        await check_is_shown(gateway, job_id)
        assert (await ended(gateway, job_id)).state == JobState.COMPLETED
        await check_is_shown(gateway, job_id)


async def test_jobs_files_and_quarantine_of_the_second_schema_are_still_there(dsn: str, open_one):
    ended_at = datetime(2026, 11, 20, 12, tzinfo=UTC)
    async with database_of(dsn, "0002") as old:
        waiting = await old.add_job()
        done = await old.add_job(state="completed", completed_at=ended_at, project_id="p")
        poison = await old.add_job(
            state="failed", completed_at=ended_at, quarantined=True, error_message="It failed 3 times."
        )
        await old.add_job(state="failed", completed_at=ended_at, user_id="bob")
        await old.add_job(state="processing", user_id="carol")
        picture = {"bucket": "pictures", "mime_type": "image/png", "sha256": b"x", "width_px": 64, "height_px": 48}
        asset = {**picture, "user_id": "alice", "key": "a", "size_bytes": 3, "seed": 7, "index": 0}
        await old.add("assets", id=uuid4(), job_id=done, **asset)
        for size_bytes, deleted_at in ((5, None), (6, None), (100, ended_at)):
            await old.add(
                "reference_images",
                id=uuid4(),
                user_id="alice",
                key=f"{size_bytes}",
                size_bytes=size_bytes,
                deleted_at=deleted_at,
                **picture,
            )

    async with open_one() as gateway:
        assert (await ended(gateway, waiting)).state == JobState.COMPLETED
        assets, _ = await gateway.parts.assets.page("alice", AssetFilter(), page_size=10, page_token=None)
        jobs, _ = await gateway.quarantine.page(user_id=None, include_released=True, page_size=10, page_token=None)
        balance = await gateway.parts.credits.balance("alice")
        released = await gateway.quarantine.release(poison)
        assert (await ended(gateway, released.released_as)).state == JobState.COMPLETED

    assert [(each.asset.job_id, each.job_type, each.project_id) for each in assets] == [
        (waiting, "sdxl_image_fast", None),
        (done, "sdxl_image_fast", "p"),
    ]
    assert [(job.job_id, job.quarantined_at) for job in jobs] == [(poison, ended_at)]
    assert (balance.available, balance.reserved) == (1000, 0), "the job of before cost nothing"
    async with database_of(dsn, "head") as now:
        accounts = await now.connection.fetch("SELECT user_id, open_jobs, reference_bytes FROM accounts ORDER BY 1")
        ledger = await now.connection.fetch("SELECT entry, amount, job_id FROM credit_ledger ORDER BY id")
    assert [tuple(row) for row in accounts] == [("alice", 0, 11), ("carol", 1, 0)], "who holds nothing has none"
    again = released.released_as
    assert [tuple(row) for row in ledger] == [("grant", 1000, None), ("reserve", 1, again), ("settle", 1, again)]


async def check_is_shown(gateway: Gateway, job_id: UUID) -> None:
    jobs, _ = await gateway.page("alice", JobFilter(), page_size=10, page_token=None)
    assert [job.id for job in jobs] == [job_id]
    assert jobs[0].metadata["seed"] == 7
    assert "enhanced_prompt" not in jobs[0].metadata
