"""Reference pictures that users bring: uploaded, listed and deleted, within what one user may keep.

An upload's row is there before its object, marked as if it were deleted some minutes from now, and loses that mark when
the object is stored. Whatever interrupts an upload, the cleaner then finds both. The bytes count for the user
from the moment that the mark is gone to the moment that the user deletes the picture.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4
from weakref import WeakValueDictionary

import asyncpg
import tenacity

from ourvidz_gateway.database import Database
from ourvidz_gateway.decoding import Decoder
from ourvidz_gateway.errors import (
    DatabaseUnavailable,
    FileTooLarge,
    InvalidReferenceImage,
    InvalidRequest,
    ReferenceImageNotFound,
    StorageQuotaExceeded,
)
from ourvidz_gateway.pages import make_token, read_token
from ourvidz_gateway.plan import user_folder
from ourvidz_gateway.references import BUCKET
from ourvidz_gateway.storage import reaching_storage
from ourvidz_gateway.text import is_plain
from ourvidz_serving.pictures import MAX_FILE_BYTES, MIME_TYPES, BadPicture, read_picture
from ourvidz_serving.storage import ObjectStore

FIELD: Final = "file"
"""The upload's own field, which errors name."""

MAX_FILENAME_CHARACTERS: Final = 200

UPLOADS: Final = 4
"""Files of one user that are in memory at once; a user who sends more is read from more slowly."""

UPLOAD_LIMIT_S: Final = 300.0
"""For all of an upload: a sender who falls silent does not hold their place for ever."""

UNCONFIRMED: Final = timedelta(minutes=15)
"""How long an upload's row waits for its object before the cleaner takes both: longer than any upload lasts."""

CONFIRM_TRIES: Final = 4

_TAKEN = "SELECT reference_bytes FROM accounts WHERE user_id = $1"

_ANNOUNCE = """
INSERT INTO reference_images (id, user_id, bucket, key, filename, mime_type, size_bytes, sha256, width_px, height_px,
                              deleted_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, now() + $11::interval)
RETURNING created_at
"""

# Done again after its answer was lost, it changes nothing more. Without the lock, the second one would count the bytes
# again while the first has not committed yet.
_CONFIRM = """
WITH announced AS (
  SELECT id, size_bytes FROM reference_images WHERE id = $1 AND user_id = $2 AND deleted_at > now() FOR UPDATE
),
account AS (
  INSERT INTO accounts AS account (user_id, reference_bytes)
  SELECT $2, size_bytes FROM announced WHERE size_bytes <= $3::bigint
  ON CONFLICT (user_id) DO UPDATE SET reference_bytes = account.reference_bytes + excluded.reference_bytes
    WHERE account.reference_bytes + excluded.reference_bytes <= $3::bigint
  RETURNING user_id
),
confirmed AS (
  UPDATE reference_images SET deleted_at = NULL FROM announced, account WHERE reference_images.id = announced.id
  RETURNING true
)
SELECT true FROM confirmed
"""

_GIVE_UP = "UPDATE reference_images SET deleted_at = now() WHERE id = $1 AND deleted_at > now() RETURNING true"

_PAGE = """
SELECT * FROM reference_images
WHERE user_id = $1 AND deleted_at IS NULL
  AND (created_at, id) < (coalesce($2::timestamptz, 'infinity'),
                          coalesce($3::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
ORDER BY created_at DESC, id DESC
LIMIT $4
"""

# Never below zero, whatever was not counted: nobody must be unable to delete what is theirs.
_DELETE = """
WITH gone AS (
  UPDATE reference_images SET deleted_at = now() WHERE id = $1 AND user_id = $2 AND deleted_at IS NULL
  RETURNING user_id, size_bytes
),
account AS (
  UPDATE accounts SET reference_bytes = greatest(0, reference_bytes - gone.size_bytes)
  FROM gone WHERE accounts.user_id = gone.user_id
)
SELECT true FROM gone
"""


@dataclass(frozen=True, slots=True)
class ReferenceImage:
    """A picture that a user uploaded."""

    id: UUID
    user_id: str
    bucket: str
    key: str
    filename: str
    """The name that the file had; empty if none was given."""
    mime_type: str
    size_bytes: int
    width_px: int
    height_px: int
    created_at: datetime


class Uploads:
    """The uploaded pictures of all users. Every call takes the user, and knows no other user's picture.

    `quota_bytes` is what one user's pictures may take in all; `on_deleted` is called when there is something for the
    cleaner. Raises `StorageUnavailable` and `DatabaseUnavailable` from any call.
    """

    def __init__(
        self,
        database: Database,
        store: ObjectStore,
        decoder: Decoder,
        *,
        quota_bytes: int,
        on_deleted: Callable[[], None],
    ) -> None:
        self._database = database
        self._store = store
        self._decoder = decoder
        self._quota_bytes = quota_bytes
        self._on_deleted = on_deleted
        self._places: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def uploading(self, user_id: str) -> AsyncIterator[None]:
        """Wait until a user's next file may be read; the block is all of its upload.

        Raises `InvalidRequest` when that takes too long, and `StorageQuotaExceeded` for who has no room at all.
        """
        places = self._places.setdefault(user_id, asyncio.Semaphore(UPLOADS))
        async with places:
            try:
                async with asyncio.timeout(UPLOAD_LIMIT_S):
                    await self._check_room(user_id, 1)
                    yield
            except TimeoutError:
                raise InvalidRequest(f"The upload took longer than {UPLOAD_LIMIT_S / 60:g} minutes.") from None

    async def upload(self, user_id: str, data: bytes, *, filename: str = "") -> ReferenceImage:
        """Check a file and store it as it came.

        Raises `FileTooLarge`, `StorageQuotaExceeded`, and `InvalidReferenceImage` for what is no whole PNG, JPEG or
        WebP or has too many pixels; then nothing was stored. After `DatabaseUnavailable` it may have been.
        """
        check_size(len(data))
        await self._check_room(user_id, len(data))
        try:
            mime_type, width_px, height_px = await self._decoder.run(_described, data)
        except BadPicture as error:
            raise InvalidReferenceImage(
                f"The file can't be used as a reference image: {error}.", field=FIELD
            ) from error
        image_id = uuid4()
        key = f"{user_folder(user_id)}/{image_id}"
        filename = "".join(character for character in filename if is_plain(character))[:MAX_FILENAME_CHARACTERS]
        row = await self._database.fetchrow(
            _ANNOUNCE,
            image_id,
            user_id,
            BUCKET,
            key,
            filename,
            mime_type,
            len(data),
            hashlib.sha256(data).digest(),
            width_px,
            height_px,
            UNCONFIRMED,
        )
        assert row is not None  # noqa: S101  # the statement returns what it inserts
        with reaching_storage():
            await self._store.put(BUCKET, key, data, content_type=mime_type)
        # One that can't be given up is confirmed already, by a statement whose answer was lost.
        if not await self._confirm(user_id, image_id) and await self._database.fetchrow(_GIVE_UP, image_id):
            self._on_deleted()
            raise self._no_room()
        return ReferenceImage(
            image_id, user_id, BUCKET, key, filename, mime_type, len(data), width_px, height_px, row["created_at"]
        )

    async def page(
        self, user_id: str, *, page_size: int, page_token: str | None
    ) -> tuple[list[ReferenceImage], str | None]:
        """Return a page, newest first, and the token of the next. Raises `InvalidRequest` for a bad token."""
        created_at, image_id = read_token(page_token)
        rows = await self._database.fetch(_PAGE, user_id, created_at, image_id, page_size + 1)
        images = [_image_of(row) for row in rows[:page_size]]
        return images, make_token(images[-1].created_at, images[-1].id) if len(rows) > page_size else None

    async def delete(self, user_id: str, image_id: UUID) -> None:
        """Delete a picture: it is gone for its user at once, and its object as soon as storage lets go of it.

        Raises `ReferenceImageNotFound`.
        """
        if await self._database.fetchrow(_DELETE, image_id, user_id) is None:
            raise ReferenceImageNotFound
        self._on_deleted()

    # Tried again, since an answer that was lost leaves a stored picture that its sender was told has failed.
    @tenacity.retry(
        retry=tenacity.retry_if_exception_type(DatabaseUnavailable),
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=2),
        stop=tenacity.stop_after_attempt(CONFIRM_TRIES),
        reraise=True,
    )
    async def _confirm(self, user_id: str, image_id: UUID) -> bool:
        """Show a picture to its user, now that it is stored; return False if it doesn't fit or is shown already."""
        return await self._database.fetchrow(_CONFIRM, image_id, user_id, self._quota_bytes) is not None

    async def _check_room(self, user_id: str, size_bytes: int) -> None:
        """Refuse at once what is known not to fit; what fits now may still be refused when it is confirmed."""
        row = await self._database.fetchrow(_TAKEN, user_id)
        if (row["reference_bytes"] if row else 0) + size_bytes > self._quota_bytes:
            raise self._no_room()

    def _no_room(self) -> StorageQuotaExceeded:
        return StorageQuotaExceeded(
            f"All your reference images together may take {self._quota_bytes / 2**20:g} MB; this one does not fit.",
            field=FIELD,
        )


def check_size(size_bytes: int) -> None:
    """Raise `FileTooLarge` for a file over the limit."""
    if size_bytes > MAX_FILE_BYTES:
        raise FileTooLarge(f"The file is over {MAX_FILE_BYTES / 2**20:g} MB.", field=FIELD)


def _described(data: bytes) -> tuple[str, int, int]:
    picture = read_picture(data)
    return MIME_TYPES[picture.format or ""], picture.width, picture.height


def _image_of(row: asyncpg.Record) -> ReferenceImage:
    return ReferenceImage(
        id=row["id"],
        user_id=row["user_id"],
        bucket=row["bucket"],
        key=row["key"],
        filename=row["filename"],
        mime_type=row["mime_type"],
        size_bytes=row["size_bytes"],
        width_px=row["width_px"],
        height_px=row["height_px"],
        created_at=row["created_at"],
    )
