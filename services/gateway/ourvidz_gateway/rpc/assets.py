"""`ourvidz.api.assets.v1.AssetService`. Errors are raised as they are; the server's interceptor answers for them."""

# ruff: noqa: N802  # the contract names the methods

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from grpc.aio import ServicerContext

from ourvidz.api.assets.v1 import assets_pb2, assets_pb2_grpc
from ourvidz_gateway.assets import AssetFilter
from ourvidz_gateway.errors import InvalidReferenceImage, InvalidRequest
from ourvidz_gateway.front import Front, SignedFile, SignedReference
from ourvidz_gateway.pages import DEFAULT_PAGE_SIZE
from ourvidz_gateway.rpc.caller import caller_of
from ourvidz_gateway.uploads import FIELD, check_size

SERVICE = "ourvidz.api.assets.v1.AssetService"

MAX_CHUNK_BYTES = 2**20


class AssetServicer(assets_pb2_grpc.AssetServiceServicer):
    """Users' files over gRPC. Lives as long as the server; holds nothing of its own."""

    def __init__(self, front: Front) -> None:
        self._front = front

    async def UploadReferenceImage(
        self,
        request_iterator: AsyncIterator[assets_pb2.UploadReferenceImageRequest],
        context: ServicerContext[Any, Any],
    ) -> assets_pb2.UploadReferenceImageResponse:
        """Take a picture in chunks and store it once it has been checked."""
        caller = await caller_of(self._front, context)
        async with self._front.parts.uploads.uploading(caller.user_id):
            header, data = await _read(request_iterator)
            signed = await self._front.upload_reference(caller.user_id, data, filename=header.filename)
        return assets_pb2.UploadReferenceImageResponse(reference_image=_reference_message(signed))

    async def ListReferenceImages(
        self, request: assets_pb2.ListReferenceImagesRequest, context: ServicerContext[Any, Any]
    ) -> assets_pb2.ListReferenceImagesResponse:
        """Return a page of the caller's pictures, newest first."""
        caller = await caller_of(self._front, context)
        images, next_page_token = await self._front.list_references(
            caller.user_id,
            page_size=request.page_size or DEFAULT_PAGE_SIZE,
            page_token=request.page_token or None,
        )
        return assets_pb2.ListReferenceImagesResponse(
            reference_images=[_reference_message(image) for image in images], next_page_token=next_page_token or ""
        )

    async def DeleteReferenceImage(
        self, request: assets_pb2.DeleteReferenceImageRequest, context: ServicerContext[Any, Any]
    ) -> assets_pb2.DeleteReferenceImageResponse:
        """Delete a picture."""
        caller = await caller_of(self._front, context)
        await self._front.delete_reference(caller.user_id, request.reference_image_id)
        return assets_pb2.DeleteReferenceImageResponse()

    async def ListAssets(
        self, request: assets_pb2.ListAssetsRequest, context: ServicerContext[Any, Any]
    ) -> assets_pb2.ListAssetsResponse:
        """Return a page of the caller's assets, newest first."""
        caller = await caller_of(self._front, context)
        assets, next_page_token = await self._front.list_assets(
            caller.user_id,
            AssetFilter(job_type=request.job_type or None, project_id=request.project_id or None),
            page_size=request.page_size or DEFAULT_PAGE_SIZE,
            page_token=request.page_token or None,
        )
        return assets_pb2.ListAssetsResponse(
            assets=[_asset_message(asset) for asset in assets], next_page_token=next_page_token or ""
        )

    async def DeleteAsset(
        self, request: assets_pb2.DeleteAssetRequest, context: ServicerContext[Any, Any]
    ) -> assets_pb2.DeleteAssetResponse:
        """Delete an asset."""
        caller = await caller_of(self._front, context)
        await self._front.delete_asset(caller.user_id, request.asset_id)
        return assets_pb2.DeleteAssetResponse()


async def _read(
    requests: AsyncIterator[assets_pb2.UploadReferenceImageRequest],
) -> tuple[assets_pb2.UploadHeader, bytes]:
    """Return the header and the whole file. Raises `FileTooLarge` as soon as it is."""
    header: assets_pb2.UploadHeader | None = None
    data = bytearray()
    async for request in requests:
        part = request.WhichOneof("part")
        if header is None:
            if part != "header":
                raise InvalidRequest("The first message of an upload must be its header.", field="header")
            header = request.header
            check_size(header.size_bytes)
            continue
        if part != "chunk":
            raise InvalidRequest("All messages of an upload after the first must be chunks.", field="chunk")
        if not 1 <= len(request.chunk) <= MAX_CHUNK_BYTES:
            raise InvalidRequest(f"A chunk must have 1 to {MAX_CHUNK_BYTES:,} bytes.", field="chunk")
        data += request.chunk
        check_size(len(data))
    if header is None:
        raise InvalidRequest("An upload begins with its header.", field="header")
    if header.size_bytes and header.size_bytes != len(data):
        raise InvalidReferenceImage(
            f"The header says {header.size_bytes:,} bytes, but {len(data):,} came.", field=FIELD
        )
    return header, bytes(data)


def _reference_message(signed: SignedReference) -> assets_pb2.ReferenceImage:
    image = signed.image
    message = assets_pb2.ReferenceImage(
        id=str(image.id),
        url=signed.url,
        filename=image.filename,
        mime_type=image.mime_type,
        size_bytes=image.size_bytes,
        width_px=image.width_px,
        height_px=image.height_px,
    )
    message.url_expire_time.FromDatetime(signed.url_expires_at)
    message.create_time.FromDatetime(image.created_at)
    return message


def _asset_message(signed: SignedFile) -> assets_pb2.Asset:
    listed, asset = signed.listed, signed.listed.asset
    message = assets_pb2.Asset(
        id=str(asset.id),
        job_id=str(asset.job_id),
        job_type=listed.job_type,
        output_index=asset.index,
        url=signed.url,
        mime_type=asset.mime_type,
        size_bytes=asset.size_bytes,
        width_px=asset.width_px,
        height_px=asset.height_px,
        seed=asset.seed,
        project_id=listed.project_id or "",
    )
    message.url_expire_time.FromDatetime(signed.url_expires_at)
    message.create_time.FromDatetime(asset.created_at)
    if asset.duration_s is not None:
        message.duration.FromTimedelta(timedelta(seconds=asset.duration_s))
    return message
