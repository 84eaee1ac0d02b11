"""Pictures that users bring for their jobs to follow."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from ourvidz_gateway.errors import (
    FileTooLarge,
    InvalidReferenceImage,
    InvalidRequest,
    RateLimited,
    ReferenceImageNotFound,
    StorageQuotaExceeded,
    StorageUnavailable,
)
from ourvidz_gateway.pages import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from ourvidz_gateway.rest.context import Caller, CurrentFront
from ourvidz_gateway.rest.errors import ERRORS, errors
from ourvidz_gateway.rest.file_models import ReferenceImageList, UploadReply
from ourvidz_gateway.rest.upload import read_upload

router = APIRouter(prefix="/api", tags=["reference images"], responses=ERRORS)

_FORM = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {
            "type": "string",
            "format": "binary",
            "description": "A PNG, JPEG or WebP of at most 10 MB and 50 megapixels.",
        }
    },
}


@router.post(
    "/upload-reference",
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}},
    responses=errors(
        InvalidReferenceImage, InvalidRequest, FileTooLarge, StorageQuotaExceeded, RateLimited, StorageUnavailable
    ),
)
async def upload_reference(request: Request, front: CurrentFront, caller: Caller) -> UploadReply:
    """Store a picture and return the URL that jobs take as a reference. It is stored only once it has been checked."""
    async with front.parts.uploads.uploading(caller.user_id):
        upload = await read_upload(request)
        return UploadReply.of(await front.upload_reference(caller.user_id, upload.data, filename=upload.filename))


@router.get("/reference-images", response_model_exclude_none=True, responses=errors(InvalidRequest))
async def list_reference_images(
    front: CurrentFront,
    caller: Caller,
    page_size: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE)] = DEFAULT_PAGE_SIZE,
    page_token: Annotated[str | None, Query(description="The last page's `next_cursor`.")] = None,
) -> ReferenceImageList:
    """List the pictures that the caller has uploaded, newest first."""
    images, next_cursor = await front.list_references(
        caller.user_id, page_size=page_size, page_token=page_token or None
    )
    return ReferenceImageList.of(images, next_cursor)


@router.delete("/reference-images/{image_id}", status_code=204, responses=errors(ReferenceImageNotFound))
async def delete_reference_image(image_id: str, front: CurrentFront, caller: Caller) -> None:
    """Delete an uploaded picture. Jobs that were accepted with it and have not used it yet go on without it."""
    await front.delete_reference(caller.user_id, image_id)
