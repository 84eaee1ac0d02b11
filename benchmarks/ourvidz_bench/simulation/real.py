"""A real run beside the simulation: the whole system with painters at a known pace, and jobs that come at random."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import mean
from uuid import UUID

from ourvidz_bench.simulation.cell import Job, JobType, Lanes, poisson, quantile, waits
from support.cluster.audit import until_ended
from support.cluster.cluster import Cluster, running_cluster
from support.postgres import running_postgres

GPUS = 2
PACE_MS = 25
STEPS = 20
LOAD = 0.75
WAL = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8 AS written"


@dataclass(frozen=True)
class Found:
    """What a run found, in seconds, and what the simulation says of the same arrivals and service times."""

    jobs: int
    mean_s: float
    p99_s: float
    simulated_mean_s: float
    simulated_p99_s: float
    service_s: float
    """Claimed to recorded, on average."""
    wal_bytes: float
    """What PostgreSQL wrote to its log, per job."""
    connections: float
    """Open connections to the database, per gateway."""


async def run(cluster: Cluster, count: int) -> Found:
    """Ask for so many jobs at random times, and compare how long they waited."""
    service_s = STEPS * PACE_MS / 1e3
    jobs = poisson(GPUS * LOAD / service_s, count, [JobType(1, service_s)], Random(4), users=20)  # noqa: S311
    (before,) = await cluster.rows(WAL)
    begun = asyncio.get_running_loop().time()

    async def ask(job: Job, index: int) -> str:
        await asyncio.sleep(begun + job.arrives_s - asyncio.get_running_loop().time())
        gateway = cluster.gateways[index % len(cluster.gateways)]
        return await cluster.ask(gateway, f"a fox pace:{PACE_MS}", user=f"user-{job.user}")

    ids = await asyncio.gather(*(ask(job, index) for index, job in enumerate(jobs)))
    await until_ended(cluster, ids)
    (after,) = await cluster.rows(WAL)
    (open_now,) = await cluster.rows(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    rows = await cluster.rows(
        """SELECT j.user_id, extract(epoch FROM j.created_at)::float8 AS asked,
             extract(epoch FROM j.started_at)::float8 AS started, extract(epoch FROM j.completed_at)::float8 AS ended
           FROM jobs j WHERE id = ANY($1::uuid[]) ORDER BY created_at""",
        [UUID(job_id) for job_id in ids],
    )
    waited = [row["started"] - row["asked"] for row in rows]
    taken = [Job(row["asked"] - rows[0]["asked"], row["user_id"], row["ended"] - row["started"]) for row in rows]
    simulated = [wait_s for _, wait_s in waits(taken, GPUS, Lanes())]
    return Found(
        count,
        mean(waited),
        quantile(waited, 0.99),
        mean(simulated),
        quantile(simulated, 0.99),
        mean(job.service_s for job in taken),
        (after["written"] - before["written"]) / count,
        open_now["count"] / len(cluster.gateways),
    )


def measure(count: int) -> Found:
    """Start everything, run, and stop it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_postgres() as postgres,
        postgres.database() as dsn,
        running_cluster(Path(folder), dsn, sdxl=GPUS, wan=0, enhancers=0) as cluster,
    ):
        return asyncio.run(run(cluster, count))
