"""Pages of lists, newest first: where one ended is said in a token that only we need to understand."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, datetime
from uuid import UUID

from ourvidz_gateway.errors import InvalidRequest

DEFAULT_PAGE_SIZE = 20
MAX_PAGE_SIZE = 100


def check_page_size(page_size: int) -> None:
    """Raise `InvalidRequest` unless a page may have this size."""
    if not 1 <= page_size <= MAX_PAGE_SIZE:
        raise InvalidRequest(f"The page size must be from 1 to {MAX_PAGE_SIZE}.", field="page_size")


def make_token(moment: datetime, row_id: UUID) -> str:
    """Return the token of the page that follows the row with this time and id."""
    return base64.urlsafe_b64encode(json.dumps([moment.isoformat(), str(row_id)]).encode()).decode()


def read_token(token: str | None) -> tuple[datetime | None, UUID | None]:
    """Return the time and the id that a page starts after; None for both: from the newest. Raises `InvalidRequest`."""
    if not token:
        return None, None
    try:
        moment_text, row_id = json.loads(base64.urlsafe_b64decode(token.encode()))
        moment = datetime.fromisoformat(moment_text)
        if moment.tzinfo is None:
            raise ValueError("a moment without a time zone")
        return moment.astimezone(UTC), UUID(row_id)
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError, binascii.Error) as error:
        raise InvalidRequest("The page token is not one that a list returned.", field="page_token") from error
