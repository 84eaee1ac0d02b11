"""Errors on their way out: the client's own exceptions, sent as the service would send what they stand for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from ourvidz.errors import (
    BY_REASON,
    DeliveryInProgress,
    FileTooLarge,
    IdempotencyConflict,
    InsufficientCredits,
    InvalidRequest,
    JobNotQuarantined,
    NotFound,
    OurVidzError,
    PermissionDenied,
    RateLimited,
    StorageQuotaExceeded,
    Unauthenticated,
    Unavailable,
)
from ourvidz.rpc_status import DETAILS_KEY, DOMAIN, FieldViolation

_CODES: dict[type[OurVidzError], grpc.StatusCode] = {
    FileTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    StorageQuotaExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    RateLimited: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    NotFound: grpc.StatusCode.NOT_FOUND,
    IdempotencyConflict: grpc.StatusCode.ALREADY_EXISTS,
    InsufficientCredits: grpc.StatusCode.FAILED_PRECONDITION,
    DeliveryInProgress: grpc.StatusCode.FAILED_PRECONDITION,
    JobNotQuarantined: grpc.StatusCode.FAILED_PRECONDITION,
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
}
"""The status of each kind of error; the first that fits counts."""


def code_of(kind: type[OurVidzError]) -> grpc.StatusCode:
    """Return the gRPC status that the service gives an error of this kind."""
    return next((code for known, code in _CODES.items() if issubclass(kind, known)), grpc.StatusCode.INTERNAL)


def bad_field(kind: type[OurVidzError], message: str, field: str) -> OurVidzError:
    """Make an error that names the bad field."""
    return kind(message, fields=(FieldViolation(field, message),))


@contextmanager
def refusing(context: grpc.ServicerContext) -> Iterator[None]:
    """Let the call fail with what is raised in the block."""
    try:
        yield
    except OurVidzError as error:
        _refuse(context, error)


class _Status(NamedTuple):
    """What `abort_with_status` takes."""

    code: grpc.StatusCode
    details: str
    trailing_metadata: tuple[tuple[str, str | bytes], ...]


def _refuse(context: grpc.ServicerContext, error: OurVidzError) -> NoReturn:
    code = code_of(type(error))
    status = status_pb2.Status(code=code.value[0], message=str(error))
    for detail in _details(error):
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    trailing: tuple[tuple[str, str | bytes], ...] = (
        (DETAILS_KEY, status.SerializeToString()),
        # A client repeats calls by itself when a service is away; here it must hear at once what its test has set up.
        ("grpc-retry-pushback-ms", "-1"),
    )
    context.abort_with_status(_Status(code, str(error), trailing))  # type: ignore[arg-type]  # grpc's own protocol


def _details(error: OurVidzError) -> Iterator[Message]:
    if error.reason in BY_REASON:
        yield error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)
    if error.retry_after_s is not None:
        delay = Duration()
        delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        yield error_details_pb2.RetryInfo(retry_delay=delay)
    if error.fields:
        violation = error_details_pb2.BadRequest.FieldViolation
        yield error_details_pb2.BadRequest(
            field_violations=[violation(field=bad.field, description=bad.description) for bad in error.fields]
        )
