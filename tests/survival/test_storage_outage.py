"""Object storage goes away for a minute: what is finished is kept until it is back, and nothing is rendered twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from ourvidz.api.render.v1 import render_pb2, render_pb2_grpc
from ourvidz_serving.channel import open_channel
from support.cluster.audit import audit, rendered_once, until_ended
from support.cluster.cluster import SERVICE_TOKEN, Cluster, Gateway, running_cluster
from support.cluster.nodes import Node
from support.line import Line, open_line
from support.pictures import file_of, halves
from support.postgres import Postgres
from support.s3 import S3Server

OUTAGE_S = 60.0
ANSWER_S = 20.0
"""An upload is refused within this time, however silent the storage is: 5 s to connect, 10 s of silence, and some to spare."""
PROMPT_S = 5.0
"""What needs no storage answers within this time."""
STEPS = 20
"""Of each job type."""
READY = (200, False)


@pytest.fixture(scope="module")
def storage_line(s3_server: S3Server) -> Iterator[Line]:
    """The only way to the storage."""
    address = urlsplit(s3_server.endpoint)
    with open_line((str(address.hostname), address.port or 80)) as line:
        yield line


@pytest.fixture(scope="module")
def shared_cluster(
    tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, s3_server: S3Server, storage_line: Line
) -> Iterator[Cluster]:
    """The usual cluster, on a real S3 server."""
    storage = {
        "KIND": "s3",
        "ENDPOINT": f"http://127.0.0.1:{storage_line.port}",
        "ACCESS_KEY": s3_server.access_key,
        "SECRET_KEY": s3_server.secret_key,
        "REGION": s3_server.region,
    }
    folder = tmp_path_factory.mktemp("cluster")
    with postgres.database() as dsn, running_cluster(folder, dsn, storage=storage) as cluster:
        yield cluster


async def busy_slots(renderer: Node) -> int:
    """Ask a renderer how many of its slots are taken."""
    async with open_channel(renderer.address, service_token=SERVICE_TOKEN) as channel:
        stub = render_pb2_grpc.RenderServiceStub(channel)
        return (await stub.GetRenderer(render_pb2.GetRendererRequest(), timeout=PROMPT_S)).busy_slot_count


async def job_at(gateway: Gateway, job_id: str) -> dict[str, Any]:
    """Return what a job's user sees of it."""
    async with gateway.http() as http:
        reply = await http.get(f"/api/jobs/{job_id}", timeout=PROMPT_S)
    job: dict[str, Any] = reply.raise_for_status().json()
    return job


async def upload(gateway: Gateway) -> httpx.Response:
    """Upload a reference picture."""
    async with gateway.http() as http:
        return await http.post("/api/upload-reference", files={"file": file_of(halves())}, timeout=ANSWER_S)


async def check_outage(cluster: Cluster, finished_job: str, until: float) -> None:
    """See, to that moment, that uploads are refused, and that all that needs no storage goes on as ever."""
    refused = await upload(cluster.gateways[0])
    assert (refused.status_code, refused.json()["details"]) == (503, "reason=STORAGE_UNAVAILABLE")
    assert "retry-after" in refused.headers
    while time.monotonic() < until:
        for gateway in cluster.gateways:
            assert await gateway.probe("/readyz") == READY
            assert len((await job_at(gateway, finished_job))["assets"]) == 1, "URLs are signed without asking"
        await asyncio.sleep(1)


async def test_nothing_is_rendered_twice_and_nothing_fails_while_storage_is_away_for_a_minute(
    cluster: Cluster, storage_line: Line
):
    first, second = cluster.gateways
    finished = await cluster.ask(first, "a fox")
    await until_ended(cluster, [finished])
    # One is rendered when it begins; other renderers are free and are given something to do.
    rendering = await cluster.ask(first, "a fox pace:100", num_images=3)
    await cluster.until_running(rendering, steps=1)

    storage_line.refuse()
    gone_at = time.monotonic()
    later = [
        await cluster.ask(second, "a hare", num_images=3),
        await cluster.ask(second, "a hare", user="bob"),
        await cluster.ask(second, "a hare", job_type="clip"),
        await cluster.ask(first, "a hare", job_type="enhanced_clip"),
    ]
    async with asyncio.timeout(OUTAGE_S / 2):
        while (await job_at(second, rendering))["stage"] != "uploading":
            await asyncio.sleep(0.1)
    assert cluster.steps(rendering).total() == 3 * STEPS
    run = await cluster.running(rendering)
    assert run
    assert await busy_slots(cluster.renderer(run.address)) == 0, "its GPU is free while its pictures wait"
    await check_outage(cluster, finished, gone_at + OUTAGE_S / 2)
    storage_line.stall()
    await check_outage(cluster, finished, gone_at + OUTAGE_S)
    assert not [job_id for job_id in later if cluster.steps(job_id)], "nothing begins that could not be stored"
    storage_line.flow()

    await audit(cluster)
    assert await rendered_once(cluster, rendering)
    for job_id in later:
        # They were handed back meanwhile, and none of that counts.
        assert set(cluster.steps(job_id).values()) == {1}
    assert (await upload(first)).status_code == 200
