"""Shortcuts for tests on the queue: jobs, slots and sessions that stand in a real database, and gateways' jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from ourvidz.api.render.v1 import render_pb2
from ourvidz_gateway.acceptance import Terms
from ourvidz_gateway.admission import admit
from ourvidz_gateway.attempts import Attempts
from ourvidz_gateway.catalog import load_catalog
from ourvidz_gateway.database import Database
from ourvidz_gateway.draft import JobDraft
from ourvidz_gateway.gateway import Gateway
from ourvidz_gateway.jobs import JobEvent, JobStage, Kind, NewJob
from ourvidz_gateway.queue import Claim, Queue

ADDRESS = "127.0.0.1:50061"

CATALOG = load_catalog(None)


def new_job(user: str = "alice", job_type: str = "sdxl_image_fast", **metadata: Any) -> NewJob:
    """A job that passed admission, not stored."""
    draft = JobDraft(job_type=job_type, metadata={"prompt": "a lighthouse at dawn", "seed": 7, **metadata})
    return admit(draft, user, CATALOG)


class Bench:
    """Puts things into the database and takes them out again."""

    def __init__(self, database: Database, terms: Terms = Terms(welcome=1000)) -> None:
        self.database = database
        self.queue = Queue(database, terms, operator_webhook=True)
        self.attempts = Attempts(database, operator_webhook=True)

    async def add_job(
        self,
        user: str = "alice",
        *,
        cost: float = 1.0,
        kind: Kind = Kind.SDXL,
        stages: Sequence[JobStage] = (JobStage.RENDERING,),
        **metadata: Any,
    ) -> UUID:
        """A job for SDXL whose first stage waits for `kind`."""
        job = replace(new_job(user, **metadata), kind=kind)
        await self.accept(job, stages=stages, cost=cost)
        return job.id

    async def accept(
        self, job: NewJob, *, stages: Sequence[JobStage] = (JobStage.RENDERING,), cost: float = 1.0
    ) -> datetime | None:
        """Accept a job for SDXL."""
        return await self.queue.accept(job, renderer=Kind.SDXL, stages=stages, cost=cost)

    async def add_slots(self, count: int = 1, address: str = ADDRESS, kind: Kind = Kind.SDXL) -> None:
        await self.database.execute(
            "INSERT INTO renderer_slots (kind, address, slot) SELECT $1, $2, generate_series(0, $3 - 1)",
            kind,
            address,
            count,
        )

    async def add_session(self, *, lease: timedelta = timedelta(minutes=1)) -> UUID:
        session_id = uuid4()
        await self.database.execute(
            "INSERT INTO gateway_sessions (id, name, lease_until) VALUES ($1, 'test', clock_timestamp() + $2)",
            session_id,
            lease,
        )
        return session_id

    async def claim(self, session_id: UUID, *addresses: str) -> Claim | None:
        claimed = await self.queue.claim(Kind.SDXL, addresses or [ADDRESS], session_id)
        return claimed[0] if claimed else None

    async def running_job(self, session_id: UUID, **job: Any) -> Claim:
        """A job that has been claimed, for the one slot there is."""
        await self.add_slots()
        await self.add_job(**job)
        claim = await self.claim(session_id)
        assert claim
        return claim

    async def value(self, query: str, *args: Any) -> Any:
        """The first value of the first row."""
        row = await self.database.fetchrow(query, *args)
        return row[0] if row else None

    async def until(self, condition: str, *args: Any) -> None:
        """Wait until something is so in the database."""
        async with asyncio.timeout(30):
            while not await self.value(f"SELECT {condition}", *args):  # there is no event to wait for
                await asyncio.sleep(0.01)

    async def lanes_agree_with_queue(self) -> bool:
        """Whether every lane's count is what the queue holds for it."""
        wrong = await self.value(
            """
            SELECT count(*) FROM (
              SELECT kind, user_id, count(*) AS waiting FROM queue WHERE ready GROUP BY kind, user_id
            ) q FULL JOIN (SELECT * FROM lanes WHERE waiting <> 0) l USING (kind, user_id)
            WHERE q.waiting IS DISTINCT FROM l.waiting
            """
        )
        return wrong == 0

    async def account(self, user: str = "alice") -> tuple[int, int, int]:
        """A user's available credits, reserved credits and open jobs."""
        row = await self.database.fetchrow(
            "SELECT available, reserved, open_jobs FROM accounts WHERE user_id = $1", user
        )
        return tuple(row) if row else (0, 0, 0)

    async def ledger(self, user: str = "alice") -> list[tuple[str, int]]:
        """A user's entries and their amounts, in order."""
        rows = await self.database.fetch("SELECT entry, amount FROM credit_ledger WHERE user_id = $1 ORDER BY id", user)
        return [tuple(row) for row in rows]

    async def wrong_accounts(self) -> list[str]:
        """The users whose account is not what the ledger and their jobs say."""
        rows = await self.database.fetch(
            """
            SELECT user_id FROM accounts FULL JOIN (
              SELECT user_id,
                     sum(CASE entry WHEN 'reserve' THEN -amount WHEN 'settle' THEN 0 ELSE amount END) AS available,
                     sum(CASE entry WHEN 'grant' THEN 0 WHEN 'reserve' THEN amount ELSE -amount END) AS reserved
              FROM credit_ledger GROUP BY user_id
            ) l USING (user_id) FULL JOIN (
              SELECT user_id, count(*) FILTER (WHERE state IN ('queued', 'processing')) AS open_jobs
              FROM jobs GROUP BY user_id
            ) j USING (user_id)
            WHERE accounts.available IS DISTINCT FROM coalesce(l.available, 0)
               OR accounts.reserved IS DISTINCT FROM coalesce(l.reserved, 0)
               OR accounts.open_jobs IS DISTINCT FROM coalesce(j.open_jobs, 0)
            """
        )
        return [row["user_id"] for row in rows]


def stored_outputs(count: int) -> list[render_pb2.Output]:
    """What a renderer says of that many pictures that it stored."""
    return [
        render_pb2.Output(
            bucket="pictures",
            key=f"alice/{index}.png",
            mime_type="image/png",
            size_bytes=9,
            sha256=bytes(32),
            width_px=64,
            height_px=48,
            seed=index,
        )
        for index in range(count)
    ]


def painted_job(
    user: str = "alice",
    prompt: str = "a fox",
    *,
    job_type: str = "sdxl_image_fast",
    images: int = 1,
    steps: int = 2,
    **request: Any,
) -> NewJob:
    """A job that the painting engine of the tests can make; the prompt says what the engine does."""
    job = new_job(user, job_type, num_images=images)
    small = {"width_px": 64, "height_px": 48, "step_count": steps, "bucket": "pictures", "prompt": prompt}
    return replace(job, request={**job.request, **small, **request})


async def events_of(gateway: Gateway, job_id: UUID, *, after: int = 0) -> list[JobEvent]:
    """All events of alice's job, to the terminal one."""
    async with asyncio.timeout(30):
        return [event async for event in gateway.watch("alice", job_id, after=after)]


async def ended(gateway: Gateway, job_id: UUID) -> JobEvent:
    """How alice's job ends."""
    return (await events_of(gateway, job_id))[-1]


async def until_stage(gateway: Gateway, job_id: UUID, stage: JobStage) -> None:
    """Wait until alice's job is in a stage."""
    async with asyncio.timeout(30):
        async for event in gateway.watch("alice", job_id):
            if event.stage == stage:
                return
