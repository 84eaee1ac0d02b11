"""Many watchers of one job, and watchers that stop reading: nobody else pays for them."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import grpc
import httpx
import psutil

from ourvidz.api.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from ourvidz.api.render.v1 import render_pb2, render_pb2_grpc
from support.cluster.audit import audit, until_ended
from support.cluster.cluster import SERVICE_TOKEN, Cluster, Gateway
from support.cluster.nodes import Node
from support.cluster.sse import numbered
from support.fronts import token

WATCHERS = 1000
SERIES = (6, 150)
"""How many images a series has, and each of them steps."""
STALLED = 8
"""Of either kind."""
RECEIVE_BUFFER_BYTES = 16_384
PATIENCE_S = 60
"""For what would never come if somebody waited for those who do not read."""
MAX_GROWTH_BYTES = 18 * 2**20
"""Enough for a server that does its work; all previews of a series are more, even if they are kept but once."""

Watch = grpc.aio.UnaryStreamCall[jobs_pb2.WatchJobRequest, jobs_pb2.WatchJobResponse]


@asynccontextmanager
async def rpc_watches(
    gateway: Gateway, job_id: str, count: int, *, previews: bool = False
) -> AsyncIterator[list[Watch]]:
    """Watch a job so many times over gRPC; nothing is read yet."""
    async with grpc.aio.insecure_channel(gateway.node.address) as channel:
        stub = jobs_pb2_grpc.JobServiceStub(channel)
        metadata = [("authorization", f"Bearer {token()}")]
        request = jobs_pb2.WatchJobRequest(job_id=job_id, previews=previews)
        watches = [stub.WatchJob(request, metadata=metadata) for _ in range(count)]
        yield watches
        for watch in watches:
            watch.cancel()


async def read_rpc(watch: Watch) -> tuple[list[int], bool]:
    """Read to the end; return the numbers of all events, and whether the job has completed."""
    events = [event async for event in watch if event.sequence]
    return [event.sequence for event in events], events[-1].state == jobs_pb2.JOB_STATE_COMPLETED


async def read_sse(http: httpx.AsyncClient, job_id: str) -> tuple[list[int], bool]:
    """The same over SSE."""
    async with http.stream("GET", f"/api/jobs/{job_id}/events", timeout=PATIENCE_S) as reply:
        events = [event async for event in numbered(reply)]
    return [event["sequence"] for event in events], events[-1]["status"] == "completed"


async def took(cluster: Cluster, job_id: str) -> timedelta:
    """How long a job's steps took, from the first to the one before the last, by the database's clock."""
    (row,) = await cluster.rows(
        "SELECT max(created_at) - min(created_at) AS took FROM job_events WHERE job_id = $1 AND step < step_count",
        UUID(job_id),
    )
    span: timedelta = row["took"]
    return span


async def test_a_thousand_watchers_of_a_job_see_it_all_and_slow_nothing(cluster: Cluster):
    # They take both renderers, so that half of the watchers are there before the job begins.
    unwatched = [await cluster.ask(cluster.gateways[0], "a fox pace:250") for _ in cluster.sdxl]
    for job_id in unwatched:
        await cluster.until_running(job_id)
    all_came = cluster.folder / "all-came"
    job_id = await cluster.ask(cluster.gateways[0], f"a fox pace:250 wait-for:{all_came}")
    reading: list[asyncio.Task[tuple[list[int], bool]]] = []
    async with AsyncExitStack() as stack:

        async def come(gateway: Gateway, count: int) -> None:
            headers = {"authorization": f"Bearer {token()}"}
            # Unlike clients that ask now and then, it has no limit of connections.
            http = httpx.AsyncClient(base_url=gateway.url, headers=headers, trust_env=False, limits=httpx.Limits())
            await stack.enter_async_context(http)
            reading.extend(asyncio.create_task(read_sse(http, job_id)) for _ in range(count // 2))
            watches = await stack.enter_async_context(rpc_watches(gateway, job_id, count // 2))
            reading.extend(asyncio.create_task(read_rpc(watch)) for watch in watches)

        for gateway in cluster.gateways:
            await come(gateway, WATCHERS // 4)
        await cluster.until_running(job_id, steps=1)
        for gateway in cluster.gateways:
            await come(gateway, WATCHERS // 4)

        for gateway in cluster.gateways:
            async with gateway.http() as http:
                (await http.get("/healthz")).raise_for_status()
            await cluster.ask(gateway, "a hare", user="bob")

        # They were answered while there was something to watch.
        assert not any(task.done() for task in reading)
        all_came.touch()
        async with asyncio.timeout(PATIENCE_S):
            seen = await asyncio.gather(*reading)

    (row,) = await cluster.rows("SELECT max(sequence) AS last FROM job_events WHERE job_id = $1", UUID(job_id))
    assert len(seen) == WATCHERS
    assert {(tuple(numbers), completed) for numbers, completed in seen} == {(tuple(range(1, row["last"] + 1)), True)}
    assert set(cluster.steps(job_id).values()) == {1}
    await audit(cluster)
    assert await took(cluster, job_id) < 1.5 * max([await took(cluster, each) for each in unwatched])


def stall_sse(gateway: Gateway, job_id: str) -> socket.socket:
    """Ask for a job's events and previews over SSE, and read nothing."""
    connection = socket.socket()
    # Before it connects: what the kernel takes in is not held by the server.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    connection.connect((host, int(port)))
    headers = f"Host: {host}\r\nAuthorization: Bearer {token()}\r\nConnection: close"
    connection.sendall(f"GET /api/jobs/{job_id}/events?preview=true HTTP/1.1\r\n{headers}\r\n\r\n".encode())
    return connection


def read_stalled(connection: socket.socket) -> tuple[list[dict[str, Any]], int]:
    """Read a stream that was left alone to its end; return its numbered events and its size in bytes."""
    connection.settimeout(30)
    with connection, connection.makefile("rb") as stream:
        lines = list(stream)
    events = [json.loads(line.removeprefix(b"data: ")) for line in lines if line.startswith(b"data: ")]
    return [event for event in events if "sequence" in event], sum(map(len, lines))


def memory(node: Node) -> int:
    """What a server's process takes of the machine's memory, in bytes."""
    return int(psutil.Process(node.process.pid).memory_info().rss)


async def test_watchers_that_stop_reading_neither_slow_a_render_nor_fill_its_gateway(cluster: Cluster):
    images, steps = SERIES
    for gateway in cluster.gateways:
        await cluster.ask(gateway, "a fox noisy", job_type="picture")
    await until_ended(cluster, cluster.accepted)
    job_id = await cluster.ask(cluster.gateways[0], "a fox noisy pace:2", job_type="series", num_images=images)
    run = await cluster.until_running(job_id, steps=1)
    assert run.owner
    before = memory(run.owner.node)
    async with AsyncExitStack() as stack:
        stalled_rpc = await stack.enter_async_context(rpc_watches(run.owner, job_id, STALLED, previews=True))
        stalled_sse = [stall_sse(run.owner, job_id) for _ in range(STALLED)]
        [reading] = await stack.enter_async_context(rpc_watches(run.owner, job_id, 1, previews=True))

        async with asyncio.timeout(PATIENCE_S):
            updates = [update async for update in reading]

        # The render went on to its end, and who reads saw all of it, while the others had not read a word.
        growth = memory(run.owner.node) - before
        events = [update for update in updates if update.sequence]
        previews = [update.preview_jpeg for update in updates if update.preview_jpeg]
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert sum(event.HasField("step") for event in events) == images * steps
        all_of_it = images * steps * len(max(previews, key=len))
        assert all_of_it > 1.5 * MAX_GROWTH_BYTES
        assert growth < MAX_GROWTH_BYTES
        # When they read at last, they get each event once; most previews they were spared.
        for connection in stalled_sse:
            late, size = await asyncio.to_thread(read_stalled, connection)
            assert [event["sequence"] for event in late] == list(range(1, len(events) + 1))
            assert late[-1]["status"] == "completed"
            assert size < all_of_it / 2
        for watch in stalled_rpc:
            assert await read_rpc(watch) == (list(range(1, len(events) + 1)), True)
    await audit(cluster)


async def test_followers_that_stop_reading_neither_slow_a_render_nor_fill_its_renderer(cluster: Cluster):
    images, steps = SERIES
    node = cluster.sdxl[0]
    sampling = render_pb2.Sampling(prompt="a fox noisy pace:2", step_count=steps, guidance_scale=5, seed=1)
    request = render_pb2.RenderRequest(
        render_id="a-render-of-nobody/1",
        images=render_pb2.ImageBatch(sampling=sampling, width_px=64, height_px=48, image_count=images),
        output=render_pb2.OutputLocation(bucket="pictures", prefix="nobody/a-render-of-nobody/1"),
        previews=True,
    )
    metadata = [("authorization", f"Bearer {SERVICE_TOKEN}")]
    async with (
        grpc.aio.insecure_channel(node.address) as channel,
        # A connection of its own, so that it does not share the others' flow control.
        grpc.aio.insecure_channel(node.address, options=[("grpc.use_local_subchannel_pool", 1)]) as own_channel,
    ):
        reading = render_pb2_grpc.RenderServiceStub(own_channel).Render(request, metadata=metadata)
        updates = []
        async for update in reading:
            updates.append(update)
            if update.HasField("step"):
                break
        before = memory(node)
        stub = render_pb2_grpc.RenderServiceStub(channel)
        stalled = [stub.Render(request, metadata=metadata) for _ in range(2 * STALLED)]

        async with asyncio.timeout(PATIENCE_S):
            updates += [update async for update in reading]

        growth = memory(node) - before
        events = [update for update in updates if update.index]
        assert [event.index for event in events] == list(range(1, len(events) + 1))
        assert sum(event.HasField("step") for event in events) == images * steps
        all_of_it = images * steps * max(len(update.preview.jpeg) for update in updates)
        assert all_of_it > 1.5 * MAX_GROWTH_BYTES
        assert growth < MAX_GROWTH_BYTES
        for follower in stalled:
            late = [update async for update in follower]
            assert [update.index for update in late if update.index] == list(range(1, len(events) + 1))
            assert late[-1].HasField("finished")
            assert sum(len(update.preview.jpeg) for update in late) < all_of_it / 2
