"""What a caller is told when a call fails. The classes are the one table from errors to gRPC and HTTP statuses.

    ServiceError              the root; never raised itself
    ├── InvalidRequest        INVALID_REQUEST      INVALID_ARGUMENT     400
    │   └── PromptRefused     PROMPT_REFUSED       INVALID_ARGUMENT     400
    ├── Unauthenticated       UNAUTHENTICATED      UNAUTHENTICATED      401
    ├── PermissionDenied      PERMISSION_DENIED    PERMISSION_DENIED    403
    ├── NotFound              NOT_FOUND            NOT_FOUND            404
    ├── AlreadyExists         ALREADY_EXISTS       ALREADY_EXISTS       409
    ├── FailedPrecondition    FAILED_PRECONDITION  FAILED_PRECONDITION  409
    ├── Busy                  BUSY                 RESOURCE_EXHAUSTED   429
    ├── Aborted               ABORTED              ABORTED              500
    ├── Cancelled             CANCELLED            CANCELLED            499
    ├── Unavailable           UNAVAILABLE          UNAVAILABLE          503
    │   └── Draining          DRAINING             UNAVAILABLE          503
    └── Internal              INTERNAL             INTERNAL             500

A server's own errors are subclasses with a reason of their own, for example `JobNotFound(NotFound)`.
"""

# the names say what is wrong, and a suffix would say nothing more

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from ourvidz.rpc_status import DOMAIN, FieldViolation

MAX_TEXT_BYTES = 1024
"""Longer messages are cut: all of an error must fit into the 8 KiB of metadata that any peer takes."""

MAX_DETAILS_BYTES = 4096
"""Fields past this size are left out, for the same reason."""


class ServiceError(Exception):
    """A failure that its caller is told about.

    `message` is for people and goes to the caller as it is. `field` names the one field of the request that is to
    blame; `violations` name several. `retry_after_s` says in how many seconds to ask again. `metadata` is for programs
    and belongs to the reason.
    """

    reason: ClassVar[str] = "INTERNAL"
    grpc_status: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    http_status: ClassVar[int] = 500
    repeated_at_once: ClassVar[bool] = True
    """Whether clients that by themselves repeat a call which was UNAVAILABLE may do so a moment later."""

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        violations: Sequence[FieldViolation] = (),
        retry_after_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.violations = (*([FieldViolation(field, message)] if field is not None else []), *violations)
        self.retry_after_s = retry_after_s
        self.metadata = dict(metadata or {})


class InvalidRequest(ServiceError):
    """The request asks for what can't be."""

    reason = "INVALID_REQUEST"
    grpc_status = grpc.StatusCode.INVALID_ARGUMENT
    http_status = 400


class PromptRefused(InvalidRequest):
    """The prompt, or what was written from it, breaks the floor of the prompt policy. No message says which rule."""

    reason = "PROMPT_REFUSED"


class Unauthenticated(ServiceError):
    """The caller did not show who they are, or not credibly."""

    reason = "UNAUTHENTICATED"
    grpc_status = grpc.StatusCode.UNAUTHENTICATED
    http_status = 401


class PermissionDenied(ServiceError):
    """The caller is known and may not do this."""

    reason = "PERMISSION_DENIED"
    grpc_status = grpc.StatusCode.PERMISSION_DENIED
    http_status = 403


class NotFound(ServiceError):
    """What the request names is not there, or is not the caller's to see."""

    reason = "NOT_FOUND"
    grpc_status = grpc.StatusCode.NOT_FOUND
    http_status = 404


class AlreadyExists(ServiceError):
    """Something else stands under the name that the request gives."""

    reason = "ALREADY_EXISTS"
    grpc_status = grpc.StatusCode.ALREADY_EXISTS
    http_status = 409


class FailedPrecondition(ServiceError):
    """The request is good, but not in the state that things are in."""

    reason = "FAILED_PRECONDITION"
    grpc_status = grpc.StatusCode.FAILED_PRECONDITION
    http_status = 409


class Busy(ServiceError):
    """There is no room for this right now."""

    reason = "BUSY"
    grpc_status = grpc.StatusCode.RESOURCE_EXHAUSTED
    http_status = 429


class Aborted(ServiceError):
    """The attempt is over through no fault of the request; another one may work."""

    reason = "ABORTED"
    grpc_status = grpc.StatusCode.ABORTED
    http_status = 500


class Cancelled(ServiceError):
    """The work was cancelled."""

    reason = "CANCELLED"
    grpc_status = grpc.StatusCode.CANCELLED
    http_status = 499


class Unavailable(ServiceError):
    """Something that this needs is out of reach; asking again later may work."""

    reason = "UNAVAILABLE"
    grpc_status = grpc.StatusCode.UNAVAILABLE
    http_status = 503


class Draining(Unavailable):
    """The server is about to leave and takes no new work."""

    reason = "DRAINING"


class Internal(ServiceError):
    """The server failed. What the caller gets to read says nothing of its insides."""

    reason = "INTERNAL"


def to_status(error: ServiceError) -> status_pb2.Status:
    """Return the error as it goes over gRPC: with ErrorInfo, and BadRequest and RetryInfo where they apply."""
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)]
    if error.retry_after_s is not None:
        delay = Duration()
        delay.FromNanoseconds(round(error.retry_after_s * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if error.violations:
        details.append(_bad_request(error.violations))
    code: int = error.grpc_status.value[0]
    status = status_pb2.Status(code=code, message=_cut(error.message))
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _bad_request(violations: Sequence[FieldViolation]) -> error_details_pb2.BadRequest:
    bad = error_details_pb2.BadRequest()
    for violation in violations:
        bad.field_violations.add(field=_cut(violation.field), description=_cut(violation.description))
        if bad.ByteSize() > MAX_DETAILS_BYTES and len(bad.field_violations) > 1:
            del bad.field_violations[-1]
            break
    return bad


def _cut(text: str) -> str:
    # Encoding with "replace" also settles lone surrogates, which protobuf refuses.
    return text.encode(errors="replace")[:MAX_TEXT_BYTES].decode(errors="ignore")
