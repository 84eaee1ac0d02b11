"""Which items a list shows. In each filter None and a missing field are the same: all of them."""

from __future__ import annotations

from typing import TypedDict

from ourvidz.deliveries import DeliveryState
from ourvidz.jobs import JobState


class JobFilter(TypedDict, total=False):
    """Which jobs a list shows."""

    job_type: str | None
    state: JobState | None
    project_id: str | None
    video_id: str | None
    image_id: str | None


class AssetFilter(TypedDict, total=False):
    """Which assets a list shows."""

    job_type: str | None
    project_id: str | None


class DeliveryFilter(TypedDict, total=False):
    """Which webhook deliveries a list shows."""

    state: DeliveryState | None
    job_id: str | None
    user_id: str | None


class QuarantineFilter(TypedDict, total=False):
    """Which quarantined jobs a list shows."""

    user_id: str | None
    include_released: bool
    """Whether those are listed, too, that were released. Default: no."""
