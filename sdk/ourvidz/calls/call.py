"""One call, before it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Call(Generic[Result]):
    """One call of a service: what is sent, and how the answer is read. It can be made any number of times."""

    service: type[Any]
    """The generated stub that has the method."""
    method: str
    """The method's name in the contract."""
    request: Any
    """The message; for a stream of them, an iterator that fits the client."""
    read: Callable[[Any], Result]
    timeout_s: float | None = None
    """How long it may take where its caller does not say; None: as long as any call."""
