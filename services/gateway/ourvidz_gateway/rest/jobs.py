"""Users' jobs: asked for, looked at, stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request

from ourvidz_gateway.admission import JobDraft
from ourvidz_gateway.errors import InvalidRequest
from ourvidz_gateway.front import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, Front, parse_job_id
from ourvidz_gateway.jobs import Job, JobFilter, JobState
from ourvidz_gateway.rest.body import read_json_object
from ourvidz_gateway.rest.context import Caller, CurrentFront
from ourvidz_gateway.rest.errors import ERRORS
from ourvidz_gateway.rest.models import CancelReply, JobList, JobReply, QueueJobReply, QueueJobRequest, inline_schema
from ourvidz_gateway.text import quoted

router = APIRouter(prefix="/api", tags=["jobs"], responses=ERRORS)

_DRAFT_FIELDS = {
    "jobType": "job_type",
    "metadata": "metadata",
    "config": "config",
    "projectId": "project_id",
    "videoId": "video_id",
    "imageId": "image_id",
    "webhookUrl": "webhook_url",
}


@router.post(
    "/queue-job",
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/json": {"schema": inline_schema(QueueJobRequest)}}}
    },
)
async def queue_job(
    request: Request,
    front: CurrentFront,
    caller: Caller,
    idempotency_key: Annotated[
        str | None,
        Header(description="For 24 hours, the same key and body answer with the same job; at most 200 characters."),
    ] = None,
) -> QueueJobReply:
    """Ask for a job. Once this answers, the job is durable and will end as completed, failed or cancelled."""
    draft = replace(draft_of(await read_json_object(request)), idempotency_key=idempotency_key)
    accepted, job_type = await front.create_job(draft, caller.user_id)
    return QueueJobReply.of(accepted, job_type)


@router.get("/jobs")
async def list_jobs(
    front: CurrentFront,
    caller: Caller,
    page_size: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE)] = DEFAULT_PAGE_SIZE,
    page_token: Annotated[str | None, Query(description="The last page's `next_cursor`.")] = None,
    job_type: str | None = None,
    status: JobState | None = None,
    project_id: str | None = None,
    video_id: str | None = None,
    image_id: str | None = None,
) -> JobList:
    """List the caller's jobs, newest first."""
    where = JobFilter(
        job_type=job_type or None,
        state=status,
        project_id=project_id or None,
        video_id=video_id or None,
        image_id=image_id or None,
    )
    jobs, next_cursor = await front.list_jobs(caller.user_id, where, page_size=page_size, page_token=page_token or None)
    return JobList(jobs=[await _reply(front, job) for job in jobs], next_cursor=next_cursor)


@router.get("/jobs/{job_id}")
async def get_job(job_id: str, front: CurrentFront, caller: Caller) -> JobReply:
    """Tell where a job stands; its assets' URLs are signed for this reply."""
    return await _reply(front, await front.jobs.get(caller.user_id, parse_job_id(job_id)))


@router.post("/jobs/{job_id}/cancel")
async def cancel_job(job_id: str, front: CurrentFront, caller: Caller) -> CancelReply:
    """Cancel a job, queued or running. Doing it again, or to a job that has ended, changes nothing."""
    found, job = await front.jobs.cancel(caller.user_id, parse_job_id(job_id))
    return CancelReply(success=True, found_status=found, job=await _reply(front, job))


def draft_of(body: Mapping[str, Any]) -> JobDraft:
    """Read a request's top level. Raises `InvalidRequest` for a key that means nothing there."""
    unknown = [key for key in body if key not in _DRAFT_FIELDS]
    if unknown:
        raise InvalidRequest(
            f"There is no field {quoted(unknown[0])}. Fields of your own go into metadata.",
            field=quoted(unknown[0])[1:-1],
        )
    return JobDraft(**{_DRAFT_FIELDS[key]: value for key, value in body.items()})


async def _reply(front: Front, job: Job) -> JobReply:
    return JobReply.of(job, await front.sign(job))
