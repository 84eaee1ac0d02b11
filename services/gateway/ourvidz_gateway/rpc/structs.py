"""JSON values in and out of `google.protobuf.Struct`, whose numbers are all doubles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.struct_pb2 import Struct, Value

EXACT_INTEGER = 2**53
"""Up to here a double holds every integer."""


def from_struct(struct: Struct) -> dict[str, Any]:
    """Return a Struct as JSON values; whole numbers become integers, as they would have been in JSON."""
    return {key: _from_value(value) for key, value in struct.fields.items()}


def to_struct(values: Mapping[str, Any]) -> Struct:
    """Return JSON values as a Struct; integers past 2⁵³ lose their last digits."""
    struct = Struct()
    struct.update(values)
    return struct


def _from_value(value: Value) -> Any:
    match value.WhichOneof("kind"):
        case "struct_value":
            return from_struct(value.struct_value)
        case "list_value":
            return [_from_value(item) for item in value.list_value.values]
        case "number_value":
            return _number(value.number_value)
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case _:
            return None


def _number(number: float) -> int | float:
    return int(number) if number.is_integer() and abs(number) <= EXACT_INTEGER else number
