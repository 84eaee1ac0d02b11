"""The part of a job's metadata that is the caller's own: kept and returned, so it must be storable and readable."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from ourvidz_gateway.errors import InvalidRequest
from ourvidz_gateway.text import is_storable

MAX_BYTES = 16 * 2**10
"""What the caller's own fields may weigh in all, as JSON."""

MAX_DEPTH = 16
"""Deeper values could be stored but not be read over gRPC: protobuf stops at 100 levels, and JSON takes three each."""


def check_extras(extras: Mapping[str, Any]) -> None:
    """Check fields of the caller's own. Raises `InvalidRequest`, with the path of what is wrong."""
    _check_json(extras, "metadata", MAX_DEPTH)
    size = len(json.dumps(extras, ensure_ascii=False, separators=(",", ":")).encode())
    if size > MAX_BYTES:
        raise InvalidRequest(
            f"Fields of your own in metadata take {size:,} bytes; at most {MAX_BYTES:,} are allowed.",
            field="metadata",
        )


def _check_json(value: Any, field: str, depth: int) -> None:
    if isinstance(value, Mapping):
        if not all(is_storable(key) for key in value):
            raise InvalidRequest("A key in metadata has a NUL or half of a surrogate pair.", field=field)
        inner: list[tuple[str, Any]] = [(f"{field}.{key[:100]}", item) for key, item in value.items()]
    elif isinstance(value, list):
        inner = [(f"{field}[{index}]", item) for index, item in enumerate(value)]
    else:
        _check_scalar(value, field)
        return
    if depth == 0:
        raise InvalidRequest(f"metadata is nested deeper than {MAX_DEPTH} levels.", field="metadata")
    for path, item in inner:
        _check_json(item, path, depth - 1)


def _check_scalar(value: Any, field: str) -> None:
    if isinstance(value, str) and not is_storable(value):
        raise InvalidRequest("A string in metadata has a NUL or half of a surrogate pair.", field=field)
    if isinstance(value, int | float):
        try:
            finite = math.isfinite(float(value))
        except OverflowError:
            finite = False
        if not finite:
            raise InvalidRequest("A number in metadata is beyond the range of a 64-bit float.", field=field)
