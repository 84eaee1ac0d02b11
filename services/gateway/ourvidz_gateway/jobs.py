"""What a job is inside the gateway: the records that the queue, the dispatcher and both fronts share."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID


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


class Kind(StrEnum):
    """The resource that a stage waits for: one queue each."""

    SDXL = "sdxl"
    WAN = "wan"
    ENHANCER = "enhancer"
    FETCHER = "fetcher"
    """A gateway itself, which fetches reference pictures."""

    @property
    def queue(self) -> str:
        """The queue's name as REST shows it, for example `sdxl_queue`."""
        return f"{self.value}_queue"

    @property
    def server(self) -> str:
        """What does this work, in words for users."""
        match self:
            case Kind.SDXL | Kind.WAN:
                return f"{self.value} renderer"
            case Kind.ENHANCER:
                return "enhancer"
            case Kind.FETCHER:
                return "gateway"


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job that passed every check and has not been stored yet."""

    id: UUID
    user_id: str
    job_type: str
    kind: Kind
    """The kind of the first stage's resource."""
    request: dict[str, Any]
    """All that its stages need, settled at accept, so that a retry or a changed catalog renders the same."""
    metadata: dict[str, Any]
    """What came in, as it is returned."""
    credits: int
    project_id: str | None = None
    video_id: str | None = None
    image_id: str | None = None
    webhook_url: str | None = None
    """Called when it has ended, besides the operator's own."""
    start_timeout_s: float | None = None
    """It fails if no renderer has begun it within this time; None: the operator's limit."""
    retry_of: UUID | None = None
    """The quarantined job that it tries again."""
    idempotency_key: str | None = None
    """Under which the same request is the same job, for 24 hours; None: each request is a job."""
    fingerprint: bytes = b""
    """SHA-256 of the request as it came in: what tells the same request from another one under the same key."""


@dataclass(frozen=True, slots=True)
class Asset:
    """One stored output of a job."""

    id: UUID
    job_id: UUID
    index: int
    bucket: str
    key: str
    mime_type: str
    size_bytes: int
    width_px: int
    height_px: int
    seed: int
    duration_s: float | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Job:
    """A stored job as its user may see it, without signed URLs."""

    id: UUID
    user_id: str
    job_type: str
    state: JobState
    stage: JobStage | None
    """None once it has ended."""
    progress: int
    """Percent, 0 to 100; 100 only when completed."""
    queue_position: int | None
    """How many jobs are likely to start before it; None unless it waits."""
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    """When it ended, in whichever terminal state."""
    metadata: dict[str, Any]
    """What came in, plus `seed` and what the result adds."""
    error_message: str | None
    credits: int
    warnings: list[str]
    project_id: str | None
    video_id: str | None
    image_id: str | None
    retry_of: UUID | None
    assets: list[Asset] = field(default_factory=list)
    attempt: int = 0
    """The attempt last begun, from 1; 0 before the first."""
    last_sequence: int = 1
    """The number of its last event."""


@dataclass(frozen=True, slots=True)
class StepDetail:
    """A denoising step that is done."""

    step: int
    step_count: int
    image_index: int
    image_count: int


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One numbered event of a job."""

    job_id: UUID
    sequence: int
    """Its number in the job: it grows, and never repeats."""
    created_at: datetime
    state: JobState
    stage: JobStage | None
    progress: int
    attempt: int
    step: StepDetail | None = None
    error_message: str | None = None

    def __hash__(self) -> int:
        # All of its watchers look it up among what was made for one of them; these two tell it from all others.
        return hash((self.job_id, self.sequence))


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer to a job that was accepted."""

    job: Job
    queue_length: int
    """Jobs that wait in the type's queue, at most a second old."""


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """How full one queue is."""

    kind: Kind
    depth: int
    running: int
    oldest_seconds: float | None
    renderers: int
    """Renderers that can take work now, as this gateway sees them."""


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which of a user's jobs a list shows; None: all."""

    job_type: str | None = None
    state: JobState | None = None
    project_id: str | None = None
    video_id: str | None = None
    image_id: str | None = None
