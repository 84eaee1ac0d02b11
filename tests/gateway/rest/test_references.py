"""Reference pictures over REST, on a real database and store: uploaded, listed and deleted."""

import asyncio
import json
from collections.abc import AsyncIterator
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from ourvidz_gateway.database import Database
from ourvidz_gateway.errors import StorageUnavailable
from ourvidz_gateway.references import BUCKET
from ourvidz_gateway.rest import create_rest_app
from ourvidz_gateway.uploads import UPLOADS
from ourvidz_serving.pictures import MAX_FILE_BYTES
from support import fronts
from support.memory_jobs import MemoryJobs
from support.pictures import BAD_FILES, file_of, halves, turned_jpeg

UPLOAD = "/api/upload-reference"
IMAGES = "/api/reference-images"
BOB = {"Authorization": f"Bearer {fronts.token('bob')}"}


@pytest.fixture
def app(jobs: MemoryJobs, database: Database, tmp_path) -> FastAPI:
    return create_rest_app(fronts.front(jobs, tmp_path / "objects", database))


@pytest.fixture
async def stored(app: FastAPI):
    """Tells what lies in the store."""

    async def names() -> list[str]:
        return list(await app.state.front.store.list(BUCKET))

    return names


def assert_refused(reply: httpx.Response, status: int, says: str, *, field: str = "file") -> None:
    body = reply.json()
    assert reply.status_code == status
    assert says in body["error"]
    assert f"field={field}" in body["details"]
    assert (body["success"], body["retryable"], body["referenceImageError"]) == (False, False, True)


async def test_a_picture_is_stored_and_its_url_opens_it(client, stored):
    data = turned_jpeg()

    reply = await client.post(UPLOAD, files={"file": ("cat.png", data, "image/gif")})

    assert reply.status_code == 200
    body = reply.json()
    assert await stored() == [f"alice/{body['id']}"]
    assert body == {
        "success": True,
        "id": body["id"],
        "url": body["url"],
        "mime_type": "image/jpeg",
        "width": 48,
        "height": 64,
        "size_bytes": len(data),
    }
    opened = await client.get(urlsplit(body["url"])._replace(scheme="", netloc="").geturl())
    assert (opened.content, opened.headers["Content-Type"]) == (data, "image/jpeg")


async def test_its_url_can_be_used_by_its_owner_alone(client, jobs):
    url = (await client.post(UPLOAD, files={"file": file_of(halves())})).json()["url"]
    body = {"jobType": "sdxl_image_fast", "metadata": {"prompt": "a", "reference_image_url": url}}

    reply = await client.post("/api/queue-job", json=body)
    other = await client.post("/api/queue-job", json=body, headers=BOB)

    assert reply.json()["referenceImageSupported"] is True
    assert reply.json()["job"]["metadata"]["reference_image_url"] == url
    (accepted,) = jobs.accepted
    assert accepted.request["references"][0]["stored"]["bucket"] == BUCKET
    assert_refused(other, 400, "no such reference image", field="metadata.reference_image_url")


async def test_an_upload_needs_a_token_before_its_body_is_read(client):
    reads = 0

    async def body():
        nonlocal reads
        reads += 1
        yield b"x"

    reply = await client.post(UPLOAD, content=body(), headers={"Authorization": ""})

    assert reply.status_code == 401
    assert reads == 0


@pytest.mark.parametrize("file", BAD_FILES.values(), ids=BAD_FILES)
async def test_what_is_no_picture_is_a_400(client, stored, file):
    reply = await client.post(UPLOAD, files={"file": ("cat.png", file, "image/png")})

    assert_refused(reply, 400, "can't be used as a reference image")
    assert await stored() == []


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        ({"files": {"image": b"x"}}, "no whole file in its field file"),
        ({"files": {"other": (None, "x")}}, "no whole file in its field file"),
        ({"files": {"file": (None, "text")}}, "no whole PNG, JPEG or WebP"),
        ({"files": [("file", b"x"), ("file", b"y")]}, "more than one file"),
        ({"json": {"file": "x"}}, "multipart form"),
        ({"data": {"file": "x"}}, "multipart form"),
        ({"content": b""}, "multipart form"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, "multipart form"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=" + "b" * 300}}, "can't be read"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, "can't be read"),
        ({"content": b"", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, "no whole file"),
        (
            {
                "content": b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\ncut sho',
                "headers": {"Content-Type": "multipart/form-data; boundary=b"},
            },
            "no whole file",
        ),
    ],
)
async def test_a_form_without_a_file_is_a_400(client, stored, sent, says):
    assert_refused(await client.post(UPLOAD, **sent), 400, says)
    assert await stored() == []


async def test_other_fields_are_ignored(client):
    reply = await client.post(UPLOAD, files={"note": (None, "x"), "file": file_of(halves())})

    assert reply.status_code == 200


async def test_ten_megabytes_are_taken_and_a_byte_more_is_a_413(client, stored):
    data = file_of(halves())
    data += b"\0" * (MAX_FILE_BYTES - len(data))

    assert (await client.post(UPLOAD, files={"file": data})).status_code == 200
    assert_refused(await client.post(UPLOAD, files={"file": data + b"\0"}), 413, "over 10 MB")
    assert len(await stored()) == 1


async def test_a_body_that_says_it_is_too_large_is_not_read(client):
    reads = 0

    async def body():
        nonlocal reads
        reads += 1
        yield b"x"

    reply = await client.post(UPLOAD, content=body(), headers={"Content-Length": str(5 * 2**30)})

    assert_refused(reply, 413, "over 10 MB")


async def test_a_store_out_of_reach_is_a_503(client, app, monkeypatch):
    async def fail(*_, **__):
        raise StorageUnavailable("The object storage is out of reach.")

    monkeypatch.setattr(type(app.state.front.parts.uploads), "upload", fail)

    reply = await client.post(UPLOAD, files={"file": file_of(halves())})

    assert (reply.status_code, reply.json()["retryable"]) == (503, True)
    assert reply.headers["Retry-After"]


async def upload(client: httpx.AsyncClient, name: str = "cat.png") -> dict:
    reply = await client.post(UPLOAD, files={"file": (name, file_of(halves()), "image/png")})
    assert reply.status_code == 200
    body: dict = reply.json()
    return body


async def listed(client: httpx.AsyncClient, **query) -> list[str]:
    return [image["filename"] for image in (await client.get(IMAGES, params=query)).json()["reference_images"]]


async def test_an_uploaded_picture_is_listed_with_a_url_that_opens_it(client):
    uploaded = await upload(client)

    body = (await client.get(IMAGES)).json()

    (image,) = body["reference_images"]
    assert body == {
        "reference_images": [
            {
                "id": uploaded["id"],
                "url": image["url"],
                "mime_type": "image/png",
                "width": 64,
                "height": 48,
                "size_bytes": len(file_of(halves())),
                "filename": "cat.png",
                "created_at": image["created_at"],
            }
        ]
    }
    opened = await client.get(urlsplit(image["url"])._replace(scheme="", netloc="").geturl())
    assert opened.content == file_of(halves())


async def test_pages_of_pictures_follow_one_another_newest_first(client):
    for number in range(3):
        await upload(client, str(number))

    first = (await client.get(IMAGES, params={"page_size": 2})).json()

    assert [image["filename"] for image in first["reference_images"]] == ["2", "1"]
    assert await listed(client, page_size=2, page_token=first["next_cursor"]) == ["0"]


@pytest.mark.parametrize("query", ["page_size=0", "page_size=101", "page_token=x"])
async def test_a_bad_page_is_a_400(client, query):
    reply = await client.get(f"{IMAGES}?{query}")

    assert reply.status_code == 400
    assert f"field={query.partition('=')[0]}" in reply.json()["details"]


async def test_a_deleted_picture_is_not_there_and_no_job_may_name_it(client):
    kept, deleted = await upload(client, "kept"), await upload(client, "deleted")
    body = {"jobType": "sdxl_image_fast", "metadata": {"prompt": "a", "reference_image_url": deleted["url"]}}
    assert (await client.post("/api/queue-job", json=body)).status_code == 200

    reply = await client.delete(f"{IMAGES}/{deleted['id']}")

    assert (reply.status_code, reply.content) == (204, b"")
    assert await listed(client) == ["kept"]
    refused = await client.post("/api/queue-job", json=body)
    assert_refused(refused, 400, "no such reference image", field="metadata.reference_image_url")
    body["metadata"]["reference_image_url"] = kept["url"]
    assert (await client.post("/api/queue-job", json=body)).status_code == 200


async def test_another_users_picture_looks_like_one_that_never_was(client):
    uploaded = await upload(client)

    replies = []
    for image_id in (uploaded["id"], uuid4(), "no-id"):
        reply = await client.delete(f"{IMAGES}/{image_id}", headers=BOB)
        replies.append((reply.status_code, reply.json()))

    assert replies[0][0] == 404
    assert replies == [replies[0]] * 3
    assert (await client.get(IMAGES, headers=BOB)).json() == {"reference_images": []}
    assert await listed(client) == ["cat.png"]
    assert (await client.delete(f"{IMAGES}/{uploaded['id']}")).status_code == 204


class TestQuota:
    @pytest.fixture
    def app(self, jobs: MemoryJobs, database: Database, tmp_path) -> FastAPI:
        quota = len(file_of(halves())) + 1
        return create_rest_app(fronts.front(jobs, tmp_path / "objects", database, reference_quota_bytes=quota))

    async def test_over_what_a_user_may_keep_is_a_413_that_says_what_to_do(self, client, stored):
        uploaded = await upload(client)

        refused = await client.post(UPLOAD, files={"file": file_of(halves())})

        assert_refused(refused, 413, "together may take")
        assert "reason=STORAGE_QUOTA_EXCEEDED" in refused.json()["details"]
        assert refused.json()["suggestedAction"]
        assert len(await stored()) == 1
        await client.delete(f"{IMAGES}/{uploaded['id']}")
        await upload(client)


async def test_the_form_is_described(app):
    body = app.openapi()["paths"][UPLOAD]["post"]["requestBody"]

    assert body["content"]["multipart/form-data"]["schema"]["required"] == ["file"]


async def test_a_user_who_sends_many_files_at_once_is_read_from_a_few_at_a_time(client):
    asked, all_asked, rest = [], asyncio.Event(), asyncio.Event()
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'

    async def body(number: int) -> AsyncIterator[bytes]:
        asked.append(number)
        if len(asked) == UPLOADS:
            all_asked.set()
        yield head
        await rest.wait()
        yield file_of(halves()) + b"\r\n--b--\r\n"

    sending = [
        asyncio.create_task(client.post(UPLOAD, content=body(number), headers=form)) for number in range(UPLOADS + 2)
    ]
    async with asyncio.timeout(30):
        await all_asked.wait()
    reply = await client.post(UPLOAD, files={"file": file_of(halves())}, headers=BOB)

    assert reply.status_code == 200  # nobody else waits for alice
    assert len(asked) == UPLOADS
    rest.set()
    assert {reply.status_code for reply in await asyncio.gather(*sending)} == {200}


@pytest.mark.parametrize("path", [UPLOAD, "/api/queue-job"])
async def test_a_sender_without_end_is_answered_and_cut_off(app, path):
    """On a real server, from a client that never stops of itself and doesn't say how much it has."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off"))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # no event tells
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {fronts.token()}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'

    async def pour() -> None:
        writer.write(head.encode() + f"{len(part):x}\r\n".encode() + part + b"\r\n")
        while True:
            writer.write(b"10000\r\n" + b"x" * 2**16 + b"\r\n")
            await writer.drain()

    pouring = asyncio.create_task(pour())
    answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer
    length = int(answer.lower().partition(b"content-length: ")[2].split()[0])
    assert json.loads(await reader.readexactly(length))["success"] is False
    with pytest.raises(ConnectionError):
        await pouring
    writer.close()
    server.should_exit = True
    await serving
