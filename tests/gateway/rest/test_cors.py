"""Pages of other origins that call the REST API."""

from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from ourvidz_gateway.errors import QueueFull
from ourvidz_gateway.rest import create_rest_app
from support import fronts
from support.memory_jobs import MemoryJobs

PAGE = "https://app.example.com"
STRANGER = "https://evil.example.com"
SDXL = {"jobType": "sdxl_image_fast", "metadata": {"prompt": "a lighthouse"}}


@pytest.fixture
def app(jobs: MemoryJobs, tmp_path: Path) -> FastAPI:
    return create_rest_app(fronts.front(jobs, tmp_path, cors_origins=f"{PAGE},http://localhost:5173"))


def lets_in(reply: httpx.Response) -> bool:
    assert "Access-Control-Allow-Credentials" not in reply.headers
    assert "Origin" in reply.headers["Vary"]
    return reply.headers.get("Access-Control-Allow-Origin") == PAGE


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_a_page_may_ask_first_whether_it_may_call(client, method):
    asked = {
        "Origin": PAGE,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,content-type,idempotency-key,last-event-id,prefer",
    }

    reply = await client.options("/api/jobs", headers=asked)
    refused = await client.options("/api/jobs", headers={**asked, "Origin": STRANGER})

    assert (reply.status_code, lets_in(reply)) == (200, True)
    assert method in reply.headers["Access-Control-Allow-Methods"].split(", ")
    assert (refused.status_code, lets_in(refused)) == (400, False)


@pytest.mark.parametrize("header", ["X-Other", "Cookie"])
async def test_a_page_may_not_send_what_means_nothing_here(client, header):
    reply = await client.options(
        "/api/jobs",
        headers={"Origin": PAGE, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": header},
    )

    assert reply.status_code == 400


async def test_a_page_reads_replies_and_when_to_ask_again(client, jobs):
    reply = await client.post("/api/queue-job", json=SDXL, headers={"Origin": PAGE, "Prefer": "wait=0"})
    assert (reply.status_code, lets_in(reply)) == (200, True)
    assert reply.headers["Access-Control-Expose-Headers"] == "Retry-After, Preference-Applied"

    with jobs.failing(QueueFull("1000 jobs wait already.", retry_after_s=9)):
        full = await client.post("/api/queue-job", json=SDXL, headers={"Origin": PAGE})
    assert (full.status_code, full.headers["Retry-After"], lets_in(full)) == (503, "9", True)


async def test_a_page_reads_errors_of_every_kind(client, jobs):
    async def called(method: str, path: str, **more) -> tuple[int, bool]:
        reply = await client.request(method, path, **{"headers": {"Origin": PAGE}, **more})
        assert reply.json()["success"] is False
        return reply.status_code, lets_in(reply)

    unsigned = {"Origin": PAGE, "Authorization": "Bearer nonsense"}
    assert await called("GET", "/api/jobs", headers=unsigned) == (401, True)
    assert await called("GET", "/no/such/page") == (404, True)
    assert await called("PUT", "/api/jobs") == (405, True)
    assert await called("GET", "/api/jobs", params={"page_size": 0}) == (400, True)
    assert await called("POST", "/api/queue-job", content=b" " * (2**20 + 1)) == (413, True)
    with jobs.failing(KeyError("unforeseen")):
        assert await called("GET", "/api/jobs") == (500, True)


async def test_a_page_follows_events_and_fetches_pictures(client, app, jobs):
    job_id = (await client.post("/api/queue-job", json=SDXL)).json()["job"]["id"]
    jobs.end(jobs.accepted[0].id, outputs=1)
    [asset] = (await jobs.get("alice", jobs.accepted[0].id)).assets
    await app.state.front.store.put(asset.bucket, asset.key, b"a picture", content_type="image/png")
    [url] = (await client.get(f"/api/jobs/{job_id}")).json()["assets"]

    events = await client.get(f"/api/jobs/{job_id}/events", headers={"Origin": PAGE})
    picture = await client.get(url.removeprefix(fronts.PUBLIC_URL), headers={"Origin": PAGE})
    part = await client.get(url.removeprefix(fronts.PUBLIC_URL), headers={"Origin": PAGE, "Range": "bytes=0-3"})
    gone = await client.get("/objects/pictures/none?token=x", headers={"Origin": PAGE})

    replies = (events, picture, part, gone)
    assert [(reply.status_code, lets_in(reply)) for reply in replies] == [
        (200, True),
        (200, True),
        (206, True),
        (403, True),
    ]
    assert picture.content == b"a picture"


@pytest.mark.parametrize(
    "origin", [STRANGER, "null", f"{PAGE}.evil.example.com", f"{PAGE}:8443", PAGE.replace("https", "http")]
)
async def test_no_other_origin_is_let_in(client, origin):
    for path in ("/api/jobs", "/no/such/page"):
        assert not lets_in(await client.get(path, headers={"Origin": origin}))


async def test_a_cache_never_serves_one_page_with_the_reply_to_another(client):
    # Also where no page asks: a browser may keep a picture that an <img> has loaded, and give it to a script.
    assert not lets_in(await client.get("/api/jobs"))


async def test_where_no_origin_is_configured_nothing_is_said_of_any(jobs, tmp_path):
    app = create_rest_app(fronts.front(jobs, tmp_path))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        reply = await client.get("/api/jobs", headers={"Origin": PAGE})
        preflight = await client.options("/api/jobs", headers={"Origin": PAGE, "Access-Control-Request-Method": "GET"})

    assert not [name for name in (*reply.headers, *preflight.headers) if name.startswith("access-control")]
    assert preflight.status_code == 405
