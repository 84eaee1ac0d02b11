"""Who is calling over gRPC."""

from __future__ import annotations

from typing import Any

from grpc.aio import ServicerContext

from ourvidz_gateway.auth import Principal
from ourvidz_gateway.front import Front


async def caller_of(front: Front, context: ServicerContext[Any, Any]) -> Principal:
    """Return the user whose token came in the call's metadata. Raises what the authenticator raises."""
    authorization = dict(context.invocation_metadata() or ()).get("authorization")
    # gRPC gives bytes only for keys that end in -bin.
    return await front.authenticator.authenticate(authorization if isinstance(authorization, str) else None)
