"""Webhook deliveries as operators see them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import asyncpg

from ourvidz_gateway.database import Database
from ourvidz_gateway.errors import DeliveryInProgress, DeliveryNotFound
from ourvidz_gateway.pages import check_page_size, make_token, read_token


class DeliveryState(StrEnum):
    """Where a webhook delivery stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    """All tries are used up; a retry starts anew."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One webhook on its way to one URL."""

    id: UUID
    """The `webhook-id` that the receiver sees at each try."""
    job_id: UUID
    user_id: str
    url: str
    state: DeliveryState
    attempt_count: int
    last_http_status: int | None
    last_error: str
    """Empty if the last try went well, or there was none."""
    created_at: datetime
    last_attempt_at: datetime | None
    next_attempt_at: datetime | None
    """None unless it is pending."""


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Which deliveries a list shows; None: all."""

    state: DeliveryState | None = None
    job_id: UUID | None = None
    user_id: str | None = None


_IN_STATE = {
    None: "true",
    DeliveryState.PENDING: "next_try_at IS NOT NULL",
    DeliveryState.DELIVERED: "delivered_at IS NOT NULL",
    DeliveryState.FAILED: "given_up_at IS NOT NULL",
}

# One statement for each state, so that the few that failed are found by their own index.
_PAGES = {
    state: f"""
    SELECT * FROM webhook_outbox
    WHERE {condition} AND ($1::uuid IS NULL OR job_id = $1) AND ($2::text IS NULL OR user_id = $2)
      AND (created_at, id) < (coalesce($3::timestamptz, 'infinity'),
                              coalesce($4::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
    ORDER BY created_at DESC, id DESC
    LIMIT $5
    """
    for state, condition in _IN_STATE.items()
}

# The day counts from now, and the pauses are short again.
_RETRY = """
UPDATE webhook_outbox SET
  next_try_at = now(), retried_at = now(), tries_before = tries, delivered_at = NULL, given_up_at = NULL
WHERE id = $1 AND leased_until <= now()
RETURNING *
"""

_EXISTS = "SELECT FROM webhook_outbox WHERE id = $1"


class Deliveries:
    """All webhook deliveries; for operators alone. `operator_url` is where the operator's own go now.

    Raises `DatabaseUnavailable` from any call.
    """

    def __init__(self, database: Database, *, operator_url: str | None) -> None:
        self._database = database
        self._operator_url = operator_url

    async def page(
        self, where: DeliveryFilter, *, page_size: int, page_token: str | None
    ) -> tuple[list[Delivery], str | None]:
        """Return a page, newest first, and the token of the next. Raises `InvalidRequest` for a bad size or token."""
        check_page_size(page_size)
        created_at, delivery_id = read_token(page_token)
        rows = await self._database.fetch(
            _PAGES[where.state], where.job_id, where.user_id, created_at, delivery_id, page_size + 1
        )
        page = [self._delivery_of(row) for row in rows[:page_size]]
        return page, make_token(page[-1].created_at, page[-1].id) if len(rows) > page_size else None

    async def retry(self, delivery_id: UUID) -> Delivery:
        """Let a webhook be sent again, soon and under its old id. Raises `DeliveryNotFound`, `DeliveryInProgress`."""
        row = await self._database.fetchrow(_RETRY, delivery_id)
        if row is None:
            if await self._database.fetchrow(_EXISTS, delivery_id) is None:
                raise DeliveryNotFound
            raise DeliveryInProgress("The webhook is being sent right now.")
        return self._delivery_of(row)

    def _delivery_of(self, row: asyncpg.Record) -> Delivery:
        state = DeliveryState.PENDING
        if row["delivered_at"]:
            state = DeliveryState.DELIVERED
        elif row["given_up_at"]:
            state = DeliveryState.FAILED
        return Delivery(
            id=row["id"],
            job_id=row["job_id"],
            user_id=row["user_id"],
            url=row["url"] or self._operator_url or "",
            state=state,
            attempt_count=row["tries"],
            last_http_status=row["last_http_status"],
            last_error=row["last_error"] or "",
            created_at=row["created_at"],
            last_attempt_at=row["last_try_at"],
            next_attempt_at=row["next_try_at"],
        )
