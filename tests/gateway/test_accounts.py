"""Accounts, the ledger and lanes agree, whatever happens to jobs at the same moment."""

import asyncio
import random
from dataclasses import replace
from uuid import UUID

import pytest

from ourvidz_gateway.acceptance import Terms
from ourvidz_gateway.database import Database, open_database
from ourvidz_gateway.errors import InsufficientCredits, RateLimited
from ourvidz_gateway.jobs import JobStage, JobState, Kind
from ourvidz_gateway.queue import Claim
from support.jobs import Bench, new_job, stored_outputs


class Storm:
    """What happens to jobs, at random, over a database of its own connections."""

    def __init__(self, seed: int, database: Database, session_id: UUID) -> None:
        self._random = random.Random(seed)
        self._bench = Bench(database, Terms(welcome=30, open_jobs=20))
        self._session_id = session_id
        self._running: list[Claim] = []
        self._waiting: list[UUID] = []

    async def rage(self, steps: int) -> None:
        for _ in range(steps):
            act = self._random.choice([self._ask, self._ask, self._claim, self._claim, self._end, self._withdraw])
            await act()

    async def _ask(self) -> None:
        price = self._random.randint(0, 6)
        job = replace(
            new_job(f"user {self._random.randrange(3)}", num_images=3),
            credits=price,
            idempotency_key=self._random.choice([None, None, f"key {self._random.randrange(40)}"]),
            webhook_url=self._random.choice([None, "https://hooks.example.com/x"]),
            kind=Kind.ENHANCER,
        )
        stages = [JobStage.ENHANCING, JobStage.RENDERING]
        try:
            if await self._bench.accept(job, stages=stages, cost=self._random.random()):
                self._waiting.append(job.id)
        except (InsufficientCredits, RateLimited):
            pass

    async def _claim(self) -> None:
        kind = self._random.choice([Kind.ENHANCER, Kind.SDXL])
        if claimed := await self._bench.queue.claim(kind, ["storm"], self._session_id):
            self._running.append(claimed[0])

    async def _withdraw(self) -> None:
        if self._waiting:
            state = self._random.choice([JobState.CANCELLED, JobState.FAILED])
            job_id = self._random.choice(self._waiting)
            await self._bench.database.execute("UPDATE jobs SET cancel_requested_at = now() WHERE id = $1", job_id)
            await self._bench.queue.withdraw(job_id, state=state, message="x")
            await self._bench.queue.promote()

    async def _end(self) -> None:
        if not self._running:
            return
        claim = self._running.pop(self._random.randrange(len(self._running)))
        attempts, session_id = self._bench.attempts, self._session_id
        match self._random.randrange(5):
            case 0:
                await attempts.fail(claim, session_id, reason="X", message="x")
            case 1:
                outputs = stored_outputs(self._random.randint(0, 3))
                await attempts.cancelled(claim, session_id, message="x", outputs=outputs)
            case 2:
                counts, delay_s = self._random.random() < 0.5, self._random.choice([0.0, 0.01])
                await attempts.retry(claim, session_id, reason="X", counts=counts, delay_s=delay_s, cost=1)
            case _ if claim.stage is JobStage.ENHANCING:
                await attempts.advance(claim, session_id, request=claim.request, warnings=[], kind=Kind.SDXL, cost=1)
            case _:
                await attempts.complete(claim, session_id, outputs=stored_outputs(3), result={}, warnings=[])


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_accounts_ledger_and_lanes_agree_after_a_storm(dsn: str, bench: Bench, seed: int):
    """Statements that waited for each other would be an error, too: PostgreSQL ends one of them."""
    for kind in (Kind.ENHANCER, Kind.SDXL):
        await bench.add_slots(30, address="storm", kind=kind)
    session_id = await bench.add_session()
    async with open_database(dsn) as database:
        storms = [Storm(100 * seed + number, database, session_id) for number in range(8)]
        await asyncio.gather(*(storm.rage(60) for storm in storms))

    assert await bench.wrong_accounts() == []
    assert await bench.lanes_agree_with_queue()
    assert await bench.value("SELECT count(DISTINCT entry) FROM credit_ledger") == 4, "all kinds of entries were made"
    unsettled = """
      SELECT count(*) FROM jobs j WHERE j.credits > 0 AND j.state NOT IN ('queued', 'processing') AND j.credits <> (
        SELECT sum(l.amount) FROM credit_ledger l WHERE l.job_id = j.id AND l.entry IN ('settle', 'release'))
    """
    assert await bench.value(unsettled) == 0
    untold = """
      SELECT count(*) FROM jobs j WHERE (j.state NOT IN ('queued', 'processing'))
        <> EXISTS (SELECT FROM webhook_outbox w WHERE w.job_id = j.id AND w.target = 'operator')
    """
    assert await bench.value(untold) == 0
