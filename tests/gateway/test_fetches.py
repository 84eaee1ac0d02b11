"""Jobs with references from elsewhere: a gateway fetches them, and a renderer gets what is stored."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest
from PIL import Image

from ourvidz_gateway import fetches
from ourvidz_gateway.gateway import Gateway
from ourvidz_gateway.jobs import JobStage, JobState, Kind, NewJob
from ourvidz_gateway.sessions import fetch_address
from support.jobs import Bench, ended, events_of, painted_job
from support.renderer import Renderer
from support.web_host import WebHost, page, web_host

Open = Callable[..., AbstractAsyncContextManager[Gateway]]

COLOUR = (0, 128, 128)


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), COLOUR).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
async def host() -> AsyncIterator[WebHost]:
    """A host with one picture."""
    async with web_host() as host:
        host.pages["/cat.png"] = page(picture())
        yield host


@pytest.fixture
def open_fetching(host: WebHost, open_one: Open) -> Open:
    """Open a gateway that may fetch from the host."""
    return lambda **values: open_one(reference_hosts=host.host, allow_private_fetch=True, **values)


@pytest.fixture
async def gateway(database, open_fetching: Open) -> AsyncIterator[Gateway]:
    async with open_fetching() as gateway:
        yield gateway


def following_job(url: str) -> NewJob:
    """A job whose engine paints the reference itself."""
    reference = {"role": "image", "url": url, "own_id": None, "stored": None}
    return replace(painted_job(prompt="echo", references=[reference]), kind=Kind.FETCHER)


def held_page(asked: asyncio.Event, let_go: asyncio.Event):
    async def write(writer: asyncio.StreamWriter) -> None:
        asked.set()
        await let_go.wait()
        writer.write(page(picture()))

    return write


async def accept(bench: Bench, job: NewJob) -> None:
    await bench.queue.accept(job, renderer=Kind.SDXL, stages=[JobStage.FETCHING, JobStage.RENDERING], cost=1)


async def reached(event: asyncio.Event) -> None:
    async with asyncio.timeout(30):
        await event.wait()


async def test_a_reference_is_fetched_once_and_then_rendered(
    gateway: Gateway, host: WebHost, renderer: Renderer, bench: Bench
):
    job = following_job(host.url())
    accepted = await gateway.accept(job)
    events = await events_of(gateway, job.id)

    assert accepted.queue_length == 1
    assert [event.stage for event in events if not event.step] == [
        JobStage.QUEUED,
        JobStage.FETCHING,
        JobStage.QUEUED,
        JobStage.RENDERING,
        JobStage.UPLOADING,
        None,
    ]
    assert len(host.asked) == 1
    done = await gateway.get("alice", job.id)
    assert done.metadata["reference_engine"] == "echo"
    assert done.warnings == ["painted, not rendered"]
    painted = Image.open(io.BytesIO(await renderer.store.get(done.assets[0].bucket, done.assets[0].key)))
    assert painted.getpixel((32, 24)) == COLOUR
    assert await bench.value("SELECT count(*) FROM renderer_slots WHERE job_id IS NOT NULL") == 0
    assert await bench.lanes_agree_with_queue()


async def test_a_reference_that_can_not_be_had_is_a_warning(gateway: Gateway, host: WebHost):
    job = following_job(host.url("/gone.png"))
    job.request["prompt"] = "a fox"
    await gateway.accept(job)

    assert (await ended(gateway, job.id)).state == JobState.COMPLETED
    warnings = (await gateway.get("alice", job.id)).warnings
    assert len(warnings) == 2
    assert "could not be fetched" in warnings[0]


async def test_storage_that_is_away_costs_no_attempt(
    gateway: Gateway, host: WebHost, renderer: Renderer, bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fetches, "OUTAGE_DELAY_S", 0.05)
    renderer.store.down = True
    job = following_job(host.url())
    await gateway.accept(job)
    await bench.until("count(*) >= 2 FROM attempts WHERE reason = 'STORAGE_UNAVAILABLE'")
    renderer.store.down = False

    assert (await ended(gateway, job.id)).state == JobState.COMPLETED
    assert await bench.value("SELECT failures FROM jobs") == 0


async def test_a_cancel_stops_a_fetch(gateway: Gateway, host: WebHost, bench: Bench):
    asked, never = asyncio.Event(), asyncio.Event()
    host.pages["/cat.png"] = held_page(asked, never)
    job = following_job(host.url())
    await gateway.accept(job)
    await reached(asked)

    await gateway.cancel("alice", job.id)

    assert (await ended(gateway, job.id)).state == JobState.CANCELLED
    assert await bench.value("SELECT count(*) FROM attempts") == 1


async def test_what_a_gateway_was_fetching_when_it_died_is_fetched_by_the_next(
    database, bench: Bench, host: WebHost, open_fetching: Open
):
    dead = await bench.add_session()
    job = following_job(host.url())
    await accept(bench, job)
    await bench.add_slots(address=fetch_address(dead), kind=Kind.FETCHER)
    assert await bench.queue.claim(Kind.FETCHER, [fetch_address(dead)], dead)
    await database.execute("UPDATE gateway_sessions SET lease_until = now() - interval '1 second'")

    async with open_fetching() as successor:
        assert (await ended(successor, job.id)).state == JobState.COMPLETED
        assert await bench.value("SELECT count(*) FROM renderer_slots WHERE address = $1", fetch_address(dead)) == 0

    assert await bench.value("SELECT array_agg(outcome ORDER BY attempt) FROM attempts") == ["completed", "completed"]


async def test_a_gateway_that_drains_claims_nothing_and_others_do(database, bench: Bench, host: WebHost, open_fetching):
    async with open_fetching() as leaving, open_fetching() as staying:
        leaving.drain()
        jobs = [following_job(host.url()), painted_job()]
        for job in jobs:
            await leaving.accept(job)
        for job in jobs:
            assert (await ended(staying, job.id)).state == JobState.COMPLETED
        assert await bench.value("SELECT count(DISTINCT session_id) FROM attempts") == 1
        assert await bench.value("SELECT count(*) FROM renderer_slots WHERE kind = 'fetcher'") == 16
