"""Users' jobs: asked for, looked at, stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response

from ourvidz_gateway.draft import JobDraft
from ourvidz_gateway.errors import (
    BodyTooLarge,
    IdempotencyConflict,
    InsufficientCredits,
    InvalidPrompt,
    InvalidQuantity,
    InvalidReferenceImage,
    InvalidRequest,
    InvalidSeed,
    JobNotFound,
    ModerationUnavailable,
    NoRenderer,
    PromptRefused,
    QueueFull,
    RateLimited,
    UnknownJobType,
)
from ourvidz_gateway.front import Front, parse_job_id
from ourvidz_gateway.jobs import Job, JobFilter, JobState
from ourvidz_gateway.pages import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from ourvidz_gateway.rest.body import read_json_object
from ourvidz_gateway.rest.context import Caller, CurrentFront
from ourvidz_gateway.rest.errors import ERRORS, errors
from ourvidz_gateway.rest.models import CancelReply, JobList, JobReply, QueueJobReply, QueueJobRequest, inline_schema
from ourvidz_gateway.rest.preferences import MAX_WAIT_S, wait_of
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
    "startTimeoutSeconds": "start_timeout_s",
}


@router.post(
    "/queue-job",
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/json": {"schema": inline_schema(QueueJobRequest)}}}
    },
    responses={
        200: {
            "headers": {
                "Preference-Applied": {
                    "description": "For how long the reply waited at most, where the request preferred that it waits.",
                    "schema": {"type": "string", "examples": ["wait=30"]},
                }
            }
        },
        **errors(
            UnknownJobType,
            InvalidPrompt,
            PromptRefused,
            InvalidQuantity,
            InvalidSeed,
            InvalidReferenceImage,
            InvalidRequest,
            InsufficientCredits,
            BodyTooLarge,
            IdempotencyConflict,
            RateLimited,
            NoRenderer,
            QueueFull,
            ModerationUnavailable,
        ),
    },
)
async def queue_job(
    request: Request,
    response: Response,
    front: CurrentFront,
    caller: Caller,
    idempotency_key: Annotated[
        str | None,
        Header(description="For 24 hours, the same key and body answer with the same job; at most 200 characters."),
    ] = None,
    prefer: Annotated[
        list[str] | None,
        Header(
            description=f"`wait=N`: answer when the job has ended, or after N seconds (at most {MAX_WAIT_S}) with the job "
            "as it stands. Other preferences, and what can't be read, are ignored.",
            examples=[["wait=30"]],
        ),
    ] = None,
) -> QueueJobReply:
    """Ask for a job. Once this answers, the job is durable and will end as completed, failed or cancelled.

    With `Prefer: wait=N` it answers when that has happened, with the job and its assets. A caller who leaves before
    that does not cancel the job.
    """
    draft = replace(draft_of(await read_json_object(request)), idempotency_key=idempotency_key)
    accepted, job_type = await front.create_job(draft, caller.user_id)
    wait_s = wait_of(prefer or ())
    if wait_s is None:
        return QueueJobReply.of(accepted, job_type)
    response.headers["Preference-Applied"] = f"wait={wait_s}"
    job = await _await_end(request, front, accepted.job, wait_s)
    return QueueJobReply.of(accepted, job_type, await _reply(front, job))


@router.get("/jobs", responses=errors(InvalidRequest, UnknownJobType))
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


@router.get("/jobs/{job_id}", responses=errors(JobNotFound))
async def get_job(job_id: str, front: CurrentFront, caller: Caller) -> JobReply:
    """Tell where a job stands; its assets' URLs are signed for this reply."""
    return await _reply(front, await front.jobs.get(caller.user_id, parse_job_id(job_id)))


@router.post("/jobs/{job_id}/cancel", responses=errors(JobNotFound))
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


async def _await_end(request: Request, front: Front, job: Job, within_s: float) -> Job:
    """Return a job once it has ended or the time is over; nothing waits any longer for a caller who has left."""
    ending = asyncio.create_task(front.await_end(job, within_s=within_s))
    leaving = asyncio.create_task(_leave(request))
    try:
        await asyncio.wait({ending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return await ending if ending.done() else job
    finally:
        for task in (ending, leaving):
            task.cancel()
        await asyncio.gather(ending, leaving, return_exceptions=True)


async def _leave(request: Request) -> None:
    """Wait until the caller has left; the request's body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _reply(front: Front, job: Job) -> JobReply:
    return JobReply.of(job, await front.sign(job))
