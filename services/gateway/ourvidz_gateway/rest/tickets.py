"""Tickets for EventSource: asked for with a token, and what opens an event stream in its place."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request, Response, Security
from fastapi.security import APIKeyQuery, HTTPAuthorizationCredentials
from pydantic import BaseModel, Field

from ourvidz_gateway.errors import JobNotFound
from ourvidz_gateway.front import parse_job_id
from ourvidz_gateway.rest.context import BEARER, Caller, CurrentFront
from ourvidz_gateway.rest.errors import ERRORS, errors

router = APIRouter(prefix="/api", tags=["jobs"], responses=ERRORS)

# It only describes the parameter, as `BEARER` does the header.
_TICKET = APIKeyQuery(
    name="ticket", auto_error=False, scheme_name="ticket", description="A ticket for this job's events."
)


class TicketReply(BaseModel):
    """Opens one job's event stream, and nothing else, for whoever holds it."""

    ticket: str = Field(examples=["Yb0VhQeJ3yqk0yWb9qk2Jm0mM2s0h1oW3iU0b4k1c2E"])
    expires_at: datetime = Field(description="Until then it opens the stream, again and again; an open one goes on.")
    url: str = Field(
        description="The event stream with the ticket, below this API's own address.",
        examples=["/api/jobs/0b6f1c9e-6d0c-4a67-9a39-6f1f3a1f0c53/events?ticket=Yb0VhQeJ3yqk0yWb9qk2Jm0mM2s0h1oW"],
    )


@router.post("/jobs/{job_id}/ticket", responses=errors(JobNotFound))
async def create_ticket(job_id: str, front: CurrentFront, caller: Caller, response: Response) -> TicketReply:
    """Make a ticket for a job's event stream, for EventSource, which can't send a token in a header."""
    job = await front.jobs.get(caller.user_id, parse_job_id(job_id))
    ticket = await front.parts.tickets.issue(caller.user_id, job.id)
    response.headers["Cache-Control"] = "no-store"
    return TicketReply(
        ticket=ticket.text,
        expires_at=ticket.expires_at,
        url=f"/api/jobs/{job.id}/events?{urlencode({'ticket': ticket.text})}",
    )


async def _follower(
    job_id: str,
    request: Request,
    front: CurrentFront,
    _described: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)],
    ticket: Annotated[str | None, Security(_TICKET)],
) -> str:
    if ticket is not None:
        return await front.parts.tickets.redeem(ticket, parse_job_id(job_id))
    return (await front.authenticator.authenticate(request.headers.get("authorization"))).user_id


Follower = Annotated[str, Depends(_follower)]
"""The user whose job is followed: known by a token, or by a ticket, which counts where both are there."""
