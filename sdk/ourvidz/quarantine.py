"""Jobs that killed their renderer at each attempt, as operators see them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class QuarantinedJob:
    """A job in quarantine, or one that was released from it."""

    job_id: str
    """The job, which has failed."""
    user_id: str
    job_type: str
    attempt_count: int
    error_message: str
    """How the last attempt ended, in words."""
    renderers: tuple[str, ...]
    """The renderers that it ran on, by address, in the order of its attempts."""
    quarantined_at: datetime | None
    released_job_id: str | None
    """The new job that it was released as; None while it is in quarantine."""
