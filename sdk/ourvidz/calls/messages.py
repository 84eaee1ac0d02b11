"""Between the contracts' messages and the values that Python programs work with."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp


def time_of(message: Any, field: str) -> datetime | None:
    """Return the time in a field; None where it is not set."""
    if not message.HasField(field):
        return None
    timestamp: Timestamp = getattr(message, field)
    return timestamp.ToDatetime(tzinfo=UTC)


def seconds_of(message: Any, field: str) -> float | None:
    """Return the length of the span in a field; None where it is not set."""
    if not message.HasField(field):
        return None
    seconds: float = getattr(message, field).ToTimedelta().total_seconds()
    return seconds


def optional_of(message: Any, field: str) -> Any:
    """Return an optional field's value; None where it is not set."""
    return getattr(message, field) if message.HasField(field) else None


def plain(value: Any) -> Any:
    """Give whole numbers back as int: a Struct knows doubles only, and a seed of 7.0 reads badly."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
