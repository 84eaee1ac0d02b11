"""What a route can ask for: the front that it belongs to, and who is calling."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from ourvidz_gateway.auth import Principal
from ourvidz_gateway.front import Front

# It only describes the header: the authenticator reads it, so that its answers are the same in REST and gRPC.
BEARER = HTTPBearer(scheme_name="token", bearerFormat="JWT", auto_error=False, description="The user's JWT.")


async def _front(request: Request) -> Front:  # FastAPI would send it to a thread otherwise
    front: Front = request.app.state.front
    return front


CurrentFront = Annotated[Front, Depends(_front)]
"""The front that serves this request."""


async def _caller(
    request: Request,
    front: CurrentFront,
    _described: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)],
) -> Principal:
    return await front.authenticator.authenticate(request.headers.get("authorization"))


Caller = Annotated[Principal, Depends(_caller)]
"""Who is calling; a request without a valid token never reaches the route, nor is its body read."""
