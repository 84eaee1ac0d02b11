"""The calls of JobService."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

from google.protobuf import json_format

from ourvidz.api.jobs.v1 import jobs_pb2
from ourvidz.api.jobs.v1.jobs_pb2_grpc import JobServiceStub
from ourvidz.assets import Asset
from ourvidz.calls.call import Call
from ourvidz.calls.messages import optional_of, plain, seconds_of, time_of
from ourvidz.credits import Credits
from ourvidz.errors import InvalidRequest
from ourvidz.job_options import JobOptions
from ourvidz.jobs import Job, JobEvent, JobStage, JobState, Step
from ourvidz.pages import Page
from ourvidz.queues import Queue, QueueStatus
from ourvidz.references import ReferenceType


def create_job(job_type: str, prompt: str, options: JobOptions) -> Call[Job]:
    """Ask for a job. Raises `InvalidRequest` for what no message can say, and `TypeError` for no option at all."""
    if unknown := sorted(options.keys() - JobOptions.__optional_keys__):
        raise TypeError(f"a job has no option {unknown[0]!r}")
    # Drawn here, so that gRPC may send the same request again without a second job.
    fields: dict[str, Any] = {**options, "request_id": options.get("request_id") or str(uuid.uuid4())}
    metadata, start_timeout_s = fields.pop("metadata", None), fields.pop("start_timeout_s", None)
    try:
        fields["reference_type"] = _reference_type(fields.get("reference_type"))
        request = jobs_pb2.CreateJobRequest(job_type=job_type, prompt=prompt, **fields)
        if metadata:
            request.metadata.update(metadata)
        if start_timeout_s is not None:
            request.start_timeout.FromTimedelta(timedelta(seconds=start_timeout_s))
    except (ValueError, OverflowError) as error:  # what the wire has no form for
        raise InvalidRequest(str(error)) from error
    return Call(JobServiceStub, "CreateJob", request, lambda response: job_from_message(response.job))


def get_job(job_id: str) -> Call[Job]:
    """Return one job."""
    request = jobs_pb2.GetJobRequest(job_id=job_id)
    return Call(JobServiceStub, "GetJob", request, lambda response: job_from_message(response.job))


def cancel_job(job_id: str) -> Call[Job]:
    """Cancel a job, and return it as it stands then."""
    request = jobs_pb2.CancelJobRequest(job_id=job_id)
    return Call(JobServiceStub, "CancelJob", request, lambda response: job_from_message(response.job))


def list_jobs(
    page_size: int,
    page_token: str | None,
    *,
    job_type: str | None = None,
    state: JobState | None = None,
    project_id: str | None = None,
    video_id: str | None = None,
    image_id: str | None = None,
) -> Call[Page[Job]]:
    """Return a page of jobs."""
    request = jobs_pb2.ListJobsRequest(
        page_size=page_size,
        page_token=page_token or "",
        job_type=job_type or "",
        state=jobs_pb2.JobState.Value(f"JOB_STATE_{JobState(state).name if state else 'UNSPECIFIED'}"),
        project_id=project_id or "",
        video_id=video_id or "",
        image_id=image_id or "",
    )
    return Call(JobServiceStub, "ListJobs", request, _page)


def watch_job(job_id: str, *, after: int, previews: bool) -> Call[JobEvent]:
    """Stream a job's events; `read` takes one of them."""
    request = jobs_pb2.WatchJobRequest(job_id=job_id, resume_from=after, previews=previews)
    return Call(JobServiceStub, "WatchJob", request, event_from_message)


def queue_status() -> Call[QueueStatus]:
    """Tell how full the queues are."""
    return Call(JobServiceStub, "GetQueueStatus", jobs_pb2.GetQueueStatusRequest(), _queue_status)


def credits_left() -> Call[Credits]:
    """Return the caller's credits."""
    return Call(
        JobServiceStub,
        "GetCredits",
        jobs_pb2.GetCreditsRequest(),
        lambda response: Credits(response.available, response.reserved),
    )


def job_from_message(message: jobs_pb2.Job) -> Job:
    """Return the job that the message tells of."""
    return Job(
        id=message.id,
        user_id=message.user_id,
        job_type=message.job_type,
        state=_state(message.state),
        stage=_stage(message.stage),
        progress=message.progress_percent,
        queue_position=optional_of(message, "queue_position"),
        created_at=time_of(message, "create_time"),
        started_at=time_of(message, "start_time"),
        completed_at=time_of(message, "end_time"),
        metadata=plain(json_format.MessageToDict(message.metadata)),
        assets=tuple(_asset(message, asset) for asset in message.assets),
        error_message=message.error_message or None,
        credits=message.credits,
        warnings=tuple(message.warnings),
        project_id=message.project_id or None,
        video_id=message.video_id or None,
        image_id=message.image_id or None,
        retry_of=message.retry_of or None,
        seed=optional_of(message, "seed"),
    )


def event_from_message(message: jobs_pb2.WatchJobResponse) -> JobEvent:
    """Return the event that the message tells of."""
    step = message.step if message.HasField("step") else None
    return JobEvent(
        sequence=message.sequence,
        created_at=time_of(message, "event_time"),
        state=_state(message.state),
        stage=_stage(message.stage),
        progress=message.progress_percent,
        attempt=message.attempt,
        step=Step(step.step, step.step_count, step.image_index, step.image_count) if step else None,
        error_message=message.error_message or None,
        enhanced_text=message.enhanced_text or None,
        preview_jpeg=message.preview_jpeg or None,
    )


def _page(response: jobs_pb2.ListJobsResponse) -> Page[Job]:
    return Page(tuple(job_from_message(job) for job in response.jobs), response.next_page_token or None)


def _queue_status(response: jobs_pb2.GetQueueStatusResponse) -> QueueStatus:
    queues = tuple(
        Queue(queue.name, queue.depth, queue.running, seconds_of(queue, "oldest_wait"), queue.renderer_count)
        for queue in response.queues
    )
    return QueueStatus(response.queue_depth, queues)


def _asset(job: jobs_pb2.Job, message: jobs_pb2.JobAsset) -> Asset:
    return Asset(
        id=message.id,
        job_id=job.id,
        job_type=job.job_type,
        output_index=None,
        url=message.url,
        url_expires_at=time_of(message, "url_expire_time"),
        mime_type=message.mime_type,
        size_bytes=message.size_bytes,
        width_px=message.width_px,
        height_px=message.height_px,
        seed=message.seed,
        duration_s=seconds_of(message, "duration"),
        project_id=job.project_id or None,
        created_at=None,
    )


def _reference_type(kind: ReferenceType | None) -> jobs_pb2.ReferenceType.ValueType:
    if kind is None:
        return jobs_pb2.REFERENCE_TYPE_UNSPECIFIED
    return jobs_pb2.ReferenceType.Value(f"REFERENCE_TYPE_{ReferenceType(kind).name}")


def _state(value: jobs_pb2.JobState.ValueType) -> JobState:
    return JobState(jobs_pb2.JobState.Name(value).removeprefix("JOB_STATE_").lower())


def _stage(value: jobs_pb2.JobStage.ValueType) -> JobStage | None:
    # A stage that this client is too old to know is shown as none; a state is not: acting on a guess would be wrong.
    if value == jobs_pb2.JOB_STAGE_UNSPECIFIED or value not in jobs_pb2.JobStage.values():
        return None
    return JobStage(jobs_pb2.JobStage.Name(value).removeprefix("JOB_STAGE_").lower())
