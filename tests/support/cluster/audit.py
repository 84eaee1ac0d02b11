"""Looks at everything when all is over: each accepted job ended once, and nothing is missing, twice, or left behind."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Collection
from typing import Any
from uuid import UUID

import httpx

from support.cluster.cluster import Cluster
from support.fronts import token

TERMINAL = ("completed", "failed", "cancelled")
PATIENCE_S = 90.0


async def until_ended(cluster: Cluster, job_ids: Collection[str], patience_s: float = PATIENCE_S) -> None:
    """Wait until all these jobs have ended, as their records say."""
    async with asyncio.timeout(patience_s):
        while await cluster.rows(
            "SELECT 1 FROM jobs WHERE id = ANY($1::uuid[]) AND state <> ALL($2::text[]) LIMIT 1",
            [UUID(job_id) for job_id in job_ids],
            list(TERMINAL),
        ):
            await asyncio.sleep(0.1)


async def rendered_once(cluster: Cluster, job_id: str) -> bool:
    """Whether each step of a job was done once, in one attempt at rendering."""
    (job,) = await cluster.rows("SELECT request FROM jobs WHERE id = $1", UUID(job_id))
    plan = json.loads(job["request"])
    attempts = await cluster.rows("SELECT 1 FROM attempts WHERE job_id = $1 AND stage = 'rendering'", UUID(job_id))
    steps = ((image, step) for image in range(plan["image_count"]) for step in range(1, plan["step_count"] + 1))
    return len(attempts) == 1 and cluster.steps(job_id) == dict.fromkeys(steps, 1)


async def audit(cluster: Cluster, *, not_completed: Collection[str] = (), patience_s: float = PATIENCE_S) -> None:
    """Wait until all accepted jobs have ended and their webhooks came, then compare all that there is of them.

    These are all that the cluster ever accepted; `not_completed` are those among them that are to have failed or been
    cancelled.
    """
    accepted = cluster.accepted
    await until_ended(cluster, accepted, patience_s)
    jobs = {str(row["id"]): row for row in await cluster.rows("SELECT * FROM jobs")}
    assert set(jobs) == set(accepted), "the jobs in the database are those that were accepted"
    ended_otherwise = {job_id for job_id, job in jobs.items() if job["state"] != "completed"}
    said = {job_id: (jobs[job_id]["state"], jobs[job_id]["error_message"]) for job_id in ended_otherwise}
    assert ended_otherwise == set(not_completed), said
    await _check_order(cluster, jobs)
    await _check_credits(cluster, jobs)
    await _check_outputs(cluster, jobs)
    await _check_webhooks(cluster, jobs, patience_s)


async def _check_order(cluster: Cluster, jobs: dict[str, Any]) -> None:
    """Nothing waits, runs or holds a slot any more; each job has one end, and at most one attempt that made it."""
    assert not await cluster.rows("SELECT * FROM queue")
    assert not await cluster.rows("SELECT * FROM attempts WHERE ended_at IS NULL")
    assert not await cluster.rows("SELECT * FROM renderer_slots WHERE job_id IS NOT NULL")
    assert not await cluster.rows("SELECT * FROM lanes WHERE waiting <> 0")
    ends = Counter(
        str(row["job_id"])
        for row in await cluster.rows(
            "SELECT job_id FROM job_events WHERE milestone AND state = ANY($1::text[])", list(TERMINAL)
        )
    )
    assert ends == Counter(dict.fromkeys(jobs, 1)), "each job has one last event"
    numbers = await cluster.rows(
        "SELECT job_id FROM job_events WHERE milestone GROUP BY job_id, sequence HAVING count(*) > 1"
    )
    assert not numbers, "no number stands for two events"
    rendered = Counter(
        str(row["job_id"])
        for row in await cluster.rows("SELECT job_id FROM attempts WHERE stage = 'rendering' AND outcome = 'completed'")
    )
    completed = [job_id for job_id, job in jobs.items() if job["state"] == "completed"]
    assert rendered == Counter(dict.fromkeys(completed, 1)), "each completed job was rendered to its end once"


async def _check_credits(cluster: Cluster, jobs: dict[str, Any]) -> None:
    """Completed jobs were charged in full, failed ones not at all; accounts say what the ledger does."""
    entries: dict[str, Counter[str]] = {job_id: Counter() for job_id in jobs}
    for row in await cluster.rows("SELECT job_id, entry, amount FROM credit_ledger WHERE job_id IS NOT NULL"):
        entries[str(row["job_id"])][row["entry"]] += row["amount"]
    for job_id, job in jobs.items():
        found, price = entries[job_id], job["credits"]
        assert found["reserve"] == price, (job_id, found)
        assert found["settle"] + found["release"] == price, (job_id, job["state"], found)
        if job["state"] != "cancelled":
            assert found["settle"] == (price if job["state"] == "completed" else 0), (job_id, job["state"], found)
    wrong = await cluster.rows("""
        SELECT a.user_id, a.available, a.reserved, a.open_jobs FROM accounts a JOIN (
          SELECT user_id, sum(CASE entry WHEN 'grant' THEN amount WHEN 'settle' THEN -amount ELSE 0 END) AS left_over
          FROM credit_ledger GROUP BY user_id) l USING (user_id)
        WHERE a.available <> l.left_over OR a.reserved <> 0 OR a.open_jobs <> 0
        """)
    assert not wrong, "accounts say what the ledger does, and nothing is held any more"


async def _check_outputs(cluster: Cluster, jobs: dict[str, Any]) -> None:
    """Each completed job has all its outputs, which open under their URLs and are what was stored."""
    hashes: dict[str, list[bytes]] = {job_id: [] for job_id in jobs}
    for row in await cluster.rows("SELECT job_id, sha256 FROM assets ORDER BY job_id, index"):
        hashes[str(row["job_id"])].append(row["sha256"])
    gateway = next(gateway for gateway in cluster.gateways if gateway.node.runs)
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False, timeout=30) as client:
        for job_id, job in jobs.items():
            if job["state"] != "completed":
                continue
            headers = {"authorization": f"Bearer {token(job['user_id'])}"}
            reply = (await client.get(f"/api/jobs/{job_id}", headers=headers)).raise_for_status().json()
            files = [(await client.get(url)).raise_for_status().content for url in reply["assets"]]
            assert [hashlib.sha256(file).digest() for file in files] == hashes[job_id], reply
            assert len(files) == json.loads(job["request"])["image_count"], reply


async def _check_webhooks(cluster: Cluster, jobs: dict[str, Any], patience_s: float) -> None:
    """Of each job's end the operator was told at least once, always under the one id, and the outbox is empty."""
    receiver = cluster.receiver
    async with asyncio.timeout(patience_s):
        while {body["job_id"] for body in list(receiver.calls.values())} < set(jobs):
            await asyncio.sleep(0.1)
        while await cluster.rows("SELECT 1 FROM webhook_outbox WHERE delivered_at IS NULL LIMIT 1"):
            await asyncio.sleep(0.1)
    told = Counter(body["job_id"] for body in receiver.calls.values())
    assert told == Counter(dict.fromkeys(jobs, 1)), "each job's end has one webhook id"
    assert receiver.refused == []
