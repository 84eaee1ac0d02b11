"""Reads what a server says about a failed call: the google.rpc.Status behind a gRPC error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "ourvidz"
"""The domain of every ErrorInfo that our servers send."""

DETAILS_KEY = "grpc-status-details-bin"
"""The trailing metadata that carries the google.rpc.Status."""


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """What is wrong with one field of a request."""

    field: str
    """The field's path in the request, for example `metadata.seed`."""
    description: str
    """What is wrong with it, in words for people."""


@dataclass(frozen=True, slots=True)
class ParsedError:
    """All that a server said about a failed call."""

    code: grpc.StatusCode
    reason: str
    """The server's own reason, for example `QUEUE_FULL`; the code's name where the server gave none."""
    message: str
    """What went wrong, in words for people."""
    retry_after_s: float | None = None
    """How long to wait before asking again, in seconds; None if the server did not say."""
    fields: tuple[FieldViolation, ...] = ()
    """The fields of the request that are bad."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """More that belongs to the reason."""


def parse(error: grpc.RpcError) -> ParsedError:
    """Return what the server said; an error that carries no details, or broken ones, gives its code and message."""
    code = error.code()
    message = error.details() or code.name
    # A channel's metadata is made of pairs in both kinds of channel, which grpc's own types do not say.
    trailing: Any = error.trailing_metadata() or ()
    details = next((value for key, value in trailing if key == DETAILS_KEY), b"")
    try:
        return from_status(status_pb2.Status.FromString(details), code, message)
    except DecodeError:
        return ParsedError(code=code, reason=code.name, message=message)


def from_status(status: status_pb2.Status, code: grpc.StatusCode, message: str) -> ParsedError:
    """Return what a status' details say beside its code and message. Raises `DecodeError` for broken details."""
    reason = code.name
    retry_after_s: float | None = None
    fields: tuple[FieldViolation, ...] = ()
    metadata: dict[str, str] = {}
    info, retry, bad = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        # A proxy may add details of its own domain; they are not ours to interpret.
        if detail.Unpack(info) and info.domain == DOMAIN:
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
        elif detail.Unpack(bad):
            fields = tuple(FieldViolation(each.field, each.description) for each in bad.field_violations)
    return ParsedError(code, reason, message, retry_after_s, fields, metadata)
