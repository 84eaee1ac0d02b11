"""The calls of AssetService."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from ourvidz.api.assets.v1 import assets_pb2
from ourvidz.api.assets.v1.assets_pb2_grpc import AssetServiceStub
from ourvidz.assets import Asset
from ourvidz.calls.call import Call
from ourvidz.calls.messages import optional_of, seconds_of, time_of
from ourvidz.pages import Page
from ourvidz.references import ReferenceImage

UPLOAD_TIMEOUT_S = 120.0
CHUNK_BYTES = 256 * 1024

UploadPart = assets_pb2.UploadReferenceImageRequest


def upload_reference(parts: Iterator[UploadPart] | AsyncIterator[UploadPart]) -> Call[ReferenceImage]:
    """Store a picture, sent as its header and then its chunks."""
    return Call(
        AssetServiceStub,
        "UploadReferenceImage",
        parts,
        lambda response: reference_from_message(response.reference_image),
        UPLOAD_TIMEOUT_S,
    )


def upload_header(filename: str, size_bytes: int) -> UploadPart:
    """Begin an upload."""
    return UploadPart(header=assets_pb2.UploadHeader(filename=filename, size_bytes=size_bytes))


def upload_chunk(data: bytes) -> UploadPart:
    """Go on with an upload."""
    return UploadPart(chunk=data)


def list_reference_images(page_size: int, page_token: str | None) -> Call[Page[ReferenceImage]]:
    """Return a page of reference images."""
    request = assets_pb2.ListReferenceImagesRequest(page_size=page_size, page_token=page_token or "")
    return Call(AssetServiceStub, "ListReferenceImages", request, _page_of_references)


def delete_reference_image(reference_image_id: str) -> Call[None]:
    """Delete a reference image."""
    request = assets_pb2.DeleteReferenceImageRequest(reference_image_id=reference_image_id)
    return Call(AssetServiceStub, "DeleteReferenceImage", request, _nothing)


def list_assets(
    page_size: int, page_token: str | None, *, job_type: str | None = None, project_id: str | None = None
) -> Call[Page[Asset]]:
    """Return a page of assets."""
    request = assets_pb2.ListAssetsRequest(
        page_size=page_size, page_token=page_token or "", job_type=job_type or "", project_id=project_id or ""
    )
    return Call(AssetServiceStub, "ListAssets", request, _page_of_assets)


def delete_asset(asset_id: str) -> Call[None]:
    """Delete an asset and its file."""
    return Call(AssetServiceStub, "DeleteAsset", assets_pb2.DeleteAssetRequest(asset_id=asset_id), _nothing)


def reference_from_message(message: assets_pb2.ReferenceImage) -> ReferenceImage:
    """Return the picture that the message tells of."""
    return ReferenceImage(
        id=message.id,
        url=message.url,
        url_expires_at=time_of(message, "url_expire_time"),
        filename=message.filename,
        mime_type=message.mime_type,
        size_bytes=message.size_bytes,
        width_px=message.width_px,
        height_px=message.height_px,
        created_at=time_of(message, "create_time"),
    )


def asset_from_message(message: assets_pb2.Asset) -> Asset:
    """Return the asset that the message tells of."""
    return Asset(
        id=message.id,
        job_id=message.job_id,
        job_type=message.job_type,
        output_index=message.output_index,
        url=message.url,
        url_expires_at=time_of(message, "url_expire_time"),
        mime_type=message.mime_type,
        size_bytes=message.size_bytes,
        width_px=message.width_px,
        height_px=message.height_px,
        seed=optional_of(message, "seed"),
        duration_s=seconds_of(message, "duration"),
        project_id=message.project_id or None,
        created_at=time_of(message, "create_time"),
    )


def _page_of_references(response: assets_pb2.ListReferenceImagesResponse) -> Page[ReferenceImage]:
    images = tuple(reference_from_message(image) for image in response.reference_images)
    return Page(images, response.next_page_token or None)


def _page_of_assets(response: assets_pb2.ListAssetsResponse) -> Page[Asset]:
    return Page(tuple(asset_from_message(asset) for asset in response.assets), response.next_page_token or None)


def _nothing(_response: object) -> None:
    return None
