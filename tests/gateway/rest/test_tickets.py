"""Tickets for EventSource, with a real database."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import httpx
import pytest
import structlog
from fastapi import FastAPI
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from ourvidz_gateway.database import Database
from ourvidz_gateway.rest import create_rest_app
from ourvidz_gateway.rest.observe import Observed
from ourvidz_serving.tracing import open_provider
from support import fronts
from support.jobs import Bench
from support.memory_jobs import MemoryJobs

UNKNOWN = "0b6f1c9e-6d0c-4a67-9a39-6f1f3a1f0c53"


@pytest.fixture
def app(jobs: MemoryJobs, tmp_path: Path, database: Database) -> FastAPI:
    return create_rest_app(fronts.front(jobs, tmp_path, database, ticket_expiry=timedelta(minutes=5)))


@pytest.fixture
async def stranger(app: FastAPI):
    """A client that has no token, as EventSource."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        yield client


@pytest.fixture
async def job_id(client, jobs) -> UUID:
    """A job that has ended, so that its stream does, too."""
    await client.post("/api/queue-job", json={"jobType": "sdxl_image_fast", "metadata": {"prompt": "a lighthouse"}})
    job_id: UUID = jobs.accepted[-1].id
    jobs.step(job_id, 1)
    jobs.end(job_id)
    return job_id


async def test_a_ticket_opens_its_jobs_events_again_and_again(client, stranger, job_id):
    reply = await client.post(f"/api/jobs/{job_id}/ticket")

    assert reply.status_code == 200
    assert reply.headers["Cache-Control"] == "no-store"
    issued = reply.json()
    parts = urlsplit(issued["url"])
    assert (parts.netloc, parts.path) == ("", f"/api/jobs/{job_id}/events")
    assert parse_qs(parts.query) == {"ticket": [issued["ticket"]]}
    left = datetime.fromisoformat(issued["expires_at"]) - datetime.now(UTC)
    assert timedelta(minutes=4) < left < timedelta(minutes=6)
    first = await stranger.get(issued["url"])
    assert [line for line in first.text.splitlines() if line.startswith("id:")] == ["id: 1", "id: 2", "id: 3"]
    again = await stranger.get(issued["url"], headers={"Last-Event-ID": "2"})
    assert [line for line in again.text.splitlines() if line.startswith("id:")] == ["id: 3"]


async def test_a_ticket_opens_nothing_else(client, stranger, jobs, job_id):
    ticket = (await client.post(f"/api/jobs/{job_id}/ticket")).json()["ticket"]
    await client.post("/api/queue-job", json={"jobType": "sdxl_image_fast", "metadata": {"prompt": "a lighthouse"}})
    other = jobs.accepted[-1].id

    async def tried(method: str, path: str) -> httpx.Response:
        # A stream that opens would not end.
        async with asyncio.timeout(30):
            return await stranger.request(method, path, params={"ticket": ticket})

    tries = [
        await tried(method, path)
        for method, path in [
            ("GET", f"/api/jobs/{other}/events"),
            ("GET", f"/api/jobs/{UNKNOWN}/events"),
            ("GET", f"/api/jobs/{job_id}"),
            ("GET", "/api/jobs"),
            ("POST", f"/api/jobs/{job_id}/cancel"),
            ("POST", f"/api/jobs/{job_id}/ticket"),
        ]
    ]

    assert [(reply.status_code, reply.json()["details"]) for reply in tries] == [(401, "reason=UNAUTHENTICATED")] * 6


@pytest.mark.parametrize("ticket", ["nonsense", "a\0b", "é", "x" * 5000])
async def test_what_is_no_ticket_is_a_401_whatever_else_is_shown(client, job_id, ticket):
    # The client shows a token as well: a ticket that is given has to be one.
    reply = await client.get(f"/api/jobs/{job_id}/events", params={"ticket": ticket})

    assert (reply.status_code, reply.headers["WWW-Authenticate"]) == (401, "Bearer")


async def test_an_expired_ticket_is_a_401_and_a_new_one_goes_on(client, stranger, database, job_id):
    old = (await client.post(f"/api/jobs/{job_id}/ticket")).json()["url"]
    await database.execute("UPDATE stream_tickets SET expires_at = now()")

    assert (await stranger.get(old)).status_code == 401
    new = (await client.post(f"/api/jobs/{job_id}/ticket")).json()["url"]
    assert new != old
    assert (await stranger.get(new)).status_code == 200


async def test_another_users_job_gets_no_ticket(client, job_id, bench: Bench):
    bob = {"Authorization": f"Bearer {fronts.token('bob')}"}

    replies = [await client.post(f"/api/jobs/{each}/ticket", headers=bob) for each in (job_id, UNKNOWN, "nonsense")]

    assert [reply.status_code for reply in replies] == [404, 404, 404]
    assert replies[0].json()["error"] == f"There is no job {job_id}."
    assert await bench.value("SELECT count(*) FROM stream_tickets") == 0


async def test_a_ticket_is_stored_as_a_hash_and_in_no_log_and_no_trace(app, job_id, client, bench: Bench):
    exporter, provider = InMemorySpanExporter(), open_provider("gateway")
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    observed = Observed(app, registry=CollectorRegistry(), traces=provider)
    issued = (await client.post(f"/api/jobs/{job_id}/ticket")).json()
    with structlog.testing.capture_logs() as lines:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(observed), base_url="http://gateway") as browser:
            assert (await browser.get(issued["url"])).status_code == 200
            assert (await browser.get(f"{issued['url']}x")).status_code == 401

    assert [(line["route"], line["status"]) for line in lines] == [
        ("/api/jobs/{job_id}/events", 200),
        ("/api/jobs/{job_id}/events", 401),
    ]
    stored = await bench.value("SELECT string_agg(t::text, ' ') FROM stream_tickets t")
    traced = [span.to_json() for span in exporter.get_finished_spans()]
    assert len(traced) == 2
    assert not [text for text in (*map(str, lines), *traced, stored) if issued["ticket"] in text]


async def test_two_ways_in_are_described(client):
    schema = (await client.get("/openapi.json")).json()

    assert schema["paths"]["/api/jobs/{job_id}/events"]["get"]["security"] == [{"token": []}, {"ticket": []}]
    assert schema["paths"]["/api/jobs/{job_id}/ticket"]["post"]["security"] == [{"token": []}]
    assert schema["components"]["securitySchemes"]["ticket"]["in"] == "query"
