"""A job's live progress as Server-Sent Events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

import structlog
from fastapi import APIRouter, Header, Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from ourvidz_gateway.front import Front, parse_job_id, parse_sequence
from ourvidz_gateway.jobs import Job, JobEvent
from ourvidz_gateway.rest.context import Caller, CurrentFront
from ourvidz_gateway.rest.errors import ERRORS
from ourvidz_serving.errors import ServiceError

HEARTBEAT_S = 15
"""A comment is sent when nothing else was for this long, so that proxies keep the connection."""

log = structlog.get_logger()

router = APIRouter(prefix="/api", tags=["jobs"], responses=ERRORS)

_EXAMPLE = """id: 7
event: step
data: {"job_id": "0b6f1c9e-6d0c-4a67-9a39-6f1f3a1f0c53", "sequence": 7, "status": "processing", "stage": "rendering", \
"progress": 25, "step": 5, "step_count": 20, "image_index": 0, "image_count": 1, "attempt": 1, \
"created_at": "2026-01-27T12:00:03.125000+00:00"}
"""


@router.get(
    "/jobs/{job_id}/events",
    response_class=EventSourceResponse,
    responses={
        200: {
            "description": "The events, ending with the one in which the job has ended.",
            "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EXAMPLE}},
        },
        204: {"description": "The job has ended and the caller has seen all of it; EventSource stops here."},
    },
)
async def watch_job(
    job_id: str,
    front: CurrentFront,
    caller: Caller,
    last_event_id: Annotated[
        str, Header(description="The `id` of the last event seen; only later ones are sent.")
    ] = "0",
) -> Response:
    """Stream a job's events, `state` and `step`, from the first or from where the caller stopped, until it has ended."""
    after = parse_sequence(last_event_id, field="Last-Event-ID")
    # Asked first, so that an unknown job is a 404 and not a stream that breaks.
    job = await front.jobs.get(caller.user_id, parse_job_id(job_id))
    if after and await _has_seen_all(front, job, after):
        return Response(status_code=204)
    return EventSourceResponse(_stream(front, caller.user_id, job.id, after), ping=HEARTBEAT_S, sep="\n")


async def _has_seen_all(front: Front, job: Job, after: int) -> bool:
    """Whether nothing is left to send; a stream that just ended would make EventSource ask again for ever."""
    if not job.state.terminal:
        return False
    async with front.watch_job(job.user_id, job.id, after=after) as events:
        return await anext(events, None) is None


async def _stream(front: Front, user_id: str, job_id: UUID, after: int) -> AsyncIterator[ServerSentEvent]:
    try:
        async with front.watch_job(user_id, job_id, after=after) as events:
            async for event in events:
                yield ServerSentEvent(
                    id=str(event.sequence),
                    event="state" if event.step is None else "step",
                    data=json.dumps(event_data(event), ensure_ascii=False),
                    sep="\n",
                )
    except ServiceError as error:
        # The status is long sent. Ending the stream makes the client ask again, from its last event.
        log.warning("event stream ended early", job_id=str(job_id), reason=error.reason)


def event_data(event: JobEvent) -> dict[str, Any]:
    """Return an event's JSON; the step's four numbers and the error are there only where there are any."""
    data: dict[str, Any] = {
        "job_id": str(event.job_id),
        "sequence": event.sequence,
        "status": event.state.value,
        "stage": None if event.stage is None else event.stage.value,
        "progress": event.progress,
        "attempt": event.attempt,
        "created_at": event.created_at.isoformat(),
    }
    if event.step is not None:
        data |= {
            "step": event.step.step,
            "step_count": event.step.step_count,
            "image_index": event.step.image_index,
            "image_count": event.step.image_count,
        }
    if event.error_message is not None:
        data["error_message"] = event.error_message
    return data
