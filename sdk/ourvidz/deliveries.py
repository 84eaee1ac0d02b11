"""Webhooks on their way, as operators see them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class DeliveryState(StrEnum):
    """Where a webhook delivery stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    """All tries are used up; a retry starts anew."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One webhook on its way to one URL."""

    id: str
    """The `webhook-id` that the receiver sees at each try."""
    job_id: str
    user_id: str
    url: str
    state: DeliveryState
    attempt_count: int
    """Tries so far."""
    last_http_status: int | None
    """What the last try was answered with; None if there was no answer or no try."""
    last_error: str | None
    """Why the last try failed."""
    created_at: datetime | None
    last_attempt_at: datetime | None
    next_attempt_at: datetime | None
    """None unless it is pending."""
