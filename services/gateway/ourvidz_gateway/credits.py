"""Users' credits: what they have, and the ledger of how that came about."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import uuid4

import asyncpg

from ourvidz_gateway.database import Database
from ourvidz_gateway.errors import IdempotencyConflict, InsufficientCredits, InvalidRequest
from ourvidz_gateway.text import is_plain, is_prose

MAX_GRANT = 10**9
MAX_NOTE_CHARACTERS = 500
MAX_ID_CHARACTERS = 200

_BALANCE = """
SELECT available + CASE WHEN welcomed_by IS NULL THEN $2::bigint ELSE 0 END AS available, reserved
FROM accounts WHERE user_id = $1
"""

# $1 user, $2 amount, $3 welcome, $4 note, $5 request, $6 operator, $7 the grant's name. A grant welcomes a new user, so
# that an operator can take away what the user is shown to have.
_GRANT = """
WITH account AS (
  INSERT INTO accounts AS a (user_id, available, welcomed_by)
  SELECT $1::text, $3::bigint + $2::bigint, $7::uuid
  WHERE $3::bigint + $2::bigint >= 0 OR EXISTS (SELECT FROM accounts WHERE user_id = $1::text)
  ON CONFLICT (user_id) DO UPDATE SET
    available = a.available + CASE WHEN a.welcomed_by IS NULL THEN $3::bigint ELSE 0 END + $2::bigint,
    welcomed_by = coalesce(a.welcomed_by, $7::uuid)
  WHERE $2::bigint > 0
     OR a.available + CASE WHEN a.welcomed_by IS NULL THEN $3::bigint ELSE 0 END + $2::bigint >= 0
  RETURNING user_id, available, reserved, welcomed_by
),
entries AS (
  INSERT INTO credit_ledger (user_id, entry, amount, note, request_id, granted_by)
  SELECT account.user_id, 'grant', e.amount, e.note, e.request_id, e.granted_by FROM account, LATERAL (VALUES
    (CASE WHEN account.welcomed_by = $7::uuid THEN $3::bigint ELSE 0 END, 'welcome', NULL, NULL),
    ($2::bigint, $4::text, $5::text, $6::text)) AS e (amount, note, request_id, granted_by)
  WHERE e.amount <> 0
)
SELECT available, reserved FROM account
"""

_GRANTED = "SELECT user_id, amount, note FROM credit_ledger WHERE request_id = $1"


@dataclass(frozen=True, slots=True)
class Balance:
    """What a user can spend, in credits."""

    user_id: str
    available: int
    """Credits that can be spent."""
    reserved: int
    """Credits held for jobs that have not ended."""


class Credits:
    """The credits of all users. `welcome` is what a user is given with their first job.

    Raises `DatabaseUnavailable` from any call.
    """

    def __init__(self, database: Database, *, welcome: int) -> None:
        self._database = database
        self._welcome = welcome

    async def balance(self, user_id: str) -> Balance:
        """Return a user's credits; who has not been seen yet has those of a new user."""
        row = await self._database.fetchrow(_BALANCE, user_id, self._welcome)
        return Balance(user_id, row["available"], row["reserved"]) if row else Balance(user_id, self._welcome, 0)

    async def grant(self, user_id: str, amount: int, *, note: str, request_id: str | None, granted_by: str) -> Balance:
        """Add credits to a user's account, or take some away when `amount` is negative; return what they have then.

        The same `request_id` grants once, for good. Raises `InvalidRequest`, `InsufficientCredits` when fewer can be
        spent than are to be taken away, and `IdempotencyConflict` when another grant stands under `request_id`.
        """
        _check(user_id, amount, note, request_id)
        request_id = request_id or None
        try:
            row = await self._database.fetchrow(
                _GRANT, user_id, amount, self._welcome, note, request_id, granted_by, uuid4()
            )
        except asyncpg.UniqueViolationError as error:
            if error.constraint_name != "credit_ledger_request":
                raise
            row = None
        if row:
            return Balance(user_id, row["available"], row["reserved"])
        granted = await self._database.fetchrow(_GRANTED, request_id)
        if granted is None:
            available = (await self.balance(user_id)).available
            raise InsufficientCredits(f"{-amount} credits can't be taken away: there are {available} to spend.")
        if tuple(granted) != (user_id, amount, note):
            raise IdempotencyConflict("Another grant was made under the same request id.")
        return await self.balance(user_id)


def _check(user_id: str, amount: int, note: str, request_id: str | None) -> None:
    if not user_id or not is_plain(user_id):
        raise InvalidRequest("A user is required, without control characters.", field="user_id")
    if amount == 0 or abs(amount) > MAX_GRANT:
        raise InvalidRequest(f"The amount must be from {-MAX_GRANT:,} to {MAX_GRANT:,}, and not 0.", field="amount")
    if len(note) > MAX_NOTE_CHARACTERS or not is_prose(note):
        raise InvalidRequest(
            f"The note must have at most {MAX_NOTE_CHARACTERS} characters, and no control characters.", field="note"
        )
    if request_id and (len(request_id) > MAX_ID_CHARACTERS or not is_plain(request_id)):
        raise InvalidRequest(
            f"The request id must have at most {MAX_ID_CHARACTERS} characters, and no control characters.",
            field="request_id",
        )
