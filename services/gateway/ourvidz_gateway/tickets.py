"""Tickets for one job's event stream: for EventSource, which can't send a token in a header."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from ourvidz_gateway.database import Database
from ourvidz_gateway.errors import Unauthenticated

_ISSUE = """
INSERT INTO stream_tickets (ticket_sha256, user_id, job_id, expires_at) VALUES ($1, $2, $3, now() + $4::interval)
RETURNING expires_at
"""

_REDEEM = "SELECT user_id FROM stream_tickets WHERE ticket_sha256 = $1 AND job_id = $2 AND expires_at > now()"


@dataclass(frozen=True, slots=True)
class Ticket:
    """Opens one job's event stream until it expires, for whoever holds it."""

    text: str
    expires_at: datetime


class Tickets:
    """The tickets of all users. Only their hashes are stored. Raises `DatabaseUnavailable` from any call."""

    def __init__(self, database: Database, *, expiry: timedelta) -> None:
        self._database = database
        self._expiry = expiry

    async def issue(self, user_id: str, job_id: UUID) -> Ticket:
        """Make a ticket for a job of this user's, which is known to exist."""
        text = secrets.token_urlsafe()
        row = await self._database.fetchrow(_ISSUE, _sha256(text), user_id, job_id, self._expiry)
        if row is None:
            raise RuntimeError("a statement that returns one row returned none")
        return Ticket(text, row["expires_at"])

    async def redeem(self, text: str, job_id: UUID) -> str:
        """Return the user whose job a ticket opens. Raises `Unauthenticated` for one that doesn't open this job."""
        row = await self._database.fetchrow(_REDEEM, _sha256(text), job_id)
        if row is None:
            # One answer for a ticket that never was, one of another job and one that has expired.
            raise Unauthenticated("The ticket doesn't open this job's events, or not any more.")
        user_id: str = row["user_id"]
        return user_id


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="replace")).digest()
