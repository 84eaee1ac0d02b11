"""A job's live progress as Server-Sent Events."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Header, Query, Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from ourvidz_gateway.errors import InvalidRequest, JobNotFound
from ourvidz_gateway.front import Front, parse_job_id, parse_sequence
from ourvidz_gateway.jobs import Job, JobEvent, JobStage, JobState
from ourvidz_gateway.previews import Preview
from ourvidz_gateway.rest.context import CurrentFront
from ourvidz_gateway.rest.errors import ERRORS, errors
from ourvidz_gateway.rest.tickets import Follower
from ourvidz_gateway.watches import HEARTBEAT_S, Heartbeat, Update
from ourvidz_serving.errors import ServiceError

log = structlog.get_logger()

router = APIRouter(prefix="/api", tags=["jobs"], responses=ERRORS)

_EXAMPLE = """id: 7
event: step
data: {"job_id": "0b6f1c9e-6d0c-4a67-9a39-6f1f3a1f0c53", "sequence": 7, "status": "processing", "stage": "rendering", \
"progress": 25, "step": 5, "step_count": 20, "image_index": 0, "image_count": 1, "attempt": 1, \
"created_at": "2026-01-27T12:00:03.125000+00:00"}

event: preview
data: {"job_id": "0b6f1c9e-6d0c-4a67-9a39-6f1f3a1f0c53", "attempt": 1, "image_index": 0, "step": 5, \
"jpeg": "data:image/jpeg;base64,/9j/4AAQSkZJRg…"}
"""

_OF_A_JOB: dict[str, Any] = {
    "job_id": {"type": "string", "format": "uuid"},
    "attempt": {"type": "integer", "minimum": 0, "description": "From 1; 0 before the first."},
}
_OF_A_STEP: dict[str, Any] = {
    "step": {"type": "integer", "minimum": 1, "description": "Which step of this image or clip."},
    "image_index": {"type": "integer", "minimum": 0},
}
_EVENT_DATA: dict[str, Any] = {
    "type": "object",
    "properties": {
        **_OF_A_JOB,
        **_OF_A_STEP,
        "sequence": {"type": "integer", "minimum": 1, "description": "The event's `id`."},
        "status": {"enum": [state.value for state in JobState]},
        "stage": {"enum": [*(stage.value for stage in JobStage), None]},
        "progress": {"type": "integer", "minimum": 0, "maximum": 100},
        "created_at": {"type": "string", "format": "date-time"},
        "step_count": {"type": "integer", "minimum": 1},
        "image_count": {"type": "integer", "minimum": 1},
        "error_message": {"type": "string", "description": "Why the job failed or was cancelled."},
    },
    "required": ["job_id", "sequence", "status", "stage", "progress", "attempt", "created_at"],
}
_PREVIEW_DATA: dict[str, Any] = {
    "type": "object",
    "properties": {
        **_OF_A_JOB,
        **_OF_A_STEP,
        "jpeg": {"type": "string", "pattern": "^data:image/jpeg;base64,", "description": "For an `<img>`, as it is."},
    },
    "required": ["job_id", "attempt", "image_index", "step", "jpeg"],
}


def _one_event(name: str, data: dict[str, Any], **properties: Any) -> dict[str, Any]:
    described = {"type": "string", "contentMediaType": "application/json", "contentSchema": data}
    return {
        "type": "object",
        "properties": {"event": {"const": name}, "data": described, **properties},
        "required": ["event", "data", *properties],
    }


_ID = {"type": "string", "pattern": "^[1-9][0-9]*$"}
_EVENT = {
    "oneOf": [
        _one_event("state", _EVENT_DATA, id=_ID),
        _one_event("step", {**_EVENT_DATA, "required": [*_EVENT_DATA["required"], *_OF_A_STEP]}, id=_ID),
        _one_event("preview", _PREVIEW_DATA),
    ]
}


@router.get(
    "/jobs/{job_id}/events",
    response_class=EventSourceResponse,
    responses={
        200: {
            "description": "The events, ending with the one in which the job has ended.",
            "content": {"text/event-stream": {"itemSchema": _EVENT, "example": _EXAMPLE}},
        },
        204: {"description": "The job has ended and the caller has seen all of it; EventSource stops here."},
        **errors(InvalidRequest, JobNotFound),
    },
)
async def watch_job(
    job_id: str,
    front: CurrentFront,
    user_id: Follower,
    last_event_id: Annotated[
        str, Header(description="The `id` of the last event seen; only later ones are sent.")
    ] = "0",
    preview: Annotated[  # noqa: FBT002  # FastAPI passes it by name
        bool, Query(description="Whether to send previews: events without an `id`, only the latest, never again.")
    ] = False,
) -> Response:
    """Stream a job's events, `state` and `step`, from the first or from where the caller stopped, until it has ended.

    A token opens it, or a ticket that `POST /api/jobs/{job_id}/ticket` made. A comment comes when there was nothing else for
    15 seconds, so that proxies keep the connection.
    """
    after = parse_sequence(last_event_id, field="Last-Event-ID")
    # Asked first, so that an unknown job is a 404 and not a stream that breaks.
    job = await front.jobs.get(user_id, parse_job_id(job_id))
    if job.state.terminal and after == job.last_sequence:
        # A stream that just ended would make EventSource ask again for ever.
        return Response(status_code=204)
    # Without the pings of the library, which come whether anything else was sent or not.
    return EventSourceResponse(_stream(front, job, after=after, previews=preview), ping=0, sep="\n")


async def _stream(front: Front, job: Job, *, after: int, previews: bool) -> AsyncIterator[ServerSentEvent | bytes]:
    try:
        async with front.watch_job(job, after=after, previews=previews, heartbeat_s=HEARTBEAT_S) as updates:
            async for update in updates:
                yield _sent(update)
    except ServiceError as error:
        # The status is long sent. Ending the stream makes the client ask again, from its last event.
        log.warning("event stream ended early", job_id=str(job.id), reason=error.reason)


def _sent(update: Update) -> ServerSentEvent | bytes:
    match update:
        case Heartbeat():
            return ServerSentEvent(comment="heartbeat", sep="\n")
        case Preview():
            # Without an id, so that what a listener has seen last stays the event before.
            return ServerSentEvent(event="preview", data=json.dumps(preview_data(update)), sep="\n")
        case JobEvent():
            return _event_sent(update)


@lru_cache(maxsize=1024)
def _event_sent(event: JobEvent) -> bytes:
    """Return what all watchers of an event are sent."""
    return ServerSentEvent(
        id=str(event.sequence),
        event="state" if event.step is None else "step",
        data=json.dumps(event_data(event), ensure_ascii=False),
        sep="\n",
    ).encode()


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


def preview_data(preview: Preview) -> dict[str, Any]:
    """Return a preview's JSON, with a picture that an `<img>` can show as it is."""
    return {
        "job_id": str(preview.job_id),
        "attempt": preview.attempt,
        "image_index": preview.image_index,
        "step": preview.step,
        "jpeg": f"data:image/jpeg;base64,{base64.b64encode(preview.jpeg).decode()}",
    }
