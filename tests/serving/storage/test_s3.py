"""What is an S3 server's own: credentials, regions, two addresses, and all that a network does."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from ourvidz_serving.storage import (
    AccessDenied,
    ObjectExists,
    ObjectStore,
    StorageSettings,
    StoreMisconfigured,
    StoreUnavailable,
)
from ourvidz_serving.storage.s3 import PART_BYTES, THREADS, TRIES
from support.s3 import S3Server

HOUR = timedelta(hours=1)
Opener = Callable[[StorageSettings], ObjectStore]


@pytest.fixture
def bad_port() -> Iterator[int]:
    """A port where nobody listens, kept from everybody else."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def settings_of(endpoint: str, **changes: object) -> StorageSettings:
    account = {"kind": "s3", "access_key": "key", "secret_key": "secret"}
    return StorageSettings(endpoint=endpoint, **{**account, "connect_timeout_s": 0.3, "read_timeout_s": 0.3, **changes})


@asynccontextmanager
async def wire(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """Serve every connection with `answer`: a server that behaves as no real one can be made to."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has gone, which is what some of these tests are about
        finally:
            writer.close()

    listener = socket.socket()
    # A line of its own, not a lake of buffers: what the client has sent is what the server has read, or nearly.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
    listener.bind(("127.0.0.1", 0))
    server = await asyncio.start_server(serve, sock=listener)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def every_call_raises(store: ObjectStore, error: type[Exception]) -> None:
    for call in (
        store.check(),
        store.put("pictures", "a", b"x", content_type="text/plain"),
        store.put("pictures", "a", b"x", content_type="text/plain", if_absent=True),
        store.get("pictures", "a"),
        store.stat("pictures", "a"),
        store.delete("pictures", "a"),
        store.list("pictures"),
    ):
        with pytest.raises(error):
            await call


async def test_a_wrong_secret_is_told_from_a_server_that_is_down(s3_server: S3Server, opened: Opener):
    await every_call_raises(opened(s3_server.settings(secret_key="wrong")), AccessDenied)


async def test_an_unknown_access_key_is_refused(s3_server: S3Server, opened: Opener):
    await every_call_raises(opened(s3_server.settings(access_key="nobody")), AccessDenied)


async def test_a_server_that_is_down_is_unavailable(bad_port: int, opened: Opener):
    await every_call_raises(opened(settings_of(f"http://127.0.0.1:{bad_port}")), StoreUnavailable)


async def test_a_server_that_never_answers_is_unavailable_and_not_asked_again(opened: Opener):
    asked = 0

    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        while await reader.read(2**16):
            pass

    async with wire(silence) as endpoint:
        with pytest.raises(StoreUnavailable):
            await opened(settings_of(endpoint)).get("pictures", "a")
    assert asked == 1


async def test_a_server_that_stops_reading_is_unavailable_and_not_asked_again(opened: Opener):
    asked = 0
    over = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await over.wait()

    async with wire(deaf) as endpoint:
        with pytest.raises(StoreUnavailable):
            await opened(settings_of(endpoint)).put("pictures", "a", bytes(PART_BYTES), content_type="image/png")
        over.set()
    assert asked == 1


async def test_what_fails_at_once_is_tried_again(opened: Opener):
    asked = 0

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1

    async with wire(hang_up) as endpoint:
        with pytest.raises(StoreUnavailable):
            await opened(settings_of(endpoint)).get("pictures", "a")
    assert asked == TRIES


async def test_callers_of_a_silent_server_do_not_line_up(opened: Opener):
    """One after the other they would wait for six times the timeout."""

    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(2**16):
            pass

    async with wire(silence) as endpoint:
        store = opened(settings_of(endpoint, read_timeout_s=1))
        began = asyncio.get_running_loop().time()
        calls = [store.get("pictures", "a") for _ in range(6 * THREADS)]
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert asyncio.get_running_loop().time() - began < 4
    assert {type(each) for each in found} == {StoreUnavailable}


@pytest.mark.parametrize("status", ["503 Service Unavailable", "500 Internal Server Error", "200 OK"])
async def test_an_answer_that_is_no_s3_answer_is_unavailable(opened: Opener, status: str):
    async def web_page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        page = b"<html><body>hello<br></body></html>"
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {len(page)}\r\nRetry-After: 3600\r\n\r\n"
        )
        writer.write(head.encode() + page)

    async with wire(web_page) as endpoint:
        store = opened(settings_of(endpoint))
        for call in (store.check(), store.list("pictures")):
            with pytest.raises(StoreUnavailable):
                await call


async def test_a_body_may_take_longer_than_the_timeout_while_it_flows(opened: Opener):
    """The line takes 128 kiB every 50 ms, 6 MiB in over two seconds; the timeout is half a second of silence."""
    data = random.Random(1).randbytes(6 * 2**20)
    received = bytearray()

    async def slow_line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        received.clear()
        while len(received) < length:
            received.extend(await reader.read(2**17))
            await asyncio.sleep(0.05)  # the line's pace is what is tested
        writer.write(b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: 0\r\n\r\n')

    async with wire(slow_line) as endpoint:
        # The read timeout starts when the kernel has taken the last block, long before the line has.
        store = opened(settings_of(endpoint, connect_timeout_s=0.5, read_timeout_s=30))
        await store.put("pictures", "a", data, content_type="image/png")

    assert bytes(received) == data


async def test_put_if_absent_holds_on_a_server_that_ignores_the_condition(opened: Opener):
    asked = []

    async def has_everything(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).split()[0])
        modified = b"Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + modified + b"\r\n")

    async with wire(has_everything) as endpoint:
        with pytest.raises(ObjectExists):
            await opened(settings_of(endpoint)).put("pictures", "a", b"x", content_type="text/plain", if_absent=True)

    assert asked == [b"HEAD"]


async def test_the_region_is_the_one_that_is_signed_for(s3_server: S3Server, opened: Opener, bucket: str):
    await opened(s3_server.settings()).put(bucket, "a", b"x", content_type="text/plain")
    store = opened(s3_server.settings(region="eu-central-1"))

    url = await store.presign_get(bucket, "a", expires=HOUR)

    assert parse_qs(urlsplit(url).query)["X-Amz-Credential"][0].endswith("/eu-central-1/s3/aws4_request")
    async with httpx.AsyncClient() as client:
        assert (await client.get(url)).content == b"x"


async def test_a_region_that_the_server_does_not_have_is_a_misconfiguration(
    s3_server: S3Server, opened: Opener, bucket: str
):
    with pytest.raises(StoreMisconfigured, match=r"[Ll]ocation"):
        await opened(s3_server.settings(region="eu-nowhere-9")).put(bucket, "a", b"x", content_type="text/plain")


async def test_urls_are_signed_for_the_public_endpoint(s3_server: S3Server, opened: Opener, bucket: str):
    public = s3_server.endpoint.replace("127.0.0.1", "localhost")
    if public == s3_server.endpoint:
        pytest.skip("the server that was named has one address")
    store = opened(s3_server.settings(public_endpoint=public))
    await store.put(bucket, "a", b"x", content_type="text/plain")

    url = await store.presign_get(bucket, "a", expires=HOUR)

    assert url.startswith(f"{public}/{bucket}/a?")
    async with httpx.AsyncClient() as client:
        assert (await client.get(url)).content == b"x"
        assert (await client.get(url.replace("localhost", "127.0.0.1"))).status_code == 403


async def test_signing_asks_no_server(bad_port: int, opened: Opener):
    store = opened(settings_of(f"http://127.0.0.1:{bad_port}", public_endpoint="https://files.example.com"))

    url = await store.presign_get("pictures", "a", expires=HOUR)

    assert url.startswith("https://files.example.com/pictures/a?")
