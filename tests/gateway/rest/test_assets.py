"""Assets over REST, on a real database and store."""

from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI

from ourvidz_gateway.database import Database
from ourvidz_gateway.rest import create_rest_app
from support import fronts
from support.assets import BUCKET, add_asset
from support.memory_jobs import MemoryJobs

ASSETS = "/api/assets"
BOB = {"Authorization": f"Bearer {fronts.token('bob')}"}


@pytest.fixture
def app(jobs: MemoryJobs, database: Database, tmp_path) -> FastAPI:
    return create_rest_app(fronts.front(jobs, tmp_path / "objects", database))


def path_of(url: str) -> str:
    return urlsplit(url)._replace(scheme="", netloc="").geturl()


def plain(reply: httpx.Response) -> tuple[int, dict]:
    return reply.status_code, reply.json()


async def test_an_asset_is_described_and_its_url_opens_it(client, app, database):
    job_id = uuid4()
    asset_id = await add_asset(database, job_id=job_id)
    await app.state.front.store.put(BUCKET, f"alice/{job_id}/1/0.png", b"pixels", content_type="image/png")

    body = (await client.get(ASSETS)).json()

    (asset,) = body["assets"]
    assert body == {
        "assets": [
            {
                "id": str(asset_id),
                "job_id": str(job_id),
                "job_type": "sdxl_image_fast",
                "url": asset["url"],
                "mime_type": "image/png",
                "size_bytes": 9,
                "width": 64,
                "height": 48,
                "seed": 7,
                "created_at": asset["created_at"],
            }
        ]
    }
    assert (await client.get(path_of(asset["url"]))).content == b"pixels"


async def test_a_clip_says_how_long_it_plays_and_a_project_is_named(client, database):
    await add_asset(database, job_type="video_fast", mime_type="video/mp4", duration_s=5.0, project_id="p")

    (asset,) = (await client.get(ASSETS)).json()["assets"]

    assert (asset["job_type"], asset["mime_type"]) == ("video_fast", "video/mp4")
    assert (asset["duration_seconds"], asset["project_id"]) == (5.0, "p")


async def test_pages_follow_one_another_to_the_last(client, database):
    added = [str(await add_asset(database)) for _ in range(5)]

    seen, query = [], {"page_size": 2}
    while True:
        body = (await client.get(ASSETS, params=query)).json()
        seen.append([asset["id"] for asset in body["assets"]])
        if "next_cursor" not in body:
            break
        query["page_token"] = body["next_cursor"]

    assert seen == [added[:2:-1], added[2:0:-1], added[:1]]


async def test_a_user_without_assets_has_an_empty_list(client):
    assert plain(await client.get(ASSETS)) == (200, {"assets": []})


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("job_type=video_fast", [1]),
        ("project_id=p", [0]),
        ("job_type=video_fast&project_id=p", []),
        ("job_type=&project_id=", [1, 0]),
    ],
)
async def test_a_filter_narrows_the_list(client, database, query, found):
    added = [
        str(await add_asset(database, project_id="p")),
        str(await add_asset(database, job_type="video_fast")),
    ]

    body = (await client.get(f"{ASSETS}?{query}")).json()

    assert [asset["id"] for asset in body["assets"]] == [added[index] for index in found]


@pytest.mark.parametrize(
    ("query", "field", "says"),
    [
        ("job_type=poem", "job_type", "Valid job types: "),
        ("project_id=%00", "project_id", "control character"),
        ("page_token=x", "page_token", "page token"),
        ("page_token=" + "W1tb" * 2_000, "page_token", "page token"),  # [[[[…
        ("page_size=0", "page_size", "greater than or equal to 1"),
        ("page_size=101", "page_size", "less than or equal to 100"),
    ],
)
async def test_a_bad_query_is_a_400_that_names_the_field(client, query, field, says):
    status, body = plain(await client.get(f"{ASSETS}?{query}"))

    assert status == 400
    assert says in body["error"]
    assert f"field={field}" in body["details"]


async def test_an_unknown_job_type_is_told_the_valid_ones(client):
    body = (await client.get(f"{ASSETS}?job_type=poem")).json()

    assert "sdxl_image_fast" in body["error"]
    assert "video7b_high_enhanced" in body["error"]


async def test_content_redirects_to_a_fresh_url_that_nobody_keeps(client, app, database):
    asset_id = await add_asset(database, key="alice/x/1/0.png")
    await app.state.front.store.put(BUCKET, "alice/x/1/0.png", b"pixels", content_type="image/png")

    reply = await client.get(f"{ASSETS}/{asset_id}/content")

    assert (reply.status_code, reply.headers["Cache-Control"]) == (307, "no-store")
    assert reply.headers["Location"].startswith(f"{fronts.PUBLIC_URL}/objects/{BUCKET}/alice/x/1/0.png?token=")
    opened = await client.get(path_of(reply.headers["Location"]), headers={"Authorization": ""})
    assert (opened.status_code, opened.content) == (200, b"pixels")


async def test_a_deleted_asset_is_not_there_any_more(client, database):
    kept, deleted = await add_asset(database), await add_asset(database)

    reply = await client.delete(f"{ASSETS}/{deleted}")

    assert (reply.status_code, reply.content) == (204, b"")
    assert [asset["id"] for asset in (await client.get(ASSETS)).json()["assets"]] == [str(kept)]
    assert (await client.get(f"{ASSETS}/{deleted}/content")).status_code == 404
    assert (await client.delete(f"{ASSETS}/{deleted}")).status_code == 404


async def test_another_users_asset_looks_like_one_that_never_was(client, database):
    asset_id = await add_asset(database)

    for method, suffix in (("DELETE", ""), ("GET", "/content")):
        replies = [
            plain(await client.request(method, f"{ASSETS}/{unknown}{suffix}", headers=BOB))
            for unknown in (asset_id, uuid4(), "no-id", "{" + str(asset_id) + "}")
        ]
        assert replies[0][0] == 404
        assert replies == [replies[0]] * 4
    assert plain(await client.get(ASSETS, headers=BOB)) == (200, {"assets": []})
    assert len((await client.get(ASSETS)).json()["assets"]) == 1


@pytest.mark.parametrize(
    ("method", "path"), [("GET", ASSETS), ("DELETE", f"{ASSETS}/x"), ("GET", f"{ASSETS}/x/content")]
)
async def test_nothing_is_told_without_a_token(client, method, path):
    assert (await client.request(method, path, headers={"Authorization": ""})).status_code == 401
