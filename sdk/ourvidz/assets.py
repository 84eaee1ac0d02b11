"""Files that jobs made."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Asset:
    """One stored output of a job."""

    id: str
    job_id: str
    job_type: str
    output_index: int | None
    """Which of the job's outputs it is, from 0; a job's own list, which is in order, does not say."""
    url: str
    """Signed; opens without a token until `url_expires_at`."""
    url_expires_at: datetime | None
    mime_type: str
    """`image/png` or `video/mp4`."""
    size_bytes: int
    width_px: int
    height_px: int
    seed: int | None
    """Makes this very output when asked for alone; None where it is not known."""
    duration_s: float | None
    """How long a clip plays; None for a still image."""
    project_id: str | None
    """The caller's own project, as given with the job."""
    created_at: datetime | None
    """When it was stored; a job's own list does not say."""
