"""A database that an earlier version made, with its jobs in it."""

import asyncio
import json
from pathlib import Path
from uuid import UUID, uuid4

import alembic.command
import alembic.config
import asyncpg
import pytest

import ourvidz_gateway
from ourvidz_gateway.gateway import Gateway
from ourvidz_gateway.jobs import JobFilter, JobState
from support.jobs import ended, painted_job

LATER_FIELDS = {"references", "reference_type", "reference_strength", "enhanced_prompt"}
"""What plans did not have when the schema was at 0001."""


@pytest.fixture
async def old_job(dsn: str) -> UUID:
    """A job that waits in a database of the first schema, with its plan as it was then."""
    config = alembic.config.Config(attributes={"dsn": dsn})
    config.set_main_option("script_location", str(Path(ourvidz_gateway.__file__).parent / "migrations"))
    await asyncio.to_thread(alembic.command.upgrade, config, "0001")
    job = painted_job()
    plan = {name: value for name, value in job.request.items() if name not in LATER_FIELDS}
    assert plan.keys() | LATER_FIELDS == job.request.keys()
    job_id = uuid4()
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        """
        INSERT INTO jobs (id, user_id, job_type, kind, stages, position, request, metadata, credits)
        VALUES ($1, 'alice', $2, 'sdxl', '{rendering}', nextval('job_positions'), $3, $4, 1)
        """,
        job_id,
        job.job_type,
        json.dumps(plan),
        json.dumps(job.metadata),
    )
    await connection.execute(
        "INSERT INTO queue (job_id, kind, user_id, position, cost) VALUES ($1, 'sdxl', 'alice', 1, 2)", job_id
    )
    await connection.execute("INSERT INTO lanes VALUES ('sdxl', 'alice', 1, 0, 1)")
    await connection.execute(
        "INSERT INTO job_events (job_id, sequence, milestone, state, stage, progress, attempt)"
        " VALUES ($1, 1, true, 'queued', 'queued', 0, 0)",
        job_id,
    )
    await connection.close()
    return job_id


async def test_jobs_of_the_first_schema_are_shown_and_rendered(old_job: UUID, open_one):
    async with open_one() as gateway:
        await check_is_shown(gateway, old_job)
        assert (await ended(gateway, old_job)).state == JobState.COMPLETED
        await check_is_shown(gateway, old_job)


async def check_is_shown(gateway: Gateway, job_id: UUID) -> None:
    jobs, _ = await gateway.page("alice", JobFilter(), page_size=10, page_token=None)
    assert [job.id for job in jobs] == [job_id]
    assert jobs[0].metadata["seed"] == 7
    assert "enhanced_prompt" not in jobs[0].metadata
