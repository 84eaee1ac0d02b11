"""What the service tells about a job: its record, the pictures it follows, its outputs, and the events on its way."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from ourvidz.api.assets.v1 import assets_pb2
from ourvidz.api.jobs.v1 import jobs_pb2
from ourvidz.references import ReferenceImage


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
class Asset:
    """One stored output of a job."""

    id: str
    url: str
    """Signed; opens without a token until `url_expires_at`."""
    url_expires_at: datetime | None
    mime_type: str
    size_bytes: int
    width_px: int
    height_px: int
    seed: int
    """Makes this very output when asked for alone."""
    duration_s: float | None
    """How long a clip plays; None for a still image."""


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
class JobPage:
    """Some of a user's jobs, newest first."""

    jobs: tuple[Job, ...]
    next_page_token: str | None
    """Asks for the next page; None on the last."""


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
    """One numbered event of a job."""

    sequence: int
    """Its number in the job: it grows, and never repeats."""
    created_at: datetime | None
    state: JobState
    stage: JobStage | None
    progress: int
    """Percent, 0 to 100."""
    attempt: int
    """From 1; 0 before the first."""
    step: Step | None
    error_message: str | None


def job_from_message(message: jobs_pb2.Job) -> Job:
    """Return the job that the message tells of."""
    return Job(
        id=message.id,
        user_id=message.user_id,
        job_type=message.job_type,
        state=_state(message.state),
        stage=_stage(message.stage),
        progress=message.progress_percent,
        queue_position=message.queue_position if message.HasField("queue_position") else None,
        created_at=_time(message, "create_time"),
        started_at=_time(message, "start_time"),
        completed_at=_time(message, "end_time"),
        metadata=_plain(json_format.MessageToDict(message.metadata)),
        assets=tuple(_asset(asset) for asset in message.assets),
        error_message=message.error_message or None,
        credits=message.credits,
        warnings=tuple(message.warnings),
        project_id=message.project_id or None,
        video_id=message.video_id or None,
        image_id=message.image_id or None,
        retry_of=message.retry_of or None,
        seed=message.seed if message.HasField("seed") else None,
    )


def event_from_message(message: jobs_pb2.WatchJobResponse) -> JobEvent:
    """Return the event that the message tells of."""
    step = message.step if message.HasField("step") else None
    return JobEvent(
        sequence=message.sequence,
        created_at=_time(message, "event_time"),
        state=_state(message.state),
        stage=_stage(message.stage),
        progress=message.progress_percent,
        attempt=message.attempt,
        step=Step(step.step, step.step_count, step.image_index, step.image_count) if step else None,
        error_message=message.error_message or None,
    )


def reference_from_message(message: assets_pb2.ReferenceImage) -> ReferenceImage:
    """Return the picture that the message tells of."""
    return ReferenceImage(
        id=message.id,
        url=message.url,
        url_expires_at=_time(message, "url_expire_time"),
        mime_type=message.mime_type,
        size_bytes=message.size_bytes,
        width_px=message.width_px,
        height_px=message.height_px,
    )


def _asset(message: jobs_pb2.JobAsset) -> Asset:
    return Asset(
        id=message.id,
        url=message.url,
        url_expires_at=_time(message, "url_expire_time"),
        mime_type=message.mime_type,
        size_bytes=message.size_bytes,
        width_px=message.width_px,
        height_px=message.height_px,
        seed=message.seed,
        duration_s=message.duration.ToTimedelta().total_seconds() if message.HasField("duration") else None,
    )


def _state(value: jobs_pb2.JobState.ValueType) -> JobState:
    return JobState(jobs_pb2.JobState.Name(value).removeprefix("JOB_STATE_").lower())


def _stage(value: jobs_pb2.JobStage.ValueType) -> JobStage | None:
    # A stage that this client is too old to know is shown as none; a state is not: acting on a guess would be wrong.
    if value == jobs_pb2.JOB_STAGE_UNSPECIFIED or value not in jobs_pb2.JobStage.values():
        return None
    return JobStage(jobs_pb2.JobStage.Name(value).removeprefix("JOB_STAGE_").lower())


def _time(message: Any, field: str) -> datetime | None:
    if not message.HasField(field):
        return None
    timestamp: Timestamp = getattr(message, field)
    return timestamp.ToDatetime(tzinfo=UTC)


def _plain(value: Any) -> Any:
    """Give whole numbers back as int: a Struct knows doubles only, and a seed of 7.0 reads badly."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
