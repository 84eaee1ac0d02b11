"""The JSON of users' files: what they bring and what their jobs have made. What there is nothing of is left out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, Self
from uuid import UUID

from pydantic import BaseModel, Field

from ourvidz_gateway.front import SignedFile, SignedReference

_ID = "8d3c3c5e-53a5-4a5c-9e0a-0d8c6d1f7b21"
_JOB_ID = "0b6f1c9e-6d0c-4a67-9a39-6f1f3a1f0c53"
_CREATED = "2026-01-27T12:00:00Z"

PictureType = Literal["image/png", "image/jpeg", "image/webp"]


class UploadReply(BaseModel):
    """Answers an upload."""

    success: Literal[True]
    id: UUID = Field(examples=[_ID])
    url: str = Field(description="Signed; a job's reference fields take it, even when it has expired.")
    mime_type: PictureType
    width: int = Field(description="Pixels, upright.")
    height: int = Field(description="Pixels, upright.")
    size_bytes: int

    @classmethod
    def of(cls, signed: SignedReference) -> Self:
        """Describe a stored picture."""
        image = signed.image
        return cls.model_validate(
            {
                "success": True,
                "id": image.id,
                "url": signed.url,
                "mime_type": image.mime_type,
                "width": image.width_px,
                "height": image.height_px,
                "size_bytes": image.size_bytes,
            }
        )


class ReferenceImageReply(BaseModel):
    """A picture that was uploaded."""

    id: UUID = Field(examples=[_ID])
    url: str = Field(description="Signed for this reply; a job's reference fields take it, even when it has expired.")
    mime_type: PictureType
    width: int = Field(description="Pixels, upright.")
    height: int = Field(description="Pixels, upright.")
    size_bytes: int
    filename: str = Field(description="The name that the file had; empty if none was given.")
    created_at: datetime = Field(examples=[_CREATED])

    @classmethod
    def of(cls, signed: SignedReference) -> Self:
        """Describe a stored picture."""
        image = signed.image
        return cls.model_validate(
            {
                "id": image.id,
                "url": signed.url,
                "mime_type": image.mime_type,
                "width": image.width_px,
                "height": image.height_px,
                "size_bytes": image.size_bytes,
                "filename": image.filename,
                "created_at": image.created_at,
            }
        )


class ReferenceImageList(BaseModel):
    """A page of uploaded pictures, newest first."""

    reference_images: list[ReferenceImageReply]
    next_cursor: str | None = Field(None, description="Asks for the next page as `page_token`; absent on the last.")

    @classmethod
    def of(cls, images: Sequence[SignedReference], next_cursor: str | None) -> Self:
        """Describe a page."""
        return cls(reference_images=[ReferenceImageReply.of(image) for image in images], next_cursor=next_cursor)


class AssetReply(BaseModel):
    """A file that a job has made."""

    id: UUID = Field(examples=[_ID])
    job_id: UUID = Field(examples=[_JOB_ID], description="Its job; the record of an old job may be gone.")
    job_type: str = Field(examples=["sdxl_image_fast"])
    url: str = Field(description="Signed for this reply.")
    mime_type: str = Field(examples=["image/png"])
    size_bytes: int
    width: int = Field(description="Pixels.")
    height: int = Field(description="Pixels.")
    duration_seconds: float | None = Field(None, description="How long a clip plays; absent for still images.")
    seed: int | None = Field(None, description="The seed that makes this very file when asked for alone.")
    project_id: str | None = Field(None, description="As given with the job; absent if none was.")
    created_at: datetime = Field(examples=[_CREATED])

    @classmethod
    def of(cls, signed: SignedFile) -> Self:
        """Describe an asset."""
        listed, asset = signed.listed, signed.listed.asset
        return cls(
            id=asset.id,
            job_id=asset.job_id,
            job_type=listed.job_type,
            url=signed.url,
            mime_type=asset.mime_type,
            size_bytes=asset.size_bytes,
            width=asset.width_px,
            height=asset.height_px,
            duration_seconds=asset.duration_s,
            seed=asset.seed,
            project_id=listed.project_id,
            created_at=asset.created_at,
        )


class AssetList(BaseModel):
    """A page of assets, newest first."""

    assets: list[AssetReply]
    next_cursor: str | None = Field(None, description="Asks for the next page as `page_token`; absent on the last.")

    @classmethod
    def of(cls, assets: Sequence[SignedFile], next_cursor: str | None) -> Self:
        """Describe a page."""
        return cls(assets=[AssetReply.of(asset) for asset in assets], next_cursor=next_cursor)
