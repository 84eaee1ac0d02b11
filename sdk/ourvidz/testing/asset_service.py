"""The double's AssetService."""

# ruff: noqa: N802  # the contract names the methods

from __future__ import annotations

from collections.abc import Iterator, Sequence

import grpc

from ourvidz.api.assets.v1 import assets_pb2, assets_pb2_grpc
from ourvidz.errors import FileTooLarge, InvalidReferenceImage, InvalidRequest
from ourvidz.testing import pictures
from ourvidz.testing.lists import check_filters, page_of
from ourvidz.testing.reception import Reception
from ourvidz.testing.refusals import bad_field
from ourvidz.testing.world import World

MAX_FILE_BYTES = 10 * 2**20
MAX_CHUNK_BYTES = 2**20
MAX_PIXELS = 50_000_000


class FakeAssetService(assets_pb2_grpc.AssetServiceServicer):
    """Keeps users' files as the service does. Holds nothing of its own."""

    def __init__(self, world: World, reception: Reception) -> None:
        self._world = world
        self._reception = reception

    def UploadReferenceImage(
        self, request_iterator: Iterator[assets_pb2.UploadReferenceImageRequest], context: grpc.ServicerContext
    ) -> assets_pb2.UploadReferenceImageResponse:
        """Take a picture in chunks and keep it once it has been checked."""
        # Read before the world is held: a slow sender stops nobody else.
        parts = list(_until_too_large(request_iterator))
        with self._reception.call("UploadReferenceImage", parts, context) as user_id:
            header, data = _whole(parts)
            found = pictures.describe(data)
            if found is None:
                raise _unusable("it is no whole PNG, JPEG or WebP file")
            mime_type, width_px, height_px = found
            if width_px * height_px > MAX_PIXELS:
                raise _unusable(f"it has {width_px}×{height_px} pixels; at most 50 megapixels are read")
            image = self._world.add_reference(
                user_id,
                data,
                filename=header.filename[:200],
                mime_type=mime_type,
                width_px=width_px,
                height_px=height_px,
            )
            return assets_pb2.UploadReferenceImageResponse(reference_image=image)

    def ListReferenceImages(
        self, request: assets_pb2.ListReferenceImagesRequest, context: grpc.ServicerContext
    ) -> assets_pb2.ListReferenceImagesResponse:
        """Return a page of the caller's pictures, newest first."""
        with self._reception.call("ListReferenceImages", request, context) as user_id:
            page, token = page_of(
                self._world.references(user_id),
                lambda image: image.number,
                page_size=request.page_size,
                page_token=request.page_token,
            )
            return assets_pb2.ListReferenceImagesResponse(
                reference_images=[image.message for image in page], next_page_token=token
            )

    def DeleteReferenceImage(
        self, request: assets_pb2.DeleteReferenceImageRequest, context: grpc.ServicerContext
    ) -> assets_pb2.DeleteReferenceImageResponse:
        """Delete a picture."""
        with self._reception.call("DeleteReferenceImage", request, context) as user_id:
            self._world.delete_reference(user_id, request.reference_image_id)
            return assets_pb2.DeleteReferenceImageResponse()

    def ListAssets(
        self, request: assets_pb2.ListAssetsRequest, context: grpc.ServicerContext
    ) -> assets_pb2.ListAssetsResponse:
        """Return a page of the caller's assets, newest first."""
        with self._reception.call("ListAssets", request, context) as user_id:
            check_filters(request)
            found = [
                asset
                for asset in self._world.assets(user_id)
                if request.job_type in ("", asset.message.job_type)
                and request.project_id in ("", asset.message.project_id)
            ]
            page, token = page_of(
                found, lambda asset: asset.number, page_size=request.page_size, page_token=request.page_token
            )
            return assets_pb2.ListAssetsResponse(assets=[asset.message for asset in page], next_page_token=token)

    def DeleteAsset(
        self, request: assets_pb2.DeleteAssetRequest, context: grpc.ServicerContext
    ) -> assets_pb2.DeleteAssetResponse:
        """Delete an asset and its file."""
        with self._reception.call("DeleteAsset", request, context) as user_id:
            self._world.delete_asset(user_id, request.asset_id)
            return assets_pb2.DeleteAssetResponse()


def _until_too_large(
    parts: Iterator[assets_pb2.UploadReferenceImageRequest],
) -> Iterator[assets_pb2.UploadReferenceImageRequest]:
    size = 0
    for part in parts:
        yield part
        size += len(part.chunk)
        if max(size, part.header.size_bytes) > MAX_FILE_BYTES:
            return


def _whole(parts: Sequence[assets_pb2.UploadReferenceImageRequest]) -> tuple[assets_pb2.UploadHeader, bytes]:
    """Return the header and the file."""
    if not parts or parts[0].WhichOneof("part") != "header":
        raise bad_field(InvalidRequest, "The first message of an upload must be its header.", "header")
    header = parts[0].header
    data = b"".join(part.chunk for part in parts)
    if max(header.size_bytes, len(data)) > MAX_FILE_BYTES:
        raise bad_field(FileTooLarge, "The file is over 10 MB.", "file")
    for part in parts[1:]:
        if part.WhichOneof("part") != "chunk":
            raise bad_field(InvalidRequest, "All messages of an upload after the first must be chunks.", "chunk")
        if not 1 <= len(part.chunk) <= MAX_CHUNK_BYTES:
            raise bad_field(InvalidRequest, f"A chunk must have 1 to {MAX_CHUNK_BYTES:,} bytes.", "chunk")
    if header.size_bytes and header.size_bytes != len(data):
        raise bad_field(
            InvalidReferenceImage, f"The header says {header.size_bytes:,} bytes, but {len(data):,} came.", "file"
        )
    return header, data


def _unusable(fault: str) -> Exception:
    return bad_field(InvalidReferenceImage, f"The file can't be used as a reference image: {fault}.", "file")
