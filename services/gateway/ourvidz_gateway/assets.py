"""What jobs have made, as their users look through it and delete it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from ourvidz_gateway.database import Database
from ourvidz_gateway.errors import AssetNotFound
from ourvidz_gateway.jobs import Asset
from ourvidz_gateway.pages import make_token, read_token
from ourvidz_gateway.records import asset_of

_PAGE = """
SELECT * FROM assets
WHERE user_id = $1 AND deleted_at IS NULL
  AND (created_at, id) < (coalesce($2::timestamptz, 'infinity'),
                          coalesce($3::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
  AND ($4::text IS NULL OR job_type = $4)
  AND ($5::text IS NULL OR project_id = $5)
ORDER BY created_at DESC, id DESC
LIMIT $6
"""

_ONE = "SELECT * FROM assets WHERE id = $1 AND user_id = $2 AND deleted_at IS NULL"

_DELETE = """
UPDATE assets SET deleted_at = now() WHERE id = $1 AND user_id = $2 AND deleted_at IS NULL RETURNING true
"""


@dataclass(frozen=True, slots=True)
class ListedAsset:
    """An asset with what is known of its job, which may be gone."""

    asset: Asset
    job_type: str
    project_id: str | None


@dataclass(frozen=True, slots=True)
class AssetFilter:
    """Which of a user's assets a list shows; None: all."""

    job_type: str | None = None
    project_id: str | None = None


class Assets:
    """The assets of all users. Every call takes the user, and knows no other user's asset.

    `on_deleted` is called when there is something for the cleaner. Raises `DatabaseUnavailable` from any call.
    """

    def __init__(self, database: Database, *, on_deleted: Callable[[], None]) -> None:
        self._database = database
        self._on_deleted = on_deleted

    async def page(
        self, user_id: str, where: AssetFilter, *, page_size: int, page_token: str | None
    ) -> tuple[list[ListedAsset], str | None]:
        """Return a page, newest first, and the token of the next. Raises `InvalidRequest` for a bad token."""
        created_at, asset_id = read_token(page_token)
        rows = await self._database.fetch(
            _PAGE, user_id, created_at, asset_id, where.job_type, where.project_id, page_size + 1
        )
        listed = [_listed(row) for row in rows[:page_size]]
        last = listed[-1].asset if listed else None
        return listed, make_token(last.created_at, last.id) if last and len(rows) > page_size else None

    async def get(self, user_id: str, asset_id: UUID) -> ListedAsset:
        """Return one asset. Raises `AssetNotFound`."""
        row = await self._database.fetchrow(_ONE, asset_id, user_id)
        if row is None:
            raise AssetNotFound
        return _listed(row)

    async def delete(self, user_id: str, asset_id: UUID) -> None:
        """Delete an asset: it is gone for its user at once, and its object as soon as storage lets go of it.

        Raises `AssetNotFound`.
        """
        if await self._database.fetchrow(_DELETE, asset_id, user_id) is None:
            raise AssetNotFound
        self._on_deleted()


def _listed(row: asyncpg.Record) -> ListedAsset:
    return ListedAsset(asset_of(row), row["job_type"], row["project_id"])
