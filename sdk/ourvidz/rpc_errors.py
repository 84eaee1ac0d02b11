"""What gRPC raises, as the exception that its reason, or else its code, stands for."""

from __future__ import annotations

import grpc

from ourvidz.errors import (
    BY_REASON,
    InvalidRequest,
    NotFound,
    OurVidzError,
    PermissionDenied,
    ServerFailure,
    Unauthenticated,
    Unavailable,
    Unreachable,
)
from ourvidz.rpc_status import parse

_BROKEN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)
"""How gRPC itself reports a server that is away, going away, or stuck; a server of ours gives a reason of its own."""

_BY_CODE: dict[grpc.StatusCode, type[OurVidzError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Unavailable,
}
"""What a reason that this client does not know comes down to."""


def readable(error: grpc.RpcError, address: str) -> OurVidzError:
    """Return the exception for a call to `address` that failed."""
    status = parse(error)
    if status.reason == status.code.name and status.code in _BROKEN:
        kind: type[OurVidzError] = Unreachable
        # gRPC tells the whole way down to the socket; the last part is the one that says why.
        message = f"No answer from {address}: {status.message.rpartition(': ')[2]}"
    else:
        kind = BY_REASON.get(status.reason) or _BY_CODE.get(status.code, ServerFailure)
        message = status.message
    return kind(message, reason=status.reason, retry_after_s=status.retry_after_s, fields=status.fields)
