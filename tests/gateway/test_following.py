"""Following a job across gateways: replayed where another stopped, with previews, whichever of them renders it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest

from contract.world import BUCKETS, World, open_world
from ourvidz.api.jobs.v1 import jobs_pb2, jobs_pb2_grpc
from support import fronts
from support.renderer import Renderer, serving

ALICE = f"Bearer {fronts.token('alice')}"
SIGNED = (("authorization", ALICE),)


@pytest.fixture
async def renderer(tmp_path) -> AsyncIterator[Renderer]:
    async with serving(tmp_path, buckets=BUCKETS) as renderer:
        await renderer.ready()
        yield renderer


@pytest.fixture
async def two(dsn: str, renderer: Renderer) -> AsyncIterator[tuple[World, World]]:
    """A gateway that renders, and one that reaches no renderer."""
    async with AsyncExitStack() as stack:
        runner = await stack.enter_async_context(open_world(dsn, renderer))
        blind = await stack.enter_async_context(open_world(dsn, renderer, renderers_sdxl="127.0.0.1:1"))
        yield runner, blind


async def ask(world: World, prompt: str) -> str:
    """Ask for a picture of two steps; return the job's id."""
    async with world.http(ALICE) as client:
        body = {"jobType": "sdxl_image_fast", "metadata": {"prompt": prompt}}
        reply = await client.post("/api/queue-job", json=body)
        return str(reply.raise_for_status().json()["job"]["id"])


Events = AsyncIterator[tuple[int, dict[str, Any]]]


@asynccontextmanager
async def over_rest(world: World, job_id: str, *, after: int = 0, preview: bool = False) -> AsyncIterator[Events]:
    """The numbers of a job's events, 0 for a preview, and what they say."""
    headers = {"Last-Event-ID": str(after)}
    path = f"/api/jobs/{job_id}/events"

    async def events(reply: httpx.Response) -> Events:
        number = 0
        async for line in reply.aiter_lines():
            name, _, value = line.partition(": ")
            if name == "id":
                number = int(value)
            elif name == "data":
                yield number, json.loads(value)
                number = 0

    async with (
        world.http(ALICE) as client,
        client.stream("GET", path, headers=headers, params={"preview": preview}) as reply,
    ):
        yield events(reply)


@asynccontextmanager
async def over_grpc(world: World, job_id: str, *, after: int = 0, preview: bool = False) -> AsyncIterator[Events]:
    """The same over gRPC."""
    request = jobs_pb2.WatchJobRequest(job_id=job_id, resume_from=after, previews=preview)

    async def events(call: Any) -> Events:
        async for message in call:
            state = jobs_pb2.JobState.Name(message.state).removeprefix("JOB_STATE_").lower()
            yield message.sequence, {"status": state, "jpeg": message.preview_jpeg}

    async with world.channel() as channel:
        yield events(jobs_pb2_grpc.JobServiceStub(channel).WatchJob(request, metadata=SIGNED))


@pytest.mark.parametrize("follow", [over_rest, over_grpc])
async def test_a_stream_ends_when_its_gateway_drains_and_goes_on_at_another(two, renderer: Renderer, follow):
    leaving, staying = two
    job_id = await ask(leaving, "hold:0:2")
    await renderer.gate.held()
    async with asyncio.timeout(60), follow(leaving, job_id) as events:
        seen = [await anext(events) for _ in range(3)]
        leaving.gateway.drain()
        leaving.gateway.close_watches()
        seen += [event async for event in events]
    assert seen[-1][1]["status"] == "processing"
    # One that asks the leaving gateway again is sent away at once, to ask elsewhere.
    async with asyncio.timeout(60), follow(leaving, job_id, after=seen[-1][0]) as events:
        assert [event async for event in events] == []

    async with asyncio.timeout(60), follow(staying, job_id, after=seen[-1][0]) as events:
        renderer.gate.release()
        seen += [event async for event in events]

    assert [number for number, _ in seen] == list(range(1, len(seen) + 1))
    assert seen[-1][1]["status"] == "completed"


async def test_one_who_asks_a_draining_gateway_is_not_told_that_there_is_no_more_to_see(two, renderer: Renderer):
    leaving, staying = two
    job_id = await ask(leaving, "a fox")
    async with asyncio.timeout(60), over_rest(leaving, job_id) as events:
        last = [number async for number, _ in events][-1]
    leaving.gateway.drain()
    leaving.gateway.close_watches()

    async def answered(world: World, after: int) -> tuple[int, str]:
        async with world.http(ALICE) as client:
            reply = await client.get(f"/api/jobs/{job_id}/events", headers={"Last-Event-ID": str(after)})
            return reply.status_code, reply.text

    # EventSource asks again after a stream that ends, and never after a 204.
    assert await answered(leaving, last - 1) == (200, "")
    assert f"id: {last}" in (await answered(staying, last - 1))[1]
    assert [await answered(world, last) for world in two] == [(204, "")] * 2


@pytest.mark.parametrize("follow", [over_rest, over_grpc])
async def test_previews_reach_whoever_asks_at_whichever_gateway(two, renderer: Renderer, follow):
    job_id = await ask(two[0], "hold:0:2")
    await renderer.gate.held()

    async def watch(world: World) -> tuple[list[int], dict[str, Any]]:
        async with asyncio.timeout(60), follow(world, job_id, preview=True) as events:
            numbers = []
            async for number, said in events:
                if number == 0 and said["jpeg"]:
                    return numbers, said
                numbers.append(number)
        raise AssertionError("no preview came")

    here, there = await asyncio.gather(watch(two[0]), watch(two[1]))
    async with asyncio.timeout(60), follow(two[1], job_id, after=3, preview=True) as events:
        renderer.gate.release()
        rest = [number async for number, _ in events]

    # Two states, and perhaps the step that the picture shows, which is stored in its own time.
    assert [1, 2] == here[0][:2] == there[0][:2]
    assert here[1]["jpeg"] == there[1]["jpeg"]
    # Whatever previews came in between: the numbers go on, and the last says how the job ended.
    assert [number for number in rest if number] == [4, 5, 6]
    assert rest[-1] == 6


async def test_one_who_waits_is_answered_when_the_gateway_drains(two, renderer: Renderer):
    leaving, staying = two
    async with leaving.http(ALICE) as client, staying.http(ALICE) as other:
        body = {"jobType": "sdxl_image_fast", "metadata": {"prompt": "hold:0:2"}}
        keyed = {"Prefer": "wait=50", "Idempotency-Key": "k"}
        asking = asyncio.create_task(client.post("/api/queue-job", json=body, headers=keyed))
        await renderer.gate.held()
        leaving.gateway.drain()
        leaving.gateway.close_watches()
        left = (await asking).json()["job"]

        asking = asyncio.create_task(other.post("/api/queue-job", json=body, headers=keyed))
        renderer.gate.release()
        ended = (await asking).json()["job"]

    assert (left["status"], ended["status"], ended["id"]) == ("processing", "completed", left["id"])
    assert len(ended["assets"]) == 1


async def test_a_client_that_goes_away_while_it_waits_does_not_cancel_its_job(two, renderer: Renderer):
    async with two[0].http(ALICE) as client:
        body = {"jobType": "sdxl_image_fast", "metadata": {"prompt": "hold:0:1"}}
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/api/queue-job", json=body, headers={"Prefer": "wait=50"}, timeout=0.5)
        await renderer.gate.held()
        renderer.gate.release()
        [job] = (await client.get("/api/jobs")).json()["jobs"]
        async with asyncio.timeout(60), over_rest(two[0], job["id"]) as events:
            *_, (_, last) = [event async for event in events]

    assert last["status"] == "completed"
