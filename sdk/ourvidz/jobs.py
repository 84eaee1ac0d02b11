"""What the service tells about a job: its record, and the events on its way."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from ourvidz.assets import Asset


class JobState(StrEnum):
    """Where a job stands; the words are the ones that REST shows."""

    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether a job can never leave this state."""
        return self in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)


class JobStage(StrEnum):
    """What is being done for a job."""

    QUEUED = "queued"
    FETCHING = "fetching"
    ENHANCING = "enhancing"
    RENDERING = "rendering"
    UPLOADING = "uploading"


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stood when the service was asked."""

    id: str
    user_id: str
    job_type: str
    state: JobState
    stage: JobStage | None
    """None once it has ended."""
    progress: int
    """Percent, 0 to 100; 100 only when completed."""
    queue_position: int | None
    """How many jobs are likely to start before it: 0 is next. None unless it waits."""
    created_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    """When it ended, in whichever terminal state."""
    metadata: dict[str, Any]
    """What came in, and what is known of the result."""
    assets: tuple[Asset, ...]
    error_message: str | None
    """Why it failed or was cancelled."""
    credits: int
    warnings: tuple[str, ...]
    project_id: str | None
    video_id: str | None
    image_id: str | None
    retry_of: str | None
    seed: int | None
    """The seed of image 0 or of the clip."""


@dataclass(frozen=True, slots=True)
class Step:
    """A denoising step that is done."""

    step: int
    """1 to `step_count`."""
    step_count: int
    image_index: int
    """Which image, from 0."""
    image_count: int


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One event of a job."""

    sequence: int
    """Its number in the job: it grows, and never repeats. A preview has none, and shows 0."""
    created_at: datetime | None
    state: JobState
    stage: JobStage | None
    progress: int
    """Percent, 0 to 100."""
    attempt: int
    """From 1; 0 before the first."""
    step: Step | None
    """The denoising step that was done, where that is the news."""
    error_message: str | None
    """Why the job failed or was cancelled."""
    enhanced_text: str | None
    """A piece of the enhanced prompt."""
    preview_jpeg: bytes | None
    """A small JPEG of what is being rendered; only for those who ask for previews."""
