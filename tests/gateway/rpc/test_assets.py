"""Uploading reference pictures over gRPC, on a real database and store."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import grpc
import pytest

from ourvidz import rpc_status
from ourvidz.api.assets.v1 import assets_pb2, assets_pb2_grpc
from ourvidz_gateway.database import migrate, open_database
from ourvidz_gateway.references import BUCKET
from ourvidz_gateway.rpc import add_services
from ourvidz_serving.pictures import MAX_FILE_BYTES
from ourvidz_serving.server import Server
from support import fronts
from support.memory_jobs import MemoryJobs
from support.pictures import BAD_FILES, file_of, halves, turned_jpeg

Request = assets_pb2.UploadReferenceImageRequest


@pytest.fixture
async def front(dsn: str, tmp_path) -> AsyncIterator[fronts.Front]:
    await migrate(dsn)
    async with open_database(dsn) as database:
        yield fronts.front(MemoryJobs(), tmp_path / "objects", database, grpc_port=0, metrics_port=0)


@pytest.fixture
async def stub(front) -> AsyncIterator[assets_pb2_grpc.AssetServiceStub]:
    """A stub that has no token of its own."""
    server = Server(front.settings, name="gateway", require_service_token=False)
    add_services(server, front)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield assets_pb2_grpc.AssetServiceStub(channel)
    await server.drain()


def header(**fields) -> Request:
    return Request(header=assets_pb2.UploadHeader(**fields))


def upload_of(data: bytes, size: int = 2**20, **fields) -> Iterator[Request]:
    yield header(**fields)
    for start in range(0, len(data), size):
        yield Request(chunk=data[start : start + size])


async def refusal(stub, requests, metadata) -> rpc_status.ParsedError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.UploadReferenceImage(iter(requests), metadata=metadata)
    return rpc_status.parse(caught.value)


@pytest.mark.parametrize("said", [True, False])
async def test_a_picture_is_stored_and_described(stub, alice, front, said):
    data = turned_jpeg()
    sent = upload_of(data, 100, filename="cat.png", size_bytes=len(data) if said else 0)

    image = (await stub.UploadReferenceImage(sent, metadata=alice)).reference_image

    assert (image.filename, image.mime_type, image.size_bytes) == ("cat.png", "image/jpeg", len(data))
    assert (image.width_px, image.height_px) == (48, 64)
    assert image.create_time.seconds < image.url_expire_time.seconds
    assert f"/objects/{BUCKET}/alice/{image.id}?token=" in image.url
    assert await front.store.get(BUCKET, f"alice/{image.id}") == data


async def test_an_upload_needs_a_token(stub):
    assert (await refusal(stub, upload_of(file_of(halves())), None)).code is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("file", BAD_FILES.values(), ids=BAD_FILES)
async def test_what_is_no_picture_is_refused(stub, alice, front, file):
    error = await refusal(stub, upload_of(file), alice)

    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REFERENCE_IMAGE")
    assert "can't be used as a reference image" in error.message
    assert [field.field for field in error.fields] == ["file"]
    assert await front.store.list(BUCKET) == []


@pytest.mark.parametrize(
    ("requests", "reason", "field"),
    [
        ([], "INVALID_REQUEST", "header"),
        ([Request()], "INVALID_REQUEST", "header"),
        ([Request(chunk=b"x")], "INVALID_REQUEST", "header"),
        ([header(), header()], "INVALID_REQUEST", "chunk"),
        ([header(), Request()], "INVALID_REQUEST", "chunk"),
        ([header(), Request(chunk=b"")], "INVALID_REQUEST", "chunk"),
        ([header(), Request(chunk=b"x" * (2**20 + 1))], "INVALID_REQUEST", "chunk"),
        ([header(size_bytes=3), Request(chunk=b"xx")], "INVALID_REFERENCE_IMAGE", "file"),
        ([header(size_bytes=1), Request(chunk=b"xx")], "INVALID_REFERENCE_IMAGE", "file"),
    ],
)
async def test_messages_out_of_order_are_refused(stub, alice, requests, reason, field):
    error = await refusal(stub, requests, alice)

    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert [each.field for each in error.fields] == [field]


async def test_ten_megabytes_are_taken_and_a_byte_more_is_not(stub, alice, front):
    data = file_of(halves())
    data += b"\0" * (MAX_FILE_BYTES - len(data))

    await stub.UploadReferenceImage(upload_of(data), metadata=alice)
    error = await refusal(stub, upload_of(data + b"\0"), alice)

    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "FILE_TOO_LARGE")
    assert "over 10 MB" in error.message
    assert len(await front.store.list(BUCKET)) == 1


async def test_a_file_that_says_it_is_too_large_is_not_waited_for(stub, alice):
    async def announce():
        yield header(size_bytes=MAX_FILE_BYTES + 1)
        await held.wait()

    held = asyncio.Event()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.UploadReferenceImage(announce(), metadata=alice)

    assert rpc_status.parse(caught.value).reason == "FILE_TOO_LARGE"


@pytest.mark.parametrize("method", ["ListReferenceImages", "DeleteReferenceImage", "ListAssets", "DeleteAsset"])
async def test_what_is_not_offered_says_so(stub, alice, method):
    request = getattr(assets_pb2, f"{method}Request")()

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(stub, method)(request, metadata=alice)

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
