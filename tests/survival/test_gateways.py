"""What becomes of jobs when gateways die."""

from __future__ import annotations

from support.cluster.audit import audit
from support.cluster.cluster import Cluster


async def test_nothing_breaks(cluster: Cluster):
    ids = [
        await cluster.gateways[n % 2].ask("a fox pace:5", job_type=job_type)
        for job_type in ("picture", "clip", "enhanced_clip")
        for n in range(3)
    ]
    await audit(cluster, ids)
    assert set(cluster.steps(ids[0]).values()) == {1}
