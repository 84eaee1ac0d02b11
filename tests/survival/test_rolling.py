"""A rolling update: each server in turn is told to leave and started again, while jobs keep coming."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from uuid import UUID

import pytest

from support.cluster.audit import audit
from support.cluster.cluster import Cluster, running_cluster
from support.cluster.load import ask_until_accepted, under_load
from support.cluster.nodes import Node
from support.postgres import Postgres

GRACE_S = 5.0
SLACK_S = 10.0
"""For whatever else runs on the machine, beside the grace that is promised."""


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("rolling")
    with postgres.database() as dsn, running_cluster(folder, dsn, drain_grace_s=GRACE_S) as cluster:
        yield cluster


async def renew(node: Node) -> None:
    """Tell a server to leave, and start it again once it has left, in its time and well."""
    told_at = time.monotonic()
    node.terminate()
    await asyncio.to_thread(node.wait_ended)
    assert time.monotonic() - told_at < GRACE_S + SLACK_S
    await asyncio.to_thread(node.start)


async def test_a_rolling_update_fails_no_job_and_loses_no_event(cluster: Cluster):
    async with under_load(cluster) as load:
        # Jobs that take longer than any server has to leave are handed back.
        long = [await ask_until_accepted(cluster, "a fox pace:900", job_type=each) for each in ("clip", "picture")]
        for job_id in long:
            await cluster.until_running(job_id, steps=1)
        for node in [*cluster.wan, *cluster.sdxl, *cluster.enhancers, *(each.node for each in cluster.gateways)]:
            await renew(node)

    assert len(load.events) > len(cluster.nodes)
    for events in load.events.values():
        assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
        assert events[-1]["status"] == "completed"
    await audit(cluster)
    assert not await cluster.rows("SELECT id, failures FROM jobs WHERE failures > 0")
    handed_back = await cluster.rows(
        "SELECT DISTINCT job_id FROM attempts WHERE outcome = 'handed_back' AND job_id = ANY($1::uuid[])",
        [UUID(job_id) for job_id in long],
    )
    assert len(handed_back) == len(long)
