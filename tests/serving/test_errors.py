"""Errors as they go over the wire, and as they are read at its other end."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

from ourvidz.rpc_status import DETAILS_KEY, FieldViolation, from_status, parse
from ourvidz_serving import errors
from ourvidz_serving.errors import Busy, InvalidRequest, ServiceError, to_status


def subclasses(of: type[ServiceError]) -> list[type[ServiceError]]:
    found = [
        each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, of) and each is not of
    ]
    assert found
    return found


@pytest.mark.parametrize("kind", subclasses(ServiceError), ids=lambda kind: kind.__name__)
def test_the_table_in_the_docstring_is_the_one_in_the_classes(kind: type[ServiceError]) -> None:
    assert errors.__doc__ is not None
    row = next(line for line in errors.__doc__.splitlines() if line.split()[-4:-3] == [kind.__name__])
    assert row.split()[-3:] == [kind.reason, kind.grpc_status.name, str(kind.http_status)]


def test_all_of_an_error_survives_the_way_there_and_back() -> None:
    error = InvalidRequest(
        "two things are wrong",
        field="seed",
        violations=[FieldViolation("prompt", "is empty")],
        retry_after_s=2.5,
        metadata={"limit": "6"},
    )
    status = to_status(error)
    parsed = from_status(status, grpc.StatusCode.INVALID_ARGUMENT, status.message)
    assert status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert parsed.code is grpc.StatusCode.INVALID_ARGUMENT
    assert parsed.reason == "INVALID_REQUEST"
    assert parsed.message == "two things are wrong"
    assert parsed.fields == (
        FieldViolation("seed", "two things are wrong"),
        FieldViolation("prompt", "is empty"),
    )
    assert parsed.retry_after_s == 2.5
    assert parsed.metadata == {"limit": "6"}


def test_an_error_carries_only_the_details_that_apply() -> None:
    details = to_status(Busy("all slots are busy", retry_after_s=1)).details
    assert [detail.TypeName() for detail in details] == ["google.rpc.ErrorInfo", "google.rpc.RetryInfo"]


@pytest.mark.parametrize("message", ["画" * 5000, "x" * 50_000, "lone \ud800 surrogate", "line\nbreak \x00 and NUL"])
def test_any_message_fits_into_the_metadata_of_a_call(message: str) -> None:
    violations = [FieldViolation(f"field{i}", message) for i in range(50)]
    status = to_status(InvalidRequest(message, violations=violations))
    assert status.message[:4] == message[:4]
    assert status.ByteSize() < 6 * 1024


def test_details_of_another_domain_are_left_alone() -> None:
    foreign = AnyMessage()
    foreign.Pack(error_details_pb2.ErrorInfo(reason="QUOTA", domain="proxy.example"))
    parsed = from_status(status_pb2.Status(details=[foreign]), grpc.StatusCode.UNAVAILABLE, "no way through")
    assert parsed.reason == "UNAVAILABLE"


@pytest.mark.parametrize("trailing", [(), ((DETAILS_KEY, b"\xff\xff broken"),)])
def test_an_error_without_readable_details_gives_its_code_and_message(trailing: tuple[tuple[str, bytes], ...]) -> None:
    error = grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), details="connection refused"
    )
    parsed = parse(error)
    assert (parsed.code, parsed.reason, parsed.message) == (
        grpc.StatusCode.UNAVAILABLE,
        "UNAVAILABLE",
        "connection refused",
    )
    assert parsed.retry_after_s is None
