"""Reads the body of a request: bounded, and as strict JSON."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from fastapi import Request
from starlette.requests import ClientDisconnect

from ourvidz_gateway.errors import BodyTooLarge, InvalidRequest
from ourvidz_gateway.text import quoted

MAX_BODY_BYTES = 2**20

MAX_DEPTH = 64
"""Lists and objects within each other: far from where walking through them exhausts the interpreter's stack."""


async def read_json_object(request: Request) -> dict[str, Any]:
    """Return the body's JSON object. Raises `BodyTooLarge` past 1 MB and `InvalidRequest` for anything else.

    The content type is not looked at: browsers' `fetch` calls a string `text/plain` unless told otherwise, and the
    reference's own examples don't tell it.
    """
    body = await _read(request)
    try:
        value = json.loads(
            body.decode(), parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique
        )
    except (ValueError, RecursionError) as error:
        # UnicodeDecodeError and JSONDecodeError are ValueErrors, and so are integers of more than 4,300 digits.
        raise InvalidRequest("The body is not valid JSON.") from error
    if not isinstance(value, dict):
        raise InvalidRequest("The body must be a JSON object.")
    _check_depth(value)
    return value


async def _read(request: Request) -> bytes:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise BodyTooLarge(f"The body is larger than {MAX_BODY_BYTES:,} bytes.")
    except ClientDisconnect as error:
        raise InvalidRequest("The body ended early.") from error
    return bytes(body)


def _check_depth(body: dict[str, Any]) -> None:
    level: list[Any] = [body]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise InvalidRequest(f"The body is nested deeper than {MAX_DEPTH} levels.")


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidRequest(f"The body is not valid JSON: {name} is no JSON number.")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise InvalidRequest("The body has a number beyond the range of a 64-bit float.")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Which of two values counts is a guess, and a seed or a price is nothing to guess at.
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidRequest(f"The body has the key {quoted(twice)} twice.")
    return result
