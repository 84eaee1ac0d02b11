"""The gateway's records as messages of `ourvidz.api.jobs.v1`, and requests as drafts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any

from google.protobuf.duration_pb2 import Duration

from ourvidz.api.jobs.v1 import jobs_pb2
from ourvidz.rpc_status import FieldViolation
from ourvidz_gateway.admission import MAX_SEED
from ourvidz_gateway.draft import METADATA_FIELDS, JobDraft
from ourvidz_gateway.errors import InvalidRequest
from ourvidz_gateway.front import SignedAsset
from ourvidz_gateway.jobs import Job, JobEvent, JobStage, JobState, QueueStatus
from ourvidz_gateway.previews import Preview
from ourvidz_gateway.rpc.structs import from_struct, to_struct

STATES = {
    JobState.QUEUED: jobs_pb2.JOB_STATE_QUEUED,
    JobState.PROCESSING: jobs_pb2.JOB_STATE_PROCESSING,
    JobState.COMPLETED: jobs_pb2.JOB_STATE_COMPLETED,
    JobState.FAILED: jobs_pb2.JOB_STATE_FAILED,
    JobState.CANCELLED: jobs_pb2.JOB_STATE_CANCELLED,
}

STAGES = {
    None: jobs_pb2.JOB_STAGE_UNSPECIFIED,
    JobStage.QUEUED: jobs_pb2.JOB_STAGE_QUEUED,
    JobStage.FETCHING: jobs_pb2.JOB_STAGE_FETCHING,
    JobStage.ENHANCING: jobs_pb2.JOB_STAGE_ENHANCING,
    JobStage.RENDERING: jobs_pb2.JOB_STAGE_RENDERING,
    JobStage.UPLOADING: jobs_pb2.JOB_STAGE_UPLOADING,
}

_REFERENCE_TYPES = {
    jobs_pb2.REFERENCE_TYPE_UNSPECIFIED: None,
    jobs_pb2.REFERENCE_TYPE_STYLE: "style",
    jobs_pb2.REFERENCE_TYPE_COMPOSITION: "composition",
    jobs_pb2.REFERENCE_TYPE_CHARACTER: "character",
}

# Admission names fields as REST does; a caller over gRPC is told the name in the message.
_FIELDS = {
    "jobType": "job_type",
    "projectId": "project_id",
    "videoId": "video_id",
    "imageId": "image_id",
    "webhookUrl": "webhook_url",
    "startTimeoutSeconds": "start_timeout",
    "Idempotency-Key": "request_id",
    "metadata.num_images": "image_count",
    **{f"metadata.{key}": key for key in METADATA_FIELDS - {"num_images", "bucket"}},
}

# `bucket` has no field in the message, so it may stand in the metadata as over REST.
_RESERVED = METADATA_FIELDS - {"bucket"}


def name_fields(error: InvalidRequest) -> None:
    """Let an error of admission name fields as CreateJobRequest does."""
    for violation in error.violations:
        error.message = error.message.replace(violation.field, _field_name(violation.field))
    error.violations = tuple(
        FieldViolation(name := _field_name(each.field), each.description.replace(each.field, name))
        for each in error.violations
    )


def _field_name(path: str) -> str:
    """Return the field of CreateJobRequest that admission's path stands for."""
    return _FIELDS.get(path, path)


def draft_of(request: jobs_pb2.CreateJobRequest) -> JobDraft:
    """Read a request for a job. Raises `InvalidRequest` for metadata that a field of the message is meant for."""
    extras = from_struct(request.metadata)
    taken = sorted(_RESERVED & extras.keys())
    if taken:
        raise InvalidRequest(f"{taken[0]} has a field of its own; it can't stand in metadata.", field="metadata")
    return JobDraft(
        job_type=request.job_type,
        metadata={**extras, **_given(request)},
        project_id=request.project_id,
        video_id=request.video_id,
        image_id=request.image_id,
        webhook_url=request.webhook_url,
        start_timeout_s=_seconds(request.start_timeout) if request.HasField("start_timeout") else None,
        idempotency_key=request.request_id,
    )


def _seconds(start_timeout: Duration) -> float:
    """Return a span in seconds; admission says which will do. `ToTimedelta` would fail on what no timedelta can hold."""
    seconds, nanos = start_timeout.seconds, start_timeout.nanos
    if abs(nanos) >= 1_000_000_000 or seconds * nanos < 0:
        raise InvalidRequest("The time to start is no valid Duration.", field="start_timeout")
    return seconds + nanos / 1_000_000_000


def _given(request: jobs_pb2.CreateJobRequest) -> dict[str, Any]:
    """Return the fields that the caller has set, under the names that they have in metadata."""
    values = {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "num_images": request.image_count if request.HasField("image_count") else None,
        "seed": request.seed if request.HasField("seed") else None,
        "reference_image_url": request.reference_image_url,
        # A number from a newer contract stays what it is, and admission refuses it.
        "reference_type": _REFERENCE_TYPES.get(request.reference_type, request.reference_type),
        "start_reference_image_url": request.start_reference_image_url,
        "end_reference_image_url": request.end_reference_image_url,
        "reference_strength": request.reference_strength if request.HasField("reference_strength") else None,
        "credits": request.credits if request.HasField("credits") else None,
    }
    return {key: value for key, value in values.items() if value not in (None, "")}


def state_of(number: int) -> JobState | None:
    """Read a filter's state; None for all. Raises `InvalidRequest` for a number that is no state."""
    if number == jobs_pb2.JOB_STATE_UNSPECIFIED:
        return None
    for state, known in STATES.items():
        if known == number:
            return state
    raise InvalidRequest(f"There is no job state {number}.", field="state")


def job_message(job: Job, assets: Sequence[SignedAsset]) -> jobs_pb2.Job:
    """Return a job with its signed assets."""
    message = jobs_pb2.Job(
        id=str(job.id),
        user_id=job.user_id,
        job_type=job.job_type,
        state=STATES[job.state],
        stage=STAGES[job.stage],
        progress_percent=job.progress,
        queue_position=job.queue_position,
        metadata=to_struct(job.metadata),
        assets=[_asset_message(signed) for signed in assets],
        error_message=job.error_message or "",
        credits=job.credits,
        warnings=job.warnings,
        project_id=job.project_id or "",
        video_id=job.video_id or "",
        image_id=job.image_id or "",
        retry_of="" if job.retry_of is None else str(job.retry_of),
    )
    message.create_time.FromDatetime(job.created_at)
    if job.started_at is not None:
        message.start_time.FromDatetime(job.started_at)
    if job.completed_at is not None:
        message.end_time.FromDatetime(job.completed_at)
    seed = job.metadata.get("seed")
    if isinstance(seed, int) and 0 <= seed <= MAX_SEED:
        message.seed = seed
    return message


def _asset_message(signed: SignedAsset) -> jobs_pb2.JobAsset:
    asset = signed.asset
    message = jobs_pb2.JobAsset(
        id=str(asset.id),
        url=signed.url,
        mime_type=asset.mime_type,
        size_bytes=asset.size_bytes,
        width_px=asset.width_px,
        height_px=asset.height_px,
        seed=asset.seed,
    )
    message.url_expire_time.FromDatetime(signed.url_expires_at)
    if asset.duration_s is not None:
        message.duration.FromTimedelta(timedelta(seconds=asset.duration_s))
    return message


@lru_cache(maxsize=1024)
def event_message(event: JobEvent) -> jobs_pb2.WatchJobResponse:
    """Return one event of a job, the same message for all its watchers: nobody may change it."""
    message = jobs_pb2.WatchJobResponse(
        sequence=event.sequence,
        state=STATES[event.state],
        stage=STAGES[event.stage],
        progress_percent=event.progress,
        attempt=event.attempt,
    )
    message.event_time.FromDatetime(event.created_at)
    if event.step is not None:
        message.step.CopyFrom(
            jobs_pb2.StepDetail(
                step=event.step.step,
                step_count=event.step.step_count,
                image_index=event.step.image_index,
                image_count=event.step.image_count,
            )
        )
    elif event.error_message is not None:
        message.error_message = event.error_message
    return message


def standing_message(last: Job | JobEvent) -> jobs_pb2.WatchJobResponse:
    """Return where a job stands, without a number: a heartbeat. `last` is the last that is known of it."""
    message = jobs_pb2.WatchJobResponse(
        state=STATES[last.state], stage=STAGES[last.stage], progress_percent=last.progress, attempt=last.attempt
    )
    message.event_time.GetCurrentTime()
    return message


def preview_message(preview: Preview, last: Job | JobEvent) -> jobs_pb2.WatchJobResponse:
    """Return a preview of a job; `last` is the last that is known of it."""
    message = standing_message(last)
    message.attempt = preview.attempt
    message.preview_jpeg = preview.jpeg
    return message


def queue_message(queue: QueueStatus) -> jobs_pb2.QueueStatus:
    """Return how full one queue is."""
    message = jobs_pb2.QueueStatus(
        name=queue.kind.queue, depth=queue.depth, running=queue.running, renderer_count=queue.renderers
    )
    if queue.oldest_seconds is not None:
        message.oldest_wait.FromTimedelta(timedelta(seconds=queue.oldest_seconds))
    return message
