"""`ourvidz.api.assets.v1.AssetService`. Errors are raised as they are; the server's interceptor answers for them."""

# ruff: noqa: N802  # the contract names the methods

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc.aio import ServicerContext

from ourvidz.api.assets.v1 import assets_pb2, assets_pb2_grpc
from ourvidz_gateway.errors import InvalidReferenceImage, InvalidRequest
from ourvidz_gateway.front import Front, SignedReference
from ourvidz_gateway.references import FIELD, check_size
from ourvidz_gateway.rpc.caller import caller_of

SERVICE = "ourvidz.api.assets.v1.AssetService"

MAX_CHUNK_BYTES = 2**20

NOT_YET = "This server takes uploads; it does not list or delete files yet."


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
        async with self._front.references.uploading(caller.user_id):
            header, data = await _read(request_iterator)
            signed = await self._front.upload_reference(caller.user_id, data, filename=header.filename)
        return assets_pb2.UploadReferenceImageResponse(reference_image=_reference_message(signed))

    async def ListReferenceImages(
        self,
        request: assets_pb2.ListReferenceImagesRequest,  # noqa: ARG002  # it is not looked at
        context: ServicerContext[Any, Any],
    ) -> assets_pb2.ListReferenceImagesResponse:
        """Answer UNIMPLEMENTED."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, NOT_YET)

    async def DeleteReferenceImage(
        self,
        request: assets_pb2.DeleteReferenceImageRequest,  # noqa: ARG002  # it is not looked at
        context: ServicerContext[Any, Any],
    ) -> assets_pb2.DeleteReferenceImageResponse:
        """Answer UNIMPLEMENTED."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, NOT_YET)

    async def ListAssets(
        self,
        request: assets_pb2.ListAssetsRequest,  # noqa: ARG002  # it is not looked at
        context: ServicerContext[Any, Any],
    ) -> assets_pb2.ListAssetsResponse:
        """Answer UNIMPLEMENTED."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, NOT_YET)

    async def DeleteAsset(
        self,
        request: assets_pb2.DeleteAssetRequest,  # noqa: ARG002  # it is not looked at
        context: ServicerContext[Any, Any],
    ) -> assets_pb2.DeleteAssetResponse:
        """Answer UNIMPLEMENTED."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, NOT_YET)


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
