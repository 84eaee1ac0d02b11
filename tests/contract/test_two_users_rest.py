"""Every route of the REST front, tried by one user with what belongs to another: as if it had never been there.

The routes are taken from the app: one that has no case here fails.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio
from fastapi.routing import iter_route_contexts

from contract.belongings import KEY, PROJECT, UNKNOWN, WAITING, Belongings, belongings
from contract.driver import made
from contract.world import World
from support import fronts
from support.pictures import file_of, halves

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def alices(world: World) -> Belongings:
    return await belongings(world, "alice")


@pytest_asyncio.fixture(loop_scope="module")
async def bob(world: World):
    """A client of somebody who has nothing at all."""
    async with world.http(f"Bearer {fronts.token(f'bob-{uuid4().hex}')}") as client:
        yield client


# The paths with what they name, by route. Each is asked for with alice's id and with one that nobody has.
BY_ID: dict[tuple[str, str], Callable[[Belongings], str]] = {
    ("GET", "/api/jobs/{job_id}"): lambda alice: alice.job.id,
    ("POST", "/api/jobs/{job_id}/cancel"): lambda alice: alice.waiting,
    ("GET", "/api/jobs/{job_id}/events"): lambda alice: alice.job.id,
    ("POST", "/api/jobs/{job_id}/ticket"): lambda alice: alice.job.id,
    ("GET", "/api/assets/{asset_id}/content"): lambda alice: alice.job.assets[0].id,
    ("DELETE", "/api/assets/{asset_id}"): lambda alice: alice.job.assets[0].id,
    ("DELETE", "/api/reference-images/{image_id}"): lambda alice: alice.reference.id,
}

# Replies that are a user's own: to somebody who has nothing, exactly this.
OWN: dict[tuple[str, str], dict[str, Any]] = {
    ("GET", "/api/jobs"): {"jobs": [], "next_cursor": None},
    ("GET", "/api/assets"): {"assets": []},
    ("GET", "/api/reference-images"): {"reference_images": []},
    ("GET", "/api/credits"): {"available": 1000, "reserved": 0},
}

# The same for everybody, signed in or not; how full the queues are is told of all users' jobs together.
COMMON = {
    ("GET", "/api/queue-status"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("HEAD", "/openapi.json"),
}

# Each has a test of its own below.
APART = {
    ("POST", "/api/queue-job"),
    ("POST", "/api/upload-reference"),
    ("GET", "/objects/{bucket}/{key:path}"),
    ("HEAD", "/objects/{bucket}/{key:path}"),
    ("GET", "/docs/{name}"),
}


async def test_every_route_has_a_case(world: World):
    contexts = iter_route_contexts(world.app.routes)
    routes = [(method, context.path) for context in contexts for method in context.methods or ()]
    assert sorted(routes) == sorted({*BY_ID, *OWN, *COMMON, *APART})


async def test_nobody_is_told_anything_without_a_token(world: World, alices: Belongings):
    open_to_all = COMMON - {("GET", "/api/queue-status")} | {route for route in APART if "/api/" not in route[1]}
    async with world.http(None) as anybody:
        for method, path in {*BY_ID, *OWN, *COMMON, *APART} - open_to_all:
            start, named, rest = path.partition("{")
            answer = await anybody.request(method, start + alices.job.id + rest.partition("}")[2] if named else path)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), (method, path)
            assert [trace for trace in alices.traces if trace in answer.text] == []


@pytest.mark.parametrize(("method", "path"), BY_ID)
async def test_what_is_anothers_is_not_there(bob: httpx.AsyncClient, alices: Belongings, method: str, path: str):
    start, _, rest = path.partition("{")
    found = BY_ID[method, path](alices)
    answers = [
        await bob.request(method, start + each + rest.partition("}")[2]) for each in (found, found.upper(), UNKNOWN)
    ]
    assert [answer.status_code for answer in answers] == [404] * 3
    theirs, _, nobodys = answers
    assert theirs.text.replace(found, "<id>") == nobodys.text.replace(UNKNOWN, "<id>")
    assert head_of(theirs, found) == head_of(nobodys, UNKNOWN)


def head_of(answer: httpx.Response, its_id: str) -> dict[str, str]:
    """The headers that may not differ."""
    return {
        name: value.replace(its_id, "<id>") for name, value in answer.headers.items() if name not in ("date", "server")
    }


async def test_the_owner_still_has_all_of_it(world: World, alices: Belongings, bob: httpx.AsyncClient):
    for (method, path), of in BY_ID.items():
        await bob.request(method, path.partition("{")[0] + of(alices) + path.partition("}")[2])
    alice = world.driver("rest", "alice")
    assert (await alice.get(alices.waiting)).state == "queued"
    assert alices.job.assets[0].id in [asset.id for asset in (await alice.assets())[0]]
    assert alices.reference.id in [image.id for image in (await alice.references())[0]]


QUERIES = {
    "/api/jobs": [{}, {"project_id": PROJECT}, {"job_type": WAITING}, {"status": "queued"}, {"page_size": 1}],
    "/api/assets": [{}, {"project_id": PROJECT}, {"job_type": "sdxl_image_fast"}],
    "/api/reference-images": [{}],
    "/api/credits": [{}],
}


@pytest.mark.parametrize(("method", "path"), OWN)
async def test_lists_and_counts_are_as_if_there_were_nobody_else(
    bob: httpx.AsyncClient, alices: Belongings, method: str, path: str
):
    for query in QUERIES[path]:
        answer = await bob.request(method, path, params=query)
        assert answer.status_code == 200
        assert {name: value for name, value in answer.json().items() if value is not None} == {
            name: value for name, value in OWN[method, path].items() if value is not None
        }


@pytest.mark.parametrize("listing", ["jobs", "assets", "reference-images"])
async def test_a_page_that_begins_after_anothers_row_shows_only_ones_own(
    world: World, bob: httpx.AsyncClient, alices: Belongings, listing: str
):
    alice = world.driver("rest", "alice")
    for _ in range(2):
        await alice.upload(file_of(halves()))
        await made(alice)
    async with world.http(f"Bearer {fronts.token('alice')}") as client:
        token = (await client.get(f"/api/{listing}", params={"page_size": 1})).json()["next_cursor"]
    assert token
    shown = (await bob.get(f"/api/{listing}", params={"page_token": token})).json()
    assert [value for value in shown.values() if value] == []


async def test_what_all_are_told_tells_nothing_of_anybody(bob: httpx.AsyncClient, alices: Belongings):
    for method, path in COMMON:
        answer = await bob.request(method, path)
        assert answer.status_code == 200
        assert [trace for trace in alices.traces if trace in answer.text] == []


async def test_anothers_pictures_are_no_references(bob: httpx.AsyncClient, alices: Belongings):
    for url in (alices.reference.url, alices.job.assets[0].url):
        answers = [
            await bob.post(
                "/api/queue-job",
                json={"jobType": "sdxl_image_fast", "metadata": {"prompt": "a fox", "reference_image_url": each}},
            )
            for each in (url, url.replace(alices.reference.id, UNKNOWN).replace(alices.job.id, UNKNOWN))
        ]
        assert [answer.status_code for answer in answers] == [400, 400]
        assert answers[0].text == answers[1].text


async def test_anothers_key_is_nobodys(bob: httpx.AsyncClient, alices: Belongings):
    answer = await bob.post(
        "/api/queue-job",
        json={"jobType": WAITING, "metadata": {"prompt": "anything else"}},
        headers={"Idempotency-Key": KEY},
    )
    assert answer.status_code == 200
    assert answer.json()["job"]["id"] != alices.waiting


async def test_an_upload_is_its_users_alone(world: World, bob: httpx.AsyncClient, alices: Belongings):
    answer = await bob.post("/api/upload-reference", files={"file": ("cat.png", file_of(halves()))})
    assert answer.status_code == 200
    assert answer.json()["id"] not in [image.id for image in (await world.driver("rest", "alice").references())[0]]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_ones_own_signature_opens_nothing_of_anothers(
    world: World, bob: httpx.AsyncClient, alices: Belongings, method: str
):
    own = (await bob.post("/api/upload-reference", files={"file": ("cat.png", file_of(halves()))})).json()["url"]
    assert (await bob.request(method, own)).status_code == 200
    for url in (alices.job.assets[0].url, alices.reference.url):
        path = urlsplit(url).path
        for each in (path, path.replace(alices.job.id, UNKNOWN).replace(alices.reference.id, UNKNOWN)):
            for query in (urlsplit(own).query, "token=", ""):
                assert (await bob.request(method, f"{each}?{query}")).status_code == 403


async def test_a_ticket_opens_one_job_and_no_other(world: World, bob: httpx.AsyncClient, alices: Belongings):
    waiting = (await bob.post("/api/queue-job", json={"jobType": WAITING, "metadata": {"prompt": "a fox"}})).json()[
        "job"
    ]["id"]
    ticket = (await bob.post(f"/api/jobs/{waiting}/ticket")).json()["ticket"]
    answers = [
        await bob.get(f"/api/jobs/{job_id}/events", params={"ticket": ticket})
        for job_id in (alices.job.id, alices.waiting, UNKNOWN)
    ]
    assert [answer.status_code for answer in answers] == [401] * 3
    assert len({answer.text for answer in answers}) == 1
    # Not even with a token of one's own beside it does another's ticket open one's own job.
    assert (await bob.get(f"/api/jobs/{waiting}/events", params={"ticket": alices.ticket})).status_code == 401


async def test_the_pages_own_files_are_nobodys(bob: httpx.AsyncClient):
    for name in ("../openapi.json", "%2e%2e%2fmain.py", "__init__.py", "x"):
        assert (await bob.get(f"/docs/{name}")).status_code in (200, 404)
        assert "import" not in (await bob.get(f"/docs/{name}")).text[:200]
