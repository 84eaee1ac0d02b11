"""The signed URLs of a local store, as a browser meets them."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi import FastAPI

from ourvidz_gateway.rest.objects import objects_router
from ourvidz_serving.storage import AccessDenied, LocalStore, StoreError, StoreUnavailable, UrlSigner

SIGNER = UrlSigner("s" * 32, "http://objects.test/")
HOUR = timedelta(hours=1)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalStore]:
    (tmp_path / "secret").write_bytes(b"outside")
    store = LocalStore(tmp_path / "objects", SIGNER)
    await store.put("clips", "user/clip.mp4", b"0123456789", content_type="video/mp4")
    yield store
    await store.close()


@pytest.fixture
def app(store: LocalStore) -> FastAPI:
    app = FastAPI()
    app.include_router(objects_router(store))
    return app


@pytest.fixture
async def browser(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
        yield client


@pytest.fixture
async def url(store: LocalStore) -> str:
    return await store.presign_get("clips", "user/clip.mp4", expires=HOUR)


async def get_raw(app: FastAPI, path: str, query: str) -> int:
    """GET a path that no HTTP client would send as it is; return the status."""
    scope = {"type": "http", "method": "GET", "path": path, "query_string": query.encode(), "headers": []}
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    assert not any(b"outside" in message.get("body", b"") for message in sent)
    return sent[0]["status"]


def assert_error(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status
    assert answer.json()["success"] is False
    assert answer.json()["error"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_signed_url_serves_the_object(browser: httpx.AsyncClient, url: str):
    answer = await browser.get(url)

    assert (answer.status_code, answer.content) == (200, b"0123456789")
    assert answer.headers["Content-Type"] == "video/mp4"
    assert answer.headers["Content-Length"] == "10"
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Cache-Control"] == "private"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_head_tells_all_but_the_bytes(browser: httpx.AsyncClient, url: str):
    answer = await browser.head(url)

    assert (answer.status_code, answer.content) == (200, b"")
    assert (answer.headers["Content-Length"], answer.headers["Content-Type"]) == ("10", "video/mp4")


@pytest.mark.parametrize(
    ("asked", "served", "content"),
    [("0-3", "0-3", b"0123"), ("4-", "4-9", b"456789"), ("-2", "8-9", b"89"), ("5-99", "5-9", b"56789")],
)
async def test_a_range_is_served_alone(browser: httpx.AsyncClient, url: str, asked: str, served: str, content: bytes):
    answer = await browser.get(url, headers={"Range": f"bytes={asked}"})

    assert (answer.status_code, answer.content) == (206, content)
    assert answer.headers["Content-Range"] == f"bytes {served}/10"
    assert answer.headers["Content-Type"] == "video/mp4"


async def test_a_range_past_the_end_cannot_be_served(browser: httpx.AsyncClient, url: str):
    answer = await browser.get(url, headers={"Range": "bytes=10-"})

    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == "bytes */10"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("change", ["none", "empty", "nonsense", "signature", "claims"])
async def test_a_token_that_we_did_not_make_is_refused(browser: httpx.AsyncClient, url: str, change: str, method: str):
    bare, _, token = url.partition("?token=")
    head, claims, signature = token.split(".")
    queries = {
        "none": "",
        "empty": "?token=",
        "nonsense": "?token=a.b.c",
        "signature": f"?token={head}.{claims}.{signature[::-1]}",
        "claims": f"?token={head}.{claims[:-4]}AAAA.{signature}",
    }

    answer = await browser.request(method, bare + queries[change])

    if method == "HEAD":
        assert answer.status_code == 403
    else:
        assert_error(answer, 403)


async def test_the_token_of_another_object_is_refused(browser: httpx.AsyncClient, store: LocalStore, url: str):
    await store.put("clips", "user/other.mp4", b"x", content_type="video/mp4")

    assert_error(await browser.get(url.replace("clip.mp4", "other.mp4")), 403)
    # Said alike whether the other object is there or not.
    assert_error(await browser.get(url.replace("clip.mp4", "none.mp4")), 403)


async def test_an_expired_token_is_refused(browser: httpx.AsyncClient, store: LocalStore):
    url = await store.presign_get("clips", "user/clip.mp4", expires=timedelta(seconds=1))

    while (answer := await browser.get(url)).status_code == 200:  # no event tells the end
        await asyncio.sleep(0.05)
    assert_error(answer, 403)
    assert "expired" in answer.json()["error"]


async def test_an_object_that_is_gone_is_not_found(browser: httpx.AsyncClient, store: LocalStore, url: str):
    await store.delete("clips", "user/clip.mp4")

    assert_error(await browser.get(url), 404)


@pytest.mark.parametrize("path", ["../secret", "../../secret", "user/../../../secret", "%2e%2e%2f%2e%2e%2fsecret"])
@pytest.mark.parametrize("encoded", [False, True])
async def test_no_path_leads_out_of_the_folder(
    app: FastAPI, browser: httpx.AsyncClient, url: str, path: str, encoded: bool
):
    token = parse_qs(urlsplit(url).query)["token"][0]
    if encoded:
        escaped = path.replace(".", "%2e").replace("/", "%2f")
        assert_error(await browser.get(f"http://objects.test/objects/clips/{escaped}?token={token}"), 403)
    else:
        assert await get_raw(app, f"/objects/clips/{path}", f"token={token}") == 403


@pytest.mark.parametrize("key", ["../secret", "../../secret", "user/../../../secret", "user//clip.mp4", "nul\0"])
async def test_even_a_token_that_we_signed_leads_nowhere_else(app: FastAPI, key: str):
    token = parse_qs(urlsplit(SIGNER.sign("clips", key, HOUR)).query)["token"][0]

    assert await get_raw(app, f"/objects/clips/{key}", f"token={token}") == 404


@pytest.mark.parametrize("kind", [StoreUnavailable, AccessDenied])
async def test_a_disk_that_fails_is_a_503_which_does_not_say_how(
    browser: httpx.AsyncClient, store: LocalStore, url: str, monkeypatch, kind: type[StoreError]
):
    async def fail(*_: str) -> None:
        raise kind("clips/user/clip.mp4: Input/output error")

    monkeypatch.setattr(store, "open_signed", fail)

    answer = await browser.get(url)

    assert_error(answer, 503)
    assert (answer.json()["retryable"], answer.headers["Retry-After"]) == (True, "5")
    assert "Input" not in answer.text


async def test_the_route_is_described_once(app: FastAPI):
    operations = app.openapi()["paths"]["/objects/{bucket}/{key}"]

    assert list(operations) == ["get"]
