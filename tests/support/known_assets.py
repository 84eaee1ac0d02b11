"""Assets as a client knows them."""

from __future__ import annotations

from ourvidz import Asset
from support.scripted_jobs import job


def asset(url: str, data: bytes) -> Asset:
    """An asset of these bytes, as a job has it."""
    return Asset(
        id="a",
        job_id=job().id,
        job_type="sdxl_image_fast",
        output_index=None,
        url=url,
        url_expires_at=None,
        mime_type="image/png",
        size_bytes=len(data),
        width_px=1024,
        height_px=1024,
        seed=7,
        duration_s=None,
        project_id=None,
        created_at=None,
    )
