"""Pictures that users bring for their jobs to follow."""

from __future__ import annotations

from fastapi import APIRouter, Request

from ourvidz_gateway.rest.context import Caller, CurrentFront
from ourvidz_gateway.rest.errors import ERRORS
from ourvidz_gateway.rest.models import UploadReply
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
)
async def upload_reference(request: Request, front: CurrentFront, caller: Caller) -> UploadReply:
    """Store a picture and return the URL that jobs take as a reference. It is stored only once it has been checked."""
    async with front.references.uploading(caller.user_id):
        upload = await read_upload(request)
        return UploadReply.of(await front.upload_reference(caller.user_id, upload.data, filename=upload.filename))
