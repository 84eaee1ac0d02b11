"""What a user can spend."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Credits:
    """A user's credits as they stood when the service was asked."""

    available: int
    """Credits that can be spent."""
    reserved: int
    """Credits held for jobs that have not ended."""
