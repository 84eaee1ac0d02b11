"""Users' files over gRPC, on a real database and store."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

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
from support.assets import add_asset
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


async def refused(call) -> rpc_status.ParsedError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return rpc_status.parse(caught.value)


async def test_pictures_are_listed_in_pages_newest_first(stub, alice):
    data = file_of(halves())
    images = [
        (await stub.UploadReferenceImage(upload_of(data, filename=str(number)), metadata=alice)).reference_image
        for number in range(3)
    ]

    first = await stub.ListReferenceImages(assets_pb2.ListReferenceImagesRequest(page_size=2), metadata=alice)
    second = await stub.ListReferenceImages(
        assets_pb2.ListReferenceImagesRequest(page_size=2, page_token=first.next_page_token), metadata=alice
    )

    found = [*first.reference_images, *second.reference_images]
    assert [image.filename for image in found] == ["2", "1", "0"]
    assert [image.id for image in found] == [image.id for image in reversed(images)]
    assert found[0].create_time == images[2].create_time
    assert second.next_page_token == ""
    everything = await stub.ListReferenceImages(assets_pb2.ListReferenceImagesRequest(), metadata=alice)
    assert len(everything.reference_images) == 3


async def test_a_picture_is_deleted_by_its_owner_alone(stub, alice, bob):
    image = (await stub.UploadReferenceImage(upload_of(file_of(halves())), metadata=alice)).reference_image
    request = assets_pb2.DeleteReferenceImageRequest(reference_image_id=image.id)

    errors = [
        await refused(stub.DeleteReferenceImage(each, metadata=bob))
        for each in (
            request,
            assets_pb2.DeleteReferenceImageRequest(reference_image_id=str(uuid4())),
            assets_pb2.DeleteReferenceImageRequest(),
        )
    ]

    assert (errors[0].code, errors[0].reason) == (grpc.StatusCode.NOT_FOUND, "REFERENCE_IMAGE_NOT_FOUND")
    assert errors == [errors[0]] * 3
    await stub.DeleteReferenceImage(request, metadata=alice)
    assert await refused(stub.DeleteReferenceImage(request, metadata=alice)) == errors[0]
    left = await stub.ListReferenceImages(assets_pb2.ListReferenceImagesRequest(), metadata=alice)
    assert list(left.reference_images) == []


async def test_over_what_a_user_may_keep_is_refused(stub, alice, front):
    await front.parts.uploads._database.execute(
        "INSERT INTO accounts (user_id, reference_bytes) VALUES ('alice', $1)", front.settings.reference_quota_bytes - 9
    )

    error = await refusal(stub, upload_of(file_of(halves())), alice)

    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_QUOTA_EXCEEDED")
    assert [field.field for field in error.fields] == ["file"]


async def test_an_asset_is_described(stub, alice, front):
    job_id = uuid4()
    asset_id = await add_asset(
        front.parts.uploads._database,
        job_id=job_id,
        job_type="video_fast",
        index=1,
        mime_type="video/mp4",
        duration_s=5.0,
        project_id="p",
    )
    await add_asset(front.parts.uploads._database)

    still, clip = (await stub.ListAssets(assets_pb2.ListAssetsRequest(), metadata=alice)).assets

    assert (clip.id, clip.job_id, clip.job_type) == (str(asset_id), str(job_id), "video_fast")
    assert (clip.output_index, clip.mime_type, clip.size_bytes, clip.seed) == (1, "video/mp4", 9, 7)
    assert (clip.width_px, clip.height_px, clip.project_id) == (64, 48, "p")
    assert clip.duration.ToTimedelta().total_seconds() == 5
    assert clip.create_time.seconds < clip.url_expire_time.seconds
    assert f"/objects/pictures/alice/{job_id}/1/1.png?token=" in clip.url
    assert not still.HasField("duration")
    assert still.project_id == ""


async def test_assets_are_listed_in_pages_and_narrowed(stub, alice, bob, front):
    database = front.parts.uploads._database
    added = [str(await add_asset(database, project_id="p" if index else None)) for index in range(3)]

    async def ids(metadata=alice, **request) -> tuple[list[str], str]:
        page = await stub.ListAssets(assets_pb2.ListAssetsRequest(**request), metadata=metadata)
        return [asset.id for asset in page.assets], page.next_page_token

    first, token = await ids(page_size=2)
    assert first == added[:0:-1]
    assert await ids(page_size=2, page_token=token) == (added[:1], "")
    assert (await ids(project_id="p"))[0] == added[:0:-1]
    assert (await ids(job_type="video_fast"))[0] == []
    assert (await ids(bob))[0] == []


@pytest.mark.parametrize(
    ("request_", "reason", "field"),
    [
        (assets_pb2.ListAssetsRequest(job_type="poem"), "UNKNOWN_JOB_TYPE", "job_type"),
        (assets_pb2.ListAssetsRequest(project_id="\0"), "INVALID_REQUEST", "project_id"),
        (assets_pb2.ListAssetsRequest(page_size=101), "INVALID_REQUEST", "page_size"),
        (assets_pb2.ListAssetsRequest(page_size=-1), "INVALID_REQUEST", "page_size"),
        (assets_pb2.ListAssetsRequest(page_token="x"), "INVALID_REQUEST", "page_token"),
        (assets_pb2.ListReferenceImagesRequest(page_size=101), "INVALID_REQUEST", "page_size"),
        (assets_pb2.ListReferenceImagesRequest(page_token="x"), "INVALID_REQUEST", "page_token"),
    ],
)
async def test_a_bad_page_or_filter_is_refused(stub, alice, request_, reason, field):
    method = getattr(stub, type(request_).__name__.removesuffix("Request"))

    error = await refused(method(request_, metadata=alice))

    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert [each.field for each in error.fields] == [field]


async def test_an_asset_is_deleted_by_its_owner_alone(stub, alice, bob, front):
    asset_id = await add_asset(front.parts.uploads._database)
    request = assets_pb2.DeleteAssetRequest(asset_id=str(asset_id))

    errors = [
        await refused(stub.DeleteAsset(each, metadata=bob))
        for each in (request, assets_pb2.DeleteAssetRequest(asset_id=str(uuid4())), assets_pb2.DeleteAssetRequest())
    ]

    assert (errors[0].code, errors[0].reason) == (grpc.StatusCode.NOT_FOUND, "ASSET_NOT_FOUND")
    assert errors == [errors[0]] * 3
    await stub.DeleteAsset(request, metadata=alice)
    assert await refused(stub.DeleteAsset(request, metadata=alice)) == errors[0]
    assert list((await stub.ListAssets(assets_pb2.ListAssetsRequest(), metadata=alice)).assets) == []


@pytest.mark.parametrize("method", ["ListReferenceImages", "DeleteReferenceImage", "ListAssets", "DeleteAsset"])
async def test_nothing_is_told_without_a_token(stub, method):
    error = await refused(getattr(stub, method)(getattr(assets_pb2, f"{method}Request")()))

    assert error.code is grpc.StatusCode.UNAUTHENTICATED
