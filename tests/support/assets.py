"""Assets of jobs that need not have run."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

from ourvidz_gateway.database import Database

BUCKET = "pictures"


async def add_asset(database: Database, user: str = "alice", job_id: UUID | None = None, **changes: Any) -> UUID:
    """Store the row of an asset, a picture unless `changes` say otherwise, and return its id."""
    job_id = job_id or uuid4()
    asset = {
        "id": uuid4(),
        "job_id": job_id,
        "user_id": user,
        "index": 0,
        "bucket": BUCKET,
        "key": f"{user}/{job_id}/1/{changes.get('index', 0)}.png",
        "mime_type": "image/png",
        "size_bytes": 9,
        "sha256": bytes(32),
        "width_px": 64,
        "height_px": 48,
        "seed": 7,
        "job_type": "sdxl_image_fast",
        **changes,
    }
    names = ", ".join(asset)
    places = ", ".join(f"${number}" for number in range(1, len(asset) + 1))
    await database.execute(f"INSERT INTO assets ({names}) VALUES ({places})", *asset.values())
    return asset["id"]
