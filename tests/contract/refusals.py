"""The reference's table of errors: what each reason is over REST and over gRPC. Written down once, and not read from the code."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from contract.belongings import UNKNOWN
from contract.driver import Driver, Refused
from support.pictures import file_of, halves

INVALID, EXHAUSTED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED
NOT_FOUND, UNAVAILABLE = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE


@dataclass(frozen=True)
class Said:
    """How one reason is said."""

    http: int
    grpc: grpc.StatusCode
    flag: str | None = None
    waits: bool = False
    """Whether it says when to ask again."""


SAID = {
    "INVALID_REQUEST": Said(400, INVALID),
    "UNKNOWN_JOB_TYPE": Said(400, INVALID),
    "INVALID_PROMPT": Said(400, INVALID),
    "PROMPT_REFUSED": Said(400, INVALID),
    "INVALID_QUANTITY": Said(400, INVALID, "invalidQuantity"),
    "INVALID_SEED": Said(400, INVALID, "invalidSeed"),
    "INVALID_REFERENCE_IMAGE": Said(400, INVALID, "referenceImageError"),
    "FILE_TOO_LARGE": Said(413, EXHAUSTED, "referenceImageError"),
    "STORAGE_QUOTA_EXCEEDED": Said(413, EXHAUSTED, "referenceImageError"),
    "UNAUTHENTICATED": Said(401, grpc.StatusCode.UNAUTHENTICATED),
    "INSUFFICIENT_CREDITS": Said(402, grpc.StatusCode.FAILED_PRECONDITION),
    "JOB_NOT_FOUND": Said(404, NOT_FOUND),
    "ASSET_NOT_FOUND": Said(404, NOT_FOUND),
    "REFERENCE_IMAGE_NOT_FOUND": Said(404, NOT_FOUND),
    "IDEMPOTENCY_CONFLICT": Said(422, grpc.StatusCode.ALREADY_EXISTS),
    "RATE_LIMITED": Said(429, EXHAUSTED, waits=True),
    "QUEUE_FULL": Said(503, UNAVAILABLE, waits=True),
    "NO_RENDERER": Said(503, UNAVAILABLE),
    "DATABASE_UNAVAILABLE": Said(503, UNAVAILABLE, waits=True),
    "STORAGE_UNAVAILABLE": Said(503, UNAVAILABLE, waits=True),
    "UNAVAILABLE": Said(503, UNAVAILABLE, waits=True),
    # To operators alone, who are served over gRPC.
    "PERMISSION_DENIED": Said(403, grpc.StatusCode.PERMISSION_DENIED),
    "DELIVERY_NOT_FOUND": Said(404, NOT_FOUND),
    "DELIVERY_IN_PROGRESS": Said(409, grpc.StatusCode.FAILED_PRECONDITION, waits=True),
    "JOB_NOT_QUARANTINED": Said(409, grpc.StatusCode.FAILED_PRECONDITION),
}
OPERATORS = {"PERMISSION_DENIED", "DELIVERY_NOT_FOUND", "DELIVERY_IN_PROGRESS", "JOB_NOT_QUARANTINED"}

# An address or a port would be one of the machines' own; so would a path. What a user sent may come back to them.
INSIDES = re.compile(
    r"Traceback|File \"|\.py\b|asyncpg|sqlalchemy|postgres|Errno|Exception|(?<!referenceImage)Error\b|No such file"
    r"|[Cc]onnection (refused|reset|was)|[Cc]onnect call|\b(SELECT|INSERT|UPDATE|DELETE) "
    r"|\brelation\b|\bconstraint\b|\bcolumn\b|pg_|(?<![\w/.])/(?!api/)\w+/|\bobjects/"
    r"|127\.0\.0\.1|localhost|:\d{4,5}\b"
)


def check(refused: Refused, driver: Driver, reason: str, *, says: str = "", field: str | None = None) -> None:
    """Check all that a refusal must be: its status, its flags, when to ask again, and nothing of our insides."""
    said = SAID[reason]
    assert refused.reason == reason, refused
    assert says in refused.message
    assert (refused.retry_after_s is not None) == said.waits
    assert not said.waits or refused.retry_after_s >= 1
    if field is not None:
        assert refused.fields == (field,)
    if driver.front == "rest":
        assert refused.status == said.http
        assert refused.flags == ({said.flag} if said.flag else frozenset())
        assert refused.retryable == said.waits
        assert refused.suggested_action or said.http in (404, 403)
    else:
        assert refused.status == said.grpc
    found = INSIDES.search(refused.raw)
    assert found is None, f"{found} in {refused.raw}"


async def refusal(call: Awaitable[Any]) -> Refused:
    with pytest.raises(Refused) as refused:
        await call
    return refused.value


CALLS: dict[str, Callable[[Driver], Awaitable[Any]]] = {
    "create": lambda driver: driver.create(),
    "get": lambda driver: driver.get(UNKNOWN),
    "page": lambda driver: driver.page(),
    "cancel": lambda driver: driver.cancel(UNKNOWN),
    "watch": lambda driver: anext(driver.watch(UNKNOWN)),
    "upload": lambda driver: driver.upload(file_of(halves())),
    "references": lambda driver: driver.references(),
    "delete a reference": lambda driver: driver.delete_reference(UNKNOWN),
    "assets": lambda driver: driver.assets(),
    "delete an asset": lambda driver: driver.delete_asset(UNKNOWN),
    "credits": lambda driver: driver.credits(),
    "queues": lambda driver: driver.queues(),
}
"""Everything that a caller can do."""
